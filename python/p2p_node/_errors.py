"""What can go wrong, as exceptions.

Every error has a stable `code`, says what failed, `why` as far as it was measured, and what to do (`hint`).
Many are also one of Python's own exceptions, so that `except TimeoutError` or `except ConnectionError` works.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._json import Fields


class P2PError(Exception):
    """Base of all errors of this package."""

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "internal",
        why: str = "",
        hint: str = "",
        retryable: bool = False,
        peer: str | None = None,
        elapsed_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """What failed."""
        self.code = code
        """Stable, for programs; the texts are not."""
        self.why = why
        """The cause, as far as it was measured. May be empty."""
        self.hint = hint
        """What to do about it. May be empty."""
        self.retryable = retryable
        """Whether the same call may succeed later without anybody changing anything."""
        self.peer = peer
        """The peer that the failed call was for, if it was for one."""
        self.elapsed_ms = elapsed_ms
        """How long the node had tried, in milliseconds."""

    def __str__(self) -> str:
        text = f"{self.message} [{self.code}]"
        if self.why:
            text += f" ({self.why})"
        if self.hint:
            text += f"; {self.hint}"
        return text

    def explain(self) -> str:
        """Three lines for a person: what failed, why, what to do."""
        return "\n".join(
            (
                f"error[{self.code}]: {self.message}",
                f"  why: {self.why or 'nothing more is known'}",
                f"  try: {self.hint or 'the same again, with RUST_LOG=debug in the environment'}",
            )
        )


class InvalidCall(P2PError, ValueError):
    """The node was asked for something that makes no sense: a damaged ticket, a name that means nobody."""


class ConfigError(P2PError, ValueError):
    """The node cannot start as it was told to: a wrong flag, an unreadable key, a taken address."""


class NotReady(P2PError):
    """The call needs something that is not there yet."""


class NetworkUnavailable(P2PError, ConnectionError):
    """There is no network, or it lets no UDP through, or no DHT node answers."""


class PeerNotFound(P2PError, LookupError):
    """Nothing is published under this name, or nobody behind it answers."""


class PeerUnreachable(P2PError, ConnectionError):
    """The peer was found, but there is no connection to it, or none any more."""


class PeerIdentityMismatch(P2PError):
    """Whoever answered has another key than the peer that was asked for."""


class Refused(P2PError, PermissionError):
    """The peer does not want to talk to this node."""


class MessageTooLarge(P2PError, ValueError):
    """The message is larger than a message may be."""


class QueueFull(P2PError):
    """As much as may wait is waiting already."""


class DeliveryUnknown(P2PError):
    """The connection was lost with the message in flight: it may or may not have arrived."""


class P2PTimeout(P2PError, TimeoutError):
    """It was not done in time."""


class NoReply(P2PTimeout):
    """The message of a `request` arrived, but nobody answered it in time."""


class Cancelled(P2PError):
    """The node gave a call up because it was told to."""


class NodeClosed(P2PError):
    """The node was closed by this program, or has not been started."""


class NodeExited(P2PError, ConnectionError):
    """The node's process ended although nobody closed it."""

    def __init__(
        self,
        message: str = "",
        *,
        returncode: int | None = None,
        stderr_lines: Sequence[str] = (),
    ) -> None:
        super().__init__(
            message,
            code="node_exited",
            why=" | ".join(filter(None, stderr_lines)) or "it wrote nothing to stderr",
            hint="start it again; RUST_LOG=debug in the environment makes it say more",
        )
        self.returncode = returncode
        """The exit code; negative for the signal that ended it."""
        self.stderr_lines = tuple(stderr_lines)
        """The last lines that it wrote to stderr."""


class IncompatibleNode(P2PError):
    """The program that was started does not speak `p2p-stdio/1`."""

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "incompatible_node",
        why: str = "",
        hint: str = "let P2P_NODE_BIN name a p2p-node of this package's version",
        retryable: bool = False,
        peer: str | None = None,
        elapsed_ms: int | None = None,
    ) -> None:
        super().__init__(
            message, code=code, why=why, hint=hint, retryable=retryable, peer=peer, elapsed_ms=elapsed_ms
        )


class BinaryNotFound(P2PError, FileNotFoundError):
    """The p2p-node program is not there, or cannot be run."""

    def __init__(self, message: str = "", *, why: str = "", places: Sequence[str] = ()) -> None:
        super().__init__(
            message,
            code="binary_not_found",
            why=why or "looked at " + ", ".join(places),
            hint="cargo build --release --bin p2p-node, or let P2P_NODE_BIN name the program",
        )
        self.places = tuple(places)
        """Every place that was tried, in order."""


CLASS_OF_CODE: dict[str, type[P2PError]] = {
    "bad_request": InvalidCall,
    "unknown_command": InvalidCall,
    "invalid_argument": InvalidCall,
    "line_too_long": InvalidCall,
    "duplicate_id": InvalidCall,
    "unsupported_version": IncompatibleNode,
    "invalid_ticket": InvalidCall,
    "self_connect": InvalidCall,
    "not_ready": NotReady,
    "config_invalid": ConfigError,
    "key_unreadable": ConfigError,
    "key_permissions": ConfigError,
    "key_in_use": ConfigError,
    "outbox_unusable": ConfigError,
    "address_in_use": ConfigError,
    "stun_failed": NetworkUnavailable,
    "udp_blocked": NetworkUnavailable,
    "dht_unreachable": NetworkUnavailable,
    "peer_not_found": PeerNotFound,
    "punch_timeout": PeerUnreachable,
    "nat_incompatible": PeerUnreachable,
    "handshake_failed": PeerUnreachable,
    "peer_version_mismatch": PeerUnreachable,
    "connection_lost": PeerUnreachable,
    "closed_by_peer": PeerUnreachable,
    "too_many_peers": PeerUnreachable,
    "peer_identity_mismatch": PeerIdentityMismatch,
    "refused": Refused,
    "message_too_large": MessageTooLarge,
    "queue_full": QueueFull,
    "timeout": P2PTimeout,
    "no_reply": NoReply,
    "cancelled": Cancelled,
    "delivery_unknown": DeliveryUnknown,
    "shutting_down": NodeClosed,
    "internal": P2PError,
}
"""The closed list of the node's codes (`src/failure.rs`) and the exceptions that stand for them."""


def error_from(fields: Fields) -> P2PError:
    """The error that an `error`, `warning` or `disconnected` event describes."""
    code = fields.text("code")
    # A newer node may know codes that we do not.
    kind = CLASS_OF_CODE.get(code, P2PError)
    return kind(
        fields.text("message"),
        code=code,
        why=fields.text_or("why", ""),
        hint=fields.text_or("hint", ""),
        retryable=fields.has("retryable") and fields.flag("retryable"),
        peer=fields.text_or("peer", "") or None,
        elapsed_ms=fields.integer("elapsed_ms") if fields.has("elapsed_ms") else None,
    )
