"""A NAT in user space, for what nftables cannot be told: every packet that is routed into `nat0` is translated.

    nat_box.py '{"public": "203.0.113.1", "inside": "192.168.1.0/24", "mapping": "endpoint", "filtering": "port",
                 "ports": {"kind": "sequential", "step": 1, "others_per_second": 0},
                 "hairpin": "off", "lifetime_s": 120}'

    mapping     endpoint: one outside port for an inside endpoint · address, port: one for each destination
                address, or each destination's address and port
    filtering   none · address: of those who were sent to · port: their very endpoints
    ports       preserving · sequential: the one that is a step above that of the NAT's last mapping, whoever's that was ·
                random, from "low" to "high" if these are given
    hairpin     off · outside: from the outside endpoint, as RFC 4787 demands · inside: the source is left as it is

Written from RFC 4787 alone, so that it shares no mistake with the simulated NATs of the library. It speaks UDP only, over
IPv4, and no ICMP. On stdin it takes JSON lines, and ends when they do:

    {"cmd": "count"}                          -> {"event": "count", "out": …, "in": …, "refused": …, "mappings": …}
    {"cmd": "forget"}                         everything, as a router does that restarts -> {"event": "forgotten"}
    {"cmd": "forget", "networks": ["203.0.113.0/24"]}   that they were ever sent to
"""

import collections
import fcntl
import ipaddress
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

UDP = 17
FIRST_PORT, LAST_PORT = 1024, 65535

# As many as a usual router keeps.
MAPPINGS_MAX = 32_768

Endpoint = tuple[bytes, int]


class Mapping:
    """An outside port, the inside endpoint behind it, and when each outside endpoint was sent to last."""

    def __init__(self, key: tuple[object, ...], inside: Endpoint, port: int) -> None:
        self.key, self.inside, self.port = key, inside, port
        self.contacted: dict[Endpoint, float] = {}
        self.used = 0.0


class Allocator:
    """Which port the next mapping gets."""

    def __init__(self, ports: dict[str, object], dice: random.Random) -> None:
        self.ports, self.dice = ports, dice
        self.next, self.counted_at = dice.randint(20_000, 40_000), time.monotonic()
        # A block that is nearly full takes no longer than one that is empty.
        low, high = ports.get("low", FIRST_PORT), ports.get("high", LAST_PORT)
        self.free = list(range(low, high + 1)) if ports["kind"] == "random" else []

    def candidates(self, inside_port: int):
        """Ports to try, in this order."""
        kind = self.ports["kind"]
        if kind == "preserving":
            yield inside_port
        if kind == "random":
            if self.free:
                drawn = self.dice.randrange(len(self.free))
                self.free[drawn], self.free[-1] = self.free[-1], self.free[drawn]
                yield self.free.pop()
            return
        self.pass_others()
        while True:
            yield self.count_on()

    def count_on(self) -> int:
        """The port that is next, after which another one is."""
        port = self.next
        self.next += self.ports.get("step", 1)
        if self.next > LAST_PORT:
            self.next -= LAST_PORT - FIRST_PORT + 1
        return port

    def take_back(self, port: int) -> None:
        """The mapping that had the port is no more."""
        if self.ports["kind"] == "random":
            self.free.append(port)

    def pass_others(self) -> None:
        """Other users of the NAT have taken ports since its last mapping."""
        now, rate = time.monotonic(), self.ports.get("others_per_second", 0)
        while rate:
            self.counted_at += self.dice.expovariate(rate)
            if self.counted_at > now:
                # The next one of theirs is still to come; that it is drawn anew does not change the distribution.
                break
            self.count_on()
        self.counted_at = now


