"""What a node tells without being asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ._errors import P2PError, error_from
from ._json import Fields
from ._records import Connection, Path, Receipt, connection_from, path_from, receipt_from


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
    strategy: str | None
    """What is tried from here on, where the step tells that: `same_network`, `direct`, `simultaneous`,
    `guessed_ports`, `crowd`, `meeting_ports`, `quiet_openers` or `none`; PROTOCOL.md explains them."""
    why: str | None
    """What speaks for it, for people."""


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
class Delivered:
    """A message that was `queued` has reached its peer's program."""

    receipt: Receipt


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
    | Delivered
    | Warned
    | Failed
    | Bye
    | OtherEvent
)
"""Anything that a node tells without being asked, but for messages."""

EVENT_NAMES: Mapping[str, type[Event]] = {
    "ready": Ready,
    "online": Online,
    "connecting": Connecting,
    "progress": Progress,
    "connected": Connected,
    "path_changed": PathChanged,
    "disconnected": Disconnected,
    "delivered": Delivered,
    "warning": Warned,
    "error": Failed,
    "bye": Bye,
}
"""What events are called on the way from the node."""


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
                strategy=_text_or_none(fields, "strategy"),
                why=_text_or_none(fields, "why"),
            )
        case "connected":
            return Connected(connection_from(fields))
        case "path_changed":
            return PathChanged(
                peer=fields.text("peer"),
                path=path_from(fields.inner("path")),
                rtt_ms=fields.number("rtt_ms"),
            )
        case "disconnected":
            return Disconnected(
                peer=fields.text("peer"),
                reason=error_from(fields),
                will_retry=fields.flag("will_retry"),
            )
        case "delivered":
            return Delivered(receipt_from(fields))
        case "warning":
            return Warned(error_from(fields))
        case "error":
            return Failed(error_from(fields))
        case "bye":
            return Bye(reason=fields.text("reason"), exit_code=fields.integer("exit_code"))
        case _:
            return OtherEvent(name, fields.raw())


def _text_or_none(fields: Fields, name: str) -> str | None:
    # Frames have an empty string where lines have nothing.
    return fields.text_or(name, "") or None
