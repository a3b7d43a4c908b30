"""The schema of `p2p-stdio/1` as Python classes, written by `python/regenerate`; see there.

They live in a descriptor pool of their own: a program that compiles `proto/message.proto` for itself, or
has another `message.proto`, does not collide with them.
"""

from google.protobuf import __version__ as version
from google.protobuf.descriptor_pool import DescriptorPool

if tuple(map(int, version.split(".")[:2])) < (6, 31):
    raise ImportError(
        f"protobuf {version} is older than the code made for it; 6.31 is the oldest that will do"
    )

POOL = DescriptorPool()