class Nat:
    def __init__(self, settings: dict) -> None:
        self.settings = settings
        self.public = ipaddress.IPv4Address(settings["public"]).packed
        network = ipaddress.IPv4Network(settings["inside"])
        self.network, self.mask = int(network.network_address), int(network.netmask)
        self.by_port: dict[int, Mapping] = {}
        # The one that was used longest ago comes first.
        self.by_key: collections.OrderedDict[tuple[object, ...], Mapping] = collections.OrderedDict()
        self.allocator = Allocator(settings["ports"], random.Random())
        self.counts = collections.Counter({"out": 0, "in": 0, "refused": 0})

    def translate(self, packet: bytes) -> bytes | None:
        """What becomes of a packet, or nothing if it is refused."""
        header = (packet[0] & 15) * 4
        if packet[0] >> 4 != 4 or packet[9] != UDP or len(packet) < header + 8:
            return None
        ports = struct.unpack_from("!HH", packet, header)
        source, destination = (packet[12:16], ports[0]), (packet[16:20], ports[1])
        self.expire()
        if self.is_inside(source[0]):
            mapping = self.outbound(source, destination)
            self.counts["out" if mapping else "refused"] += 1
            if mapping is None:
                return None
            outside = (self.public, mapping.port)
            if destination[0] != self.public:
                return rewrite(packet, header, (source, destination), (outside, destination))
            hairpin = self.settings["hairpin"]
            target = self.inbound(outside, destination[1]) if hairpin != "off" else None
            if target is None:
                return None
            shown = outside if hairpin == "outside" else source
            return rewrite(packet, header, (source, destination), (shown, target.inside))
        target = self.inbound(source, destination[1]) if destination[0] == self.public else None
        self.counts["in" if target else "refused"] += 1
        if target is None:
            return None
        return rewrite(packet, header, (source, destination), (source, target.inside))

    def is_inside(self, address: bytes) -> bool:
        return int.from_bytes(address) & self.mask == self.network

    def outbound(self, source: Endpoint, destination: Endpoint) -> Mapping | None:
        mapping_kind, now = self.settings["mapping"], time.monotonic()
        key: tuple[object, ...] = (source,)
        if mapping_kind == "address":
            key = (source, destination[0])
        elif mapping_kind == "port":
            key = (source, destination)
        mapping = self.by_key.get(key)
        if mapping is None:
            mapping = self.allocate(key, source)
        if mapping is not None:
            mapping.contacted[destination] = now
            self.touch(mapping, now)
        return mapping

    def allocate(self, key: tuple[object, ...], source: Endpoint) -> Mapping | None:
        if len(self.by_key) >= MAPPINGS_MAX:
            return None
        for _, port in zip(range(8 * 1024), self.allocator.candidates(source[1])):
            if port not in self.by_port:
                mapping = self.by_key[key] = self.by_port[port] = Mapping(key, source, port)
                return mapping
        return None

    def inbound(self, source: Endpoint, port: int) -> Mapping | None:
        """The mapping of `port`, if `source` may come in by it."""
        mapping = self.by_port.get(port)
        if mapping is None:
            return None
        filtering = self.settings["filtering"]
        if filtering == "address" and not any(source[0] == known[0] for known in mapping.contacted):
            return None
        if filtering == "port" and source not in mapping.contacted:
            return None
        self.touch(mapping, time.monotonic())
        return mapping

    def touch(self, mapping: Mapping, now: float) -> None:
        mapping.used = now
        self.by_key.move_to_end(mapping.key)

    def expire(self) -> None:
        before = time.monotonic() - self.settings["lifetime_s"]
        while self.by_key:
            oldest = next(iter(self.by_key.values()))
            if oldest.used > before:
                return
            self.remove(oldest)

    def remove(self, mapping: Mapping) -> None:
        del self.by_key[mapping.key], self.by_port[mapping.port]
        self.allocator.take_back(mapping.port)

    def forget(self, networks: list[str] | None) -> None:
        if networks is None:
            for mapping in list(self.by_key.values()):
                self.remove(mapping)
            return
        meant = [ipaddress.IPv4Network(network) for network in networks]
        for mapping in list(self.by_key.values()):
            for address, port in list(mapping.contacted):
                if any(ipaddress.IPv4Address(address) in network for network in meant):
                    del mapping.contacted[address, port]
            if not mapping.contacted:
                self.remove(mapping)


def rewrite(packet: bytes, header: int, old: tuple[Endpoint, Endpoint], new: tuple[Endpoint, Endpoint]) -> bytes:
    """The packet with other endpoints and checksums that match."""
    out = bytearray(packet)
    (source, source_port), (destination, destination_port) = new
    out[12:16], out[16:20] = source, destination
    struct.pack_into("!HH", out, header, source_port, destination_port)
    # The way through this program is one hop too many: the kernel counts one in front of it and one behind.
    out[8] = min(255, out[8] + 1)
    out[10:12] = b"\0\0"
    struct.pack_into("!H", out, 10, folded(sum(struct.unpack_from(f"!{header // 2}H", out))))
    (checksum,) = struct.unpack_from("!H", packet, header + 6)
    if checksum != 0:
        # RFC 1624, equation 3: what was added before is taken away, what is there now is added.
        change = sum(words(end) for end in new) + sum(0xFFFF * 3 - words(end) for end in old)
        struct.pack_into("!H", out, header + 6, folded((0xFFFF - checksum) + change) or 0xFFFF)
    return bytes(out)


def words(endpoint: Endpoint) -> int:
    address, port = endpoint
    return sum(struct.unpack("!2H", address)) + port


def folded(total: int) -> int:
    """The Internet checksum of words that add up to `total`."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def main() -> None:
    nat = Nat(json.loads(sys.argv[1]))
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"nat0", IFF_TUN | IFF_NO_PI))
    say("ready")
    unread = b""
    while True:
        readable, _, _ = select.select([tun, sys.stdin], [], [])
        if tun in readable:
            # Several at a time: a volley comes in hundreds.
            for _ in range(64):
                try:
                    packet = os.read(tun, 65536)
                except BlockingIOError:
                    break
                translated = nat.translate(packet)
                if translated is not None:
                    os.write(tun, translated)
        if sys.stdin in readable:
            read = os.read(sys.stdin.fileno(), 65536)
            if not read:
                return
            *lines, unread = (unread + read).split(b"\n")
            for command in map(json.loads, lines):
                if command["cmd"] == "count":
                    say("count", **nat.counts, mappings=len(nat.by_key))
                else:
                    nat.forget(command.get("networks"))
                    say("forgotten")


main()
