"""What a node tells without being asked, and what it answers to questions about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
    """Says that the other node has handed a message to its program."""

    message_id: str
    peer: str
    """Who has it."""
    rtt_ms: float
    """From hand-over to acknowledgement."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The node has started: calls work."""

    peer_id: str
    """Who it is."""
    ticket: str
    """What leads to it, and admits to it."""
    addrs: tuple[str, ...]
    """Its addresses on its own interfaces."""
    service: str | None
    admission: str
    """Who may connect: `anyone`, `secret` or `allow-list`."""
    warning: str | None
    """What to know about that."""


@dataclass(frozen=True, slots=True)
class Online:
    """The node's record is in the DHT: others can find it."""

    dht_nodes: int
    """DHT nodes that hold the record."""
    addrs: tuple[str, ...]
    """Addresses that the record names."""
    took_ms: int
    """Since the node's start."""


@dataclass(frozen=True, slots=True)
class Connecting:
    """A dial begins."""

    target: str
    """Whom it is to reach: a peer id, or `service:` and a name."""
    peer: str | None
    """The same as a peer id, if it is known."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A dial has come one step further."""

    target: str
    peer: str | None
    stage: str
    """`resolve`, `gather`, `offer`, `punch`, `path` or `link`."""
    elapsed_ms: int
    """Since the dial began."""
    detail: str
    """For people."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A link is up."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A peer is reached over another path than before."""

    peer: str
    path: Path
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A link is gone."""

    peer: str
    reason: P2PError
    will_retry: bool
    """Whether the node dials again by itself."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something is wrong that somebody may want to mend; the node goes on."""

    problem: P2PError


@dataclass(frozen=True, slots=True)
class Failed:
    """Something failed that no call of this program asked for."""

    error: P2PError


@dataclass(frozen=True, slots=True)
class Bye:
    """The node ends."""

    reason: str
    """`stdin_eof`, `shutdown`, `signal`, `parent_gone` or `fatal`."""
    exit_code: int


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """An event that this package does not know, of a newer node."""

    name: str
    fields: Mapping[str, object]


Event: TypeAlias = (
    Ready
    | Online
    | Connecting
    | Progress
    | Connected
    | PathChanged
    | Disconnected
    | Warned
    | Failed
    | Bye
    | OtherEvent
)
"""Anything that a node tells without being asked, but for messages."""


def event_from(name: str, fields: Fields) -> Event:
    """The event `name` with these fields."""
    match name:
        case "ready":
            return Ready(
                peer_id=fields.text("peer_id"),
                ticket=fields.text("ticket"),
                addrs=fields.texts("addrs"),
                service=_text_or_none(fields, "service"),
                admission=fields.text("admission"),
                warning=_text_or_none(fields, "warning"),
            )
        case "online":
            return Online(
                dht_nodes=fields.integer("dht_nodes"),
                addrs=fields.texts("addrs"),
                took_ms=fields.integer("took_ms"),
            )
        case "connecting":
            return Connecting(target=fields.text("target"), peer=_text_or_none(fields, "peer"))
        case "progress":
            return Progress(
                target=fields.text("target"),
                peer=_text_or_none(fields, "peer"),
                stage=fields.text("stage"),
                elapsed_ms=fields.integer("elapsed_ms"),
                detail=fields.text("detail"),
            )
        case "connected":
            return Connected(connection_from(fields))
        case "path_changed":
            return PathChanged(
                peer=fields.text("peer"),
                path=_path_from(fields.inner("path")),
                rtt_ms=fields.number("rtt_ms"),
            )
        case "disconnected":
            return Disconnected(
                peer=fields.text("peer"),
                reason=error_from(fields),
                will_retry=fields.flag("will_retry"),
            )
        case "warning":
            return Warned(error_from(fields))
        case "error":
            return Failed(error_from(fields))
        case "bye":
            return Bye(reason=fields.text("reason"), exit_code=fields.integer("exit_code"))
        case _:
            return OtherEvent(name, fields.raw())


def connection_from(fields: Fields) -> Connection:
    """The connection that a `connected` event, or the answer to `connect`, describes."""
    return Connection(
        peer=fields.text("peer"),
        direction=fields.text("direction"),
        path=_path_from(fields.inner("path")),
        rtt_ms=fields.number("rtt_ms"),
        took_ms=fields.integer("took_ms"),
    )


def receipt_from(fields: Fields) -> Receipt:
    """The answer to `send`."""
    return Receipt(
        message_id=fields.text("message_id"),
        peer=fields.text("peer"),
        rtt_ms=fields.number("rtt_ms"),
    )


def peer_status_from(fields: Fields) -> PeerStatus:
    """One of the peers in the answer to `list`."""
    return PeerStatus(
        connection=connection_from(fields),
        connected_ms=fields.integer("connected_ms"),
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


def _path_from(fields: Fields) -> Path:
    return Path(kind=fields.text("kind"), local=fields.text("local"), remote=fields.text("remote"))


def _text_or_none(fields: Fields, name: str) -> str | None:
    return fields.text(name) if fields.has(name) else None
