"""JSON lines: needs nothing beyond the standard library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ._codec import Listener, MessageVerb
from ._json import JSON, Fields, Malformed
from ._message import Message, message_from, to_wire
from ._records import Receipt, receipt_from

BUFFER_BYTES = 256 * 1024
"""Where lines are read to. Longer ones get a larger buffer, which is given back after them."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class LineCodec:
    """See `Codec`."""

    name = "json"

    def decoder(self, listener: Listener) -> LineDecoder:
        """See `Codec`."""
        return LineDecoder(listener)

    def message_command(
        self, verb: MessageVerb, call_id: int, timeout_ms: int, peer: str | None, to: str, message: Message
    ) -> Sequence[bytes]:
        """See `Codec`."""
        fields: dict[str, JSON] = {"cmd": verb, "id": call_id, "timeout_ms": timeout_ms}
        if peer is not None:
            fields["peer"] = peer
        if to:
            fields["to"] = to
        fields["message"] = to_wire(message)
        return ((_encode(fields) + "\n").encode(),)

    def command(self, verb: str, call_id: int, timeout_ms: int, fields: Mapping[str, JSON]) -> bytes:
        """See `Codec`."""
        command: dict[str, JSON] = {"cmd": verb}
        if call_id:
            command["id"] = call_id
        if timeout_ms:
            command["timeout_ms"] = timeout_ms
        command |= {name: value for name, value in fields.items() if value is not None}
        return (_encode(command) + "\n").encode()

    def receipt(self, reply: object) -> Receipt:
        """See `Codec`."""
        return receipt_from(self.fields(reply))

    def message(self, reply: object) -> Message:
        """See `Codec`."""
        return message_from(self.fields(reply))

    def fields(self, reply: object) -> Fields:
        """See `Codec`."""
        assert isinstance(reply, Fields), "it is what LineDecoder made"
        return reply


class LineDecoder:
    """Splits what is read into lines, and tells a listener what they say."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._buffer = bytearray(BUFFER_BYTES)
        self._begin = 0
        self._searched = 0
        self._end = 0

    def space(self) -> memoryview:
        """See `Sink`."""
        return memoryview(self._buffer)[self._end :]

    def advance(self, count: int) -> None:
        """See `Sink`."""
        self._end += count
        while (line_end := self._buffer.find(b"\n", self._searched, self._end)) >= 0:
            line = bytes(memoryview(self._buffer)[self._begin : line_end])
            self._begin = self._searched = line_end + 1
            self._handle_line(line)
        self._searched = self._end
        self._make_room()

    def _make_room(self) -> None:
        begin, size = self._begin, self._end - self._begin
        if size == 0 and len(self._buffer) > BUFFER_BYTES:
            self._buffer = bytearray(BUFFER_BYTES)
        elif begin > 0:
            self._buffer[:size] = self._buffer[begin : self._end]
        elif self._end == len(self._buffer):
            self._buffer = self._buffer + bytearray(size)
        self._begin, self._searched, self._end = 0, size, size

    def _handle_line(self, line: bytes) -> None:
        listener = self._listener
        try:
            fields = Fields.parse(line)
            name = fields.text("event")
            if name == "message":
                listener.handle_message(message_from(fields))
            elif name == "ok" and fields.has_integer("id"):
                listener.handle_ok(fields.integer("id"), fields)
            elif name == "error" and fields.has_integer("id"):
                listener.handle_error(fields.integer("id"), fields)
            elif name != "ok":
                listener.handle_event(name, fields)
        except Malformed as error:
            listener.handle_malformed(str(error))
