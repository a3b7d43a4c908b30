"""What a node answers."""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import P2PError, error_from
from ._json import Fields


@dataclass(frozen=True, slots=True)
class Path:
    """How a peer is reached."""

    kind: str
    """`loopback`, `lan` or `direct`."""
    local: str
    """This node's address on it, as `host:port`."""
    remote: str
    """The peer's address on it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A link to a peer that is up."""

    peer: str
    """To whom; proved by the connection."""
    direction: str
    """`out` if this node dialled, else `in`."""
    path: Path
    rtt_ms: float
    """Round-trip time."""
    took_ms: int
    """How long it took to come up."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A connected peer."""

    connection: Connection
    connected_ms: int
    """How long it has been connected."""
    path_ms: int
    """How long it has been reached over the current path."""
    loss_percent: float | None
    """Of the packets sent to it within the last minute or so, those that were lost; `None` without any."""
    messages_sent: int
    """Messages that it has acknowledged."""
    messages_received: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How a node fares."""

    peer_id: str
    online: bool
    """Whether its record is in the DHT."""
    nat: str
    """How its NAT behaves, in a sentence."""
    local_addrs: tuple[str, ...]
    public_addrs: tuple[str, ...]
    """Its addresses as STUN servers see them."""
    peers: int
    """Connected peers."""
    uptime_ms: int
    dht_nodes: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message that was sent."""

    message_id: str
    peer: str
    """Who has it, or is to have it; empty while it is queued for any server of a service."""
    state: str
    """`delivered`: the other node has handed it to its program. `queued`: it waits on disk for its peer, and
    an event `Delivered` will tell."""
    rtt_ms: float
    """From hand-over to acknowledgement; 0 while it is queued."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What became of a message to every connected peer."""

    sent: tuple[Receipt, ...]
    """Of those who have it."""
    failed: tuple[P2PError, ...]
    """Of the others; each has its `peer`."""


@dataclass(frozen=True, slots=True)
class Pong:
    """A peer's answer to `ping`."""

    peer: str
    rtt_ms: float
    """Round-trip time, through the queues of both nodes."""
    path: Path


@dataclass(frozen=True, slots=True)
class NatPorts:
    """How a NAT chooses ports."""

    allocation: str
    """`preserving`, `sequential`, `block`, `random` or `unknown`."""
    step: int | None
    """From one port to the next, if they come in order."""
    low: int | None
    """The lowest port that was seen, if they come from a block."""
    high: int | None
    """The highest one."""
    seen: int
    """Ports that this rests on; 0 if the peer says so."""
    by_chance_once_in: int | None
    """In how many of as many NATs with random ports they would lie so close together once."""


@dataclass(frozen=True, slots=True)
class MappingLifetime:
    """How long a NAT keeps a mapping without a datagram."""

    state: str
    """`not-measured`, `not-found`, `ports-kept` (then it cannot be told) or `measured`."""
    at_least_ms: int | None
    """A mapping was still there after so long."""
    less_than_ms: int | None
    """A mapping was forgotten after so long."""


@dataclass(frozen=True, slots=True)
class StunServer:
    """A STUN server that was asked."""

    name: str
    addr: str
    rtt_ms: float | None
    """How long its answer took; `None` if there was none."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a peer."""

    method: str
    """What is done."""
    why: str
    outlook: str
    """In the words of `PairCheck`."""
    takes: str
    """How long it takes once the peer has been found, for people."""


@dataclass(frozen=True, slots=True)
class PairCheck:
    """What the network means for one peer. It was looked up and not dialled."""

    peer: str
    addrs: tuple[str, ...]
    """Where it says that it is."""
    mapping: str
    filtering: str
    ports: NatPorts
    record_age_ms: int | None
    """How old its record is; `None` for addresses out of a ticket."""
    helpers: int
    """Helpers that forward offers to it."""
    outlook: str
    """`opens`, `likely`, `unlikely`, `unknown` or `impossible`."""
    verdict: str
    """For people: by which way, how quickly, or what would help."""
    ways: tuple[Way, ...]
    """What a dial would try, in that order."""


@dataclass(frozen=True, slots=True)
class NetCheck:
    """What this network lets through."""

    udp: bool
    """Whether any UDP came back."""
    public_addrs: tuple[str, ...]
    """This node's addresses as STUN servers see them."""
    mapping: str
    """How the NAT gives ports: `endpoint-independent`, `address-dependent`, `address-and-port-dependent`,
    `none` or `unknown`."""
    stun_servers: int
    """STUN servers that answered."""
    dht_nodes: int
    """DHT nodes that answered."""
    verdicts: tuple[str, ...]
    """For people: which kinds of peers will work, which not, and what to do."""
    local_addrs: tuple[str, ...]
    """This node's addresses on its own interfaces."""
    filtering: str
    """Whom the filter lets in, in the words of `mapping`; `unknown` until peers have shown it."""
    ports: NatPorts
    addresses: str
    """At how many public addresses this node is seen: `one`, `several` or `unknown`."""
    hairpin: str
    """Whether the NAT turns back what is sent to its own public address: `works`, `missing` or `unknown`."""
    lifetime: MappingLifetime
    keep_alive_ms: int
    """The most time between two signs of life through the node's own mapping."""
    servers: tuple[StunServer, ...]
    """Those that were asked; `stun_servers` of them answered."""
    helpers: int
    """Helpers that forward offers to this node."""
    helper: bool
    """Whether this node forwards offers to others."""
    complete: bool
    """Whether everything was found out in time."""
    pairs: tuple[PairCheck, ...]
    """What it means for the peer that was named: one for each server, if that is a service."""


