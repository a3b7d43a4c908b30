"""What programs send each other."""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ._errors import MessageTooLarge
from ._json import JSON, Fields, Malformed

Payload: TypeAlias = "bytes | bytearray | memoryview | JSON"
"""Bytes are sent as they are, a string as UTF-8, anything else as JSON."""

PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
"""What the node takes."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, as `proto/message.proto` describes it. Make one with `Message.create`."""

    id: str
    """Names the message; unique as long as nobody chooses ids by hand."""
    type: str
    """What kind of message it is; the programs agree on that. At most 128 bytes."""
    payload: bytes
    """At most 16 MiB."""
    timestamp: int
    """When it was made, in Unix milliseconds by its maker's clock."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """At most 64 entries and 64 KiB."""
    sender: str | None = field(default=None, compare=False)
    """Who sent it, as a peer id, proved by the connection; `None` if it is our own. It is not sent along."""

    @classmethod
    def create(
        cls,
        *,
        msg_type: str | None = None,
        payload: Payload = b"",
        metadata: Mapping[str, str] | None = None,
        id: str | None = None,
        timestamp: int | None = None,
    ) -> Message:
        """A new message, named and dated now unless told otherwise.

        Without `msg_type` its type is `bytes`, `text` or `json`, as `payload` is.

        >>> Message.create(msg_type="request", payload="hello world", metadata={"key": "value"}).text()
        'hello world'
        """
        kind, encoded = _encode_payload(payload)
        return cls(
            id=os.urandom(16).hex() if id is None else id,
            type=kind if msg_type is None else msg_type,
            payload=encoded,
            timestamp=time.time_ns() // 1_000_000 if timestamp is None else timestamp,
            metadata=dict(metadata or {}),
        )

    def text(self) -> str:
        """The payload as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.payload.decode("utf-8")

    def json(self) -> JSON:
        """The payload as JSON. Raises `ValueError` if it is none."""
        value: JSON = json.loads(self.payload)
        return value


def to_wire(message: Message) -> dict[str, JSON]:
    """The message as a command's `message`."""
    payload, encoding = _payload_to_wire(message.payload)
    return {
        "id": message.id,
        "type": message.type,
        "payload": payload,
        "encoding": encoding,
        "timestamp": message.timestamp,
        "metadata": dict(message.metadata),
    }


def message_from(fields: Fields) -> Message:
    """The message that an event, or the answer to `request`, brings."""
    message = fields.inner("message")
    return make_received(
        message.text("id"),
        message.text("type"),
        _payload_from_wire(message.text("payload"), message.text("encoding")),
        message.integer("timestamp"),
        message.strings("metadata"),
        fields.text("peer"),
    )


def make_received(
    id: str, type: str, payload: bytes, timestamp: int, metadata: dict[str, str], sender: str
) -> Message:
    """A message as it arrived: in half the time that the constructor of a frozen class takes."""
    message = _new(Message)
    _set_id(message, id)
    _set_type(message, type)
    _set_payload(message, payload)
    _set_timestamp(message, timestamp)
    _set_metadata(message, metadata)
    _set_sender(message, sender)
    return message


_new = object.__new__
_set_id, _set_type, _set_payload, _set_timestamp, _set_metadata, _set_sender = (
    Message.__dict__[slot].__set__ for slot in Message.__slots__
)


def check_size(payload: bytes) -> None:
    """Raises `MessageTooLarge`. The node would skip a larger frame without knowing whose it is."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise MessageTooLarge(
            f"the payload has {len(payload)} bytes; it may have {PAYLOAD_BYTES_MAX}",
            code="message_too_large",
            hint="split it into several messages",
        )


def _encode_payload(payload: Payload) -> tuple[str, bytes]:
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return "bytes", bytes(payload)
    if isinstance(payload, str):
        return "text", payload.encode()
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "json", text.encode()


def _payload_to_wire(payload: bytes) -> tuple[str, str]:
    check_size(payload)
    # With many escapes in it, text is longer than base 64, and longer than a line may be.
    escapes = _count(payload, _TWO_BYTE_ESCAPES) + 5 * _count(payload, _SIX_BYTE_ESCAPES)
    if escapes <= len(payload) // 3:
        try:
            return payload.decode("utf-8"), "utf8"
        except UnicodeDecodeError:
            pass
    return base64.b64encode(payload).decode("ascii"), "base64"


def _payload_from_wire(payload: str, encoding: str) -> bytes:
    if encoding == "utf8":
        return payload.encode()
    if encoding != "base64":
        raise Malformed(f"encoding is {encoding!r}")
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise Malformed("the payload is not base 64") from error


def _count(payload: bytes, which: bytes) -> int:
    return len(payload) - len(payload.translate(None, delete=which))


# RFC 8259, section 7.
_TWO_BYTE_ESCAPES = b'"\\\b\f\n\r\t'
_SIX_BYTE_ESCAPES = bytes(set(range(0x20)) - set(_TWO_BYTE_ESCAPES))
