"""Holds every packet that is routed into the interface `delay0` for some milliseconds, and loses some.

    delay.py MILLISECONDS PERCENT_LOST [NETWORK]

With a network like 203.0.113.0/24 the time is that of its access lines: a packet takes it once for each of its two ends that
lies in the network, so that two of them are twice as far from each other as each is from the rest of the world.

The same packets in the same order lose the same ones. Stands in for the kernel's own `netem`, which many kernels are built without. Ends when stdin does.
"""

import fcntl
import heapq
import ipaddress
import itertools
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
    access = ipaddress.IPv4Network(sys.argv[3]) if len(sys.argv) > 3 else None
    dice = random.Random(1)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"delay0", IFF_TUN | IFF_NO_PI))
    print(json.dumps({"event": "ready"}), flush=True)

    # When each is due; those that are due at once leave as they came.
    on_their_way: list[tuple[float, int, bytes]] = []
    order = itertools.count()
    while True:
        wait = max(0.0, on_their_way[0][0] - time.monotonic()) if on_their_way else None
        readable, _, _ = select.select([tun, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return
        if tun in readable:
            packet = os.read(tun, 65536)
            if len(on_their_way) < PACKETS_MAX and dice.random() >= lost:
                due = time.monotonic() + delay * times_held(packet, access)
                heapq.heappush(on_their_way, (due, next(order), packet))
        while on_their_way and on_their_way[0][0] <= time.monotonic():
            os.write(tun, heapq.heappop(on_their_way)[2])


def times_held(packet: bytes, access: ipaddress.IPv4Network | None) -> int:
    """How often the packet is held for the whole time."""
    if access is None:
        return 1
    return sum(ipaddress.IPv4Address(end) in access for end in (packet[12:16], packet[16:20]))


main()