def connection_from(fields: Fields) -> Connection:
    """The connection that a `connected` event, or the answer to `connect`, describes."""
    return Connection(
        peer=fields.text("peer"),
        direction=fields.text("direction"),
        path=path_from(fields.inner("path")),
        rtt_ms=fields.number("rtt_ms"),
        took_ms=fields.integer("took_ms"),
    )


def receipt_from(fields: Fields) -> Receipt:
    """The answer to `send`, or a `delivered` event."""
    return Receipt(
        message_id=fields.text("message_id"),
        peer=fields.text_or("peer", ""),
        state=fields.text("state"),
        rtt_ms=fields.number("rtt_ms") if fields.has("rtt_ms") else 0.0,
    )


def peer_status_from(fields: Fields) -> PeerStatus:
    """One of the peers in the answer to `list`."""
    return PeerStatus(
        connection=connection_from(fields),
        connected_ms=fields.integer("connected_ms"),
        path_ms=fields.integer("path_ms"),
        loss_percent=fields.number("loss_percent") if fields.has("loss_percent") else None,
        messages_sent=fields.integer("messages_sent"),
        messages_received=fields.integer("messages_received"),
    )


def node_status_from(fields: Fields) -> NodeStatus:
    """The answer to `status`."""
    return NodeStatus(
        peer_id=fields.text("peer_id"),
        online=fields.flag("online"),
        nat=fields.text("nat"),
        local_addrs=fields.texts("local_addrs"),
        public_addrs=fields.texts("public_addrs"),
        peers=fields.integer("peers"),
        uptime_ms=fields.integer("uptime_ms"),
        dht_nodes=fields.integer("dht_nodes"),
    )


def broadcast_from(fields: Fields) -> Broadcast:
    """The answer to `broadcast`."""
    return Broadcast(
        sent=tuple(map(receipt_from, fields.inners("sent"))),
        failed=tuple(map(error_from, fields.inners("failed"))),
    )


def pong_from(fields: Fields) -> Pong:
    """The answer to `ping`."""
    return Pong(
        peer=fields.text("peer"), rtt_ms=fields.number("rtt_ms"), path=path_from(fields.inner("path"))
    )


def netcheck_from(fields: Fields) -> NetCheck:
    """The answer to `netcheck`."""
    return NetCheck(
        udp=fields.flag("udp"),
        public_addrs=fields.texts("public_addrs"),
        mapping=fields.text("mapping"),
        stun_servers=fields.integer("stun_servers"),
        dht_nodes=fields.integer("dht_nodes"),
        verdicts=fields.texts("verdicts"),
        local_addrs=fields.texts("local_addrs"),
        filtering=fields.text("filtering"),
        ports=ports_from(fields.inner("ports")),
        addresses=fields.text("addresses"),
        hairpin=fields.text("hairpin"),
        lifetime=lifetime_from(fields.inner("lifetime")),
        keep_alive_ms=fields.integer("keep_alive_ms"),
        servers=tuple(map(stun_server_from, fields.inners("servers"))),
        helpers=fields.integer("helpers"),
        helper=fields.flag("helper"),
        complete=fields.flag("complete"),
        pairs=tuple(map(pair_from, fields.inners("pairs"))),
    )


def ports_from(fields: Fields) -> NatPorts:
    return NatPorts(
        allocation=fields.text("allocation"),
        step=integer_unless_zero(fields, "step"),
        low=integer_unless_zero(fields, "low"),
        high=integer_unless_zero(fields, "high"),
        seen=fields.integer("seen"),
        by_chance_once_in=integer_unless_zero(fields, "by_chance_once_in"),
    )


def lifetime_from(fields: Fields) -> MappingLifetime:
    return MappingLifetime(
        state=fields.text("state"),
        at_least_ms=integer_unless_zero(fields, "at_least_ms"),
        less_than_ms=integer_unless_zero(fields, "less_than_ms"),
    )


def stun_server_from(fields: Fields) -> StunServer:
    # In frames a number that is not there is 0, and no answer comes in no time.
    rtt_ms = fields.number("rtt_ms") if fields.has("rtt_ms") else 0.0
    return StunServer(name=fields.text("name"), addr=fields.text("addr"), rtt_ms=rtt_ms or None)


def pair_from(fields: Fields) -> PairCheck:
    return PairCheck(
        peer=fields.text("peer"),
        addrs=fields.texts("addrs"),
        mapping=fields.text("mapping"),
        filtering=fields.text("filtering"),
        ports=ports_from(fields.inner("ports")),
        record_age_ms=fields.integer("record_age_ms") if fields.has("record_age_ms") else None,
        helpers=fields.integer("helpers"),
        outlook=fields.text("outlook"),
        verdict=fields.text("verdict"),
        ways=tuple(map(way_from, fields.inners("ways"))),
    )


def way_from(fields: Fields) -> Way:
    return Way(
        method=fields.text("method"),
        why=fields.text("why"),
        outlook=fields.text("outlook"),
        takes=fields.text("takes"),
    )


def integer_unless_zero(fields: Fields, name: str) -> int | None:
    """In frames a number that is not there is 0, which none of these can be."""
    return (fields.integer(name) or None) if fields.has(name) else None


def path_from(fields: Fields) -> Path:
    return Path(kind=fields.text("kind"), local=fields.text("local"), remote=fields.text("remote"))
