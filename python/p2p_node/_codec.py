"""The notations in which a node and this package can talk: one model, two codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from ._json import JSON, Fields
from ._message import Message
from ._pipes import Sink
from ._records import Receipt

Transport: TypeAlias = Literal["auto", "json", "protobuf"]
"""How to talk to the node: `protobuf` frames, `json` lines, or `auto`: frames if `protobuf` is installed."""

MessageVerb: TypeAlias = Literal["send", "request", "reply", "broadcast"]
"""The commands that carry a message."""


class Listener(Protocol):
    """Whom a decoder tells what the node has said."""

    def handle_message(self, message: Message) -> None:
        """A message has arrived."""
        ...

    def handle_ok(self, call_id: int, reply: object) -> None:
        """A call has succeeded. The codec that made `reply` can read it."""
        ...

    def handle_error(self, call_id: int, fields: Fields) -> None:
        """A call has failed."""
        ...

    def handle_event(self, name: str, fields: Fields) -> None:
        """Anything else was told."""
        ...

    def handle_malformed(self, why: str) -> None:
        """Something was said that the protocol does not allow; what follows can be understood."""
        ...

    def handle_garbage(self, why: str) -> None:
        """Nothing of what follows can be understood."""
        ...


class Codec(Protocol):
    """A notation."""

    name: str
    """What the program calls it."""

    def decoder(self, listener: Listener) -> Sink:
        """Understands what the node says, from its first byte on."""
        ...

    def message_command(
        self, verb: MessageVerb, call_id: int, timeout_ms: int, peer: str | None, to: str, message: Message
    ) -> Sequence[bytes]:
        """A command with a message, in parts that belong together."""
        ...

    def command(self, verb: str, call_id: int, timeout_ms: int, fields: Mapping[str, JSON]) -> bytes:
        """Any other command; 0 stands for no id, or for no timeout."""
        ...

    def receipt(self, reply: object) -> Receipt:
        """The answer to `send` or `reply`."""
        ...

    def message(self, reply: object) -> Message:
        """The answer to `request`."""
        ...

    def fields(self, reply: object) -> Fields:
        """The answer to anything else."""
        ...


def choose_codec(transport: Transport) -> Codec:
    """The codec for `transport`. Raises `ImportError` if it needs what is not installed."""
    from ._lines import LineCodec

    if transport == "json":
        return LineCodec()
    if transport not in ("auto", "protobuf"):
        raise ValueError(f"transport is auto, json or protobuf, not {transport!r}")
    try:
        from ._frames import FrameCodec
    except ImportError as error:
        # Not installed, or so old that it does not know the code made for it.
        if transport == "protobuf":
            raise ImportError("transport='protobuf' needs it: pip install 'protobuf>=6.31'") from error
        return LineCodec()
    return FrameCodec()
