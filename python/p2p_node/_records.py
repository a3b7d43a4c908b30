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
    )


def path_from(fields: Fields) -> Path:
    return Path(kind=fields.text("kind"), local=fields.text("local"), remote=fields.text("remote"))
