"""The schema of `p2p-stdio/1` as Python classes, written by `python/regenerate`; see there.

They live in a descriptor pool of their own: a program that compiles `proto/message.proto` for itself, or
has another `message.proto`, does not collide with them.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
