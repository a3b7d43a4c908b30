"""Holds every packet that is routed into the interface `delay0` for some milliseconds, and loses some.

    delay.py MILLISECONDS PERCENT_LOST

The same packets in the same order lose the same ones. Stands in for the kernel's own `netem`, which many kernels are built without. Ends when stdin does.
"""

import collections
import fcntl
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

# Packets on their way at once, some 15 MB; a real path drops as well when it is full.
PACKETS_MAX = 10_000


def main() -> None:
    delay, lost = int(sys.argv[1]) / 1000, int(sys.argv[2]) / 100
    dice = random.Random(1)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"delay0", IFF_TUN | IFF_NO_PI))
    print(json.dumps({"event": "ready"}), flush=True)

    on_their_way: collections.deque[tuple[float, bytes]] = collections.deque()
    while True:
        wait = max(0.0, on_their_way[0][0] - time.monotonic()) if on_their_way else None
        readable, _, _ = select.select([tun, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return
        if tun in readable:
            packet = os.read(tun, 65536)
            if len(on_their_way) < PACKETS_MAX and dice.random() >= lost:
                on_their_way.append((time.monotonic() + delay, packet))
        while on_their_way and on_their_way[0][0] <= time.monotonic():
            os.write(tun, on_their_way.popleft()[1])


main()
