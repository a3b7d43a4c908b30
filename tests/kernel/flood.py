"""Floods a helper for a moment, or counts on the helper's own host what goes in and out.

    flood.py send ADDRESS PORT PER_SECOND SECONDS HEX     that often these bytes, with eight random ones for every `?`
    flood.py watch PORT

The sender ends by itself and says {"event": "done", "sent": …, "received": …}. The watcher answers {"cmd": "count"} with what
helpers and those who talk to them have said so far, by kind (see PROTOCOL.md, section 4):

    {"event": "count", "in": {"4": [datagrams, bytes]}, "out": {"5": […]}, "token": "the last caller's, in hex"}
"""

import collections
import json
import os
import select
import socket
import struct
import sys
import time

FIRST_BYTE = 0x0B
OFFER = 4
ETHERTYPE_IP = 0x0800
# Of the others one sees only what comes in.
ETHERTYPE_ALL = 0x0003
PACKET_OUTGOING = 4

# Nobody floods for longer.
SECONDS_MAX = 10.0


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def send(address: str, port: int, per_second: int, seconds: float, pattern: str) -> None:
    flooder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flooder.connect((address, port))
    flooder.setblocking(False)
    parts = [bytes.fromhex(part) for part in pattern.split("?")]
    began, sent, received = time.monotonic(), 0, 0
    end = began + min(seconds, SECONDS_MAX)
    while (now := time.monotonic()) < end:
        while sent < (now - began) * per_second:
            flooder.send(b"".join(part + os.urandom(8) for part in parts[:-1]) + parts[-1])
            sent += 1
        received += drain(flooder)
        time.sleep(0.002)
    # What is still on its way.
    time.sleep(0.5)
    say("done", sent=sent, received=received + drain(flooder))


def drain(flooder: socket.socket) -> int:
    count = 0
    while True:
        try:
            flooder.recv(2048)
        except (BlockingIOError, ConnectionRefusedError):
            return count
        count += 1


def watch(port: int) -> None:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_ALL))
    counts = {"in": collections.defaultdict(lambda: [0, 0]), "out": collections.defaultdict(lambda: [0, 0])}
    token = ""
    say("ready")
    while True:
        readable, _, _ = select.select([wire, sys.stdin], [], [])
        if wire in readable:
            packet, (_, ethertype, direction, *_) = wire.recvfrom(2048)
            if ethertype != ETHERTYPE_IP:
                continue
            header = (packet[0] & 15) * 4
            if packet[9] != socket.IPPROTO_UDP or len(packet) < header + 10:
                continue
            ports, said = struct.unpack_from("!HH", packet, header), packet[header + 8 :]
            is_out = direction == PACKET_OUTGOING
            if said[0] != FIRST_BYTE or port != ports[0 if is_out else 1]:
                continue
            count = counts["out" if is_out else "in"][said[1]]
            count[0] += 1
            count[1] += len(said)
            if said[1] == OFFER and not is_out:
                token = said[2:9].hex()
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            say("count", **counts, token=token)


if sys.argv[1] == "send":
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), sys.argv[6])
else:
    watch(int(sys.argv[2]))
