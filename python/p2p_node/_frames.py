"""Protobuf frames: a varint length and one message. Several times as fast as JSON lines.

Needs the package `protobuf`; importing this module fails where it is missing or too old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage

from ._codec import Listener, MessageVerb
from ._json import JSON, Fields, Malformed
from ._message import Message, check_size, make_received
from ._proto import message_pb2, stdio_pb2
from ._records import Receipt

BUFFER_BYTES = 256 * 1024
"""Where frames are read to. Larger ones get a larger buffer."""

BUFFER_BYTES_KEPT = 4 * 1024 * 1024
"""A larger buffer than this is given back after the frame that needed it."""

FRAME_BYTES_MAX = 16 * 1024 * 1024 + 128 * 1024
"""A message of the largest size, and everything else in its frame."""

APART_BYTES = 8 * 1024
"""Larger payloads are not copied into their frame: they follow its head on the way to the pipe."""

_PAYLOAD_TAG = bytes([message_pb2.Message.PAYLOAD_FIELD_NUMBER << 3 | 2])
_MESSAGE_TAGS: dict[MessageVerb, bytes] = {
    "send": bytes([stdio_pb2.Command.Send.MESSAGE_FIELD_NUMBER << 3 | 2]),
    "broadcast": bytes([stdio_pb2.Command.Broadcast.MESSAGE_FIELD_NUMBER << 3 | 2]),
    "request": bytes([stdio_pb2.Command.Request.MESSAGE_FIELD_NUMBER << 3 | 2]),
    "reply": bytes([stdio_pb2.Command.Reply.MESSAGE_FIELD_NUMBER << 3 | 2]),
}
_VERB_TAGS: dict[MessageVerb, bytes] = {
    "send": bytes([stdio_pb2.Command.SEND_FIELD_NUMBER << 3 | 2]),
    "broadcast": bytes([stdio_pb2.Command.BROADCAST_FIELD_NUMBER << 3 | 2]),
    "request": bytes([stdio_pb2.Command.REQUEST_FIELD_NUMBER << 3 | 2]),
    "reply": bytes([stdio_pb2.Command.REPLY_FIELD_NUMBER << 3 | 2]),
}


class FrameCodec:
    """See `Codec`."""

    name = "protobuf"

    def __init__(self) -> None:
        # Filled anew for every command: that takes a third of the time of making one.
        self._command = stdio_pb2.Command()

    def decoder(self, listener: Listener) -> FrameDecoder:
        """See `Codec`."""
        return FrameDecoder(listener)

    def message_command(
        self, verb: MessageVerb, call_id: int, timeout_ms: int, peer: str | None, to: str, message: Message
    ) -> Sequence[bytes]:
        """See `Codec`."""
        payload = message.payload
        check_size(payload)
        command = self._command
        command.Clear()
        command.id = call_id
        command.timeout_ms = timeout_ms
        if len(payload) > APART_BYTES:
            return self._in_parts(verb, peer, to, message)
        # A chain of `if` and not a table: type checkers can follow it.
        if verb == "send":
            body = command.send.message
            if peer is not None:
                command.send.peer = peer
        elif verb == "request":
            body = command.request.message
            if peer is not None:
                command.request.peer = peer
        elif verb == "reply":
            body = command.reply.message
            command.reply.to = to
            if peer is not None:
                command.reply.peer = peer
        else:
            body = command.broadcast.message
        _fill(body, message)
        body.payload = payload
        encoded = command.SerializeToString()
        return (_varint(len(encoded)) + encoded,)

    def _in_parts(self, verb: MessageVerb, peer: str | None, to: str, message: Message) -> Sequence[bytes]:
        # Fields may come in any order (protobuf, "Encoding"): the payload comes last, as it is.
        envelope = self._command.SerializeToString()
        body = message_pb2.Message()
        _fill(body, message)
        payload = message.payload
        inner = body.SerializeToString() + _PAYLOAD_TAG + _varint(len(payload))
        address = b""
        if verb == "reply":
            address = stdio_pb2.Command.Reply(peer=peer or "", to=to).SerializeToString()
        elif verb != "broadcast":
            address = stdio_pb2.Command.Send(peer=peer or "").SerializeToString()
        inner_head = _MESSAGE_TAGS[verb] + _varint(len(inner) + len(payload)) + inner
        verb_head = _VERB_TAGS[verb] + _varint(len(address) + len(inner_head) + len(payload)) + address
        head = envelope + verb_head + inner_head
        return (_varint(len(head) + len(payload)) + head, payload)

    def command(self, verb: str, call_id: int, timeout_ms: int, fields: Mapping[str, JSON]) -> bytes:
        """See `Codec`."""
        command = stdio_pb2.Command(id=call_id, timeout_ms=timeout_ms)
        body: ProtobufMessage = getattr(command, verb)
        body.SetInParent()
        for name, value in fields.items():
            if value is not None:
                setattr(body, name, value)
        encoded = command.SerializeToString()
        return _varint(len(encoded)) + encoded

    def receipt(self, reply: object) -> Receipt:
        """See `Codec`."""
        receipt = _ok(reply).receipt
        return Receipt(receipt.message_id, receipt.peer, receipt.state, receipt.rtt_ms)

    def message(self, reply: object) -> Message:
        """See `Codec`."""
        return _message_from(_ok(reply).received)

    def fields(self, reply: object) -> Fields:
        """See `Codec`."""
        ok = _ok(reply)
        kind = ok.WhichOneof("reply")
        if kind is None:
            return Fields({})
        value: object = getattr(ok, kind)
        return Fields(_plain(value) if isinstance(value, ProtobufMessage) else {kind: value})


class FrameDecoder:
    """Splits what is read into frames, and tells a listener what they say."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._end = 0

    def space(self) -> memoryview:
        """See `Sink`."""
        return self._view[self._end :]

    def advance(self, count: int) -> None:
        """See `Sink`."""
        begin, end = 0, self._end + count
        buffer, view, handle = self._buffer, self._view, self._handle_frame
        needed = 0
        while begin < end:
            # Most lengths have one or two bytes.
            length = buffer[begin]
            head = begin + 1
            if length > 127:
                length &= 127
                shift = 7
                while True:
                    if head == end or shift > 28:
                        break
                    byte = buffer[head]
                    head += 1
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        shift = 0
                        break
                if shift > 28 or length > FRAME_BYTES_MAX:
                    self._end = 0
                    self._listener.handle_garbage(f"not a frame: {bytes(view[begin : begin + 80])!r}")
                    return
                if shift:
                    break
            next_frame = head + length
            if next_frame > end:
                needed = next_frame - begin
                break
            handle(view[head:next_frame])
            begin = next_frame
        self._keep(begin, end, needed)

    def _keep(self, begin: int, end: int, needed: int) -> None:
        """Moves the begun frame to the front of a buffer that has room for all of it."""
        rest = end - begin
        size = len(self._buffer)
        if needed > size or (size > BUFFER_BYTES_KEPT and needed < BUFFER_BYTES):
            # Large frames seldom come alone.
            buffer = bytearray(max(needed, BUFFER_BYTES_KEPT) if needed > BUFFER_BYTES else BUFFER_BYTES)
            buffer[:rest] = self._view[begin:end]
            self._buffer = buffer
            self._view = memoryview(buffer)
        elif begin and rest:
            self._buffer[:rest] = self._buffer[begin:end]
        self._end = rest

    def _handle_frame(self, frame: memoryview) -> None:
        listener = self._listener
        try:
            event = stdio_pb2.Event.FromString(frame)  # type: ignore[arg-type]  # Any buffer will do.
        except DecodeError:
            listener.handle_malformed(f"not an event: {bytes(frame[:80])!r}")
            return
        kind = event.WhichOneof("kind")
        if kind == "message":
            listener.handle_message(_message_from(event.message))
        elif kind == "ok":
            ok = event.ok
            if ok.id:
                listener.handle_ok(ok.id, ok)
        elif kind is not None:
            # An event without a kind that we know is a newer node's.
            self._handle_other(kind, Fields(_plain(getattr(event, kind))))

    def _handle_other(self, kind: str, fields: Fields) -> None:
        try:
            if kind == "error" and fields.integer("id"):
                self._listener.handle_error(fields.integer("id"), fields)
            else:
                self._listener.handle_event(kind, fields)
        except Malformed as error:
            self._listener.handle_malformed(str(error))


def _fill(body: message_pb2.Message, message: Message) -> None:
    body.id = message.id
    body.type = message.type
    body.timestamp = message.timestamp
    if message.metadata:
        body.metadata.update(message.metadata)


def _message_from(received: stdio_pb2.Event.Received) -> Message:
    body = received.message
    metadata = body.metadata
    return make_received(
        body.id, body.type, body.payload, body.timestamp, dict(metadata) if metadata else {}, received.peer
    )


def _ok(reply: object) -> stdio_pb2.Event.Ok:
    assert isinstance(reply, stdio_pb2.Event.Ok), "it is what FrameDecoder made"
    return reply


def _plain(message: ProtobufMessage) -> dict[str, object]:
    """The message as the JSON lines have it."""
    plain: dict[str, object] = {}
    for field in message.DESCRIPTOR.fields:
        value: object = getattr(message, field.name)
        is_message = field.type == FieldDescriptor.TYPE_MESSAGE
        if field.is_repeated:
            plain[field.name] = [_plain(item) for item in value] if is_message else list(value)  # type: ignore
        elif not isinstance(value, ProtobufMessage):
            # A number that may be missing is not 0 then.
            if not field.has_presence or message.HasField(field.name):
                plain[field.name] = value
        elif field.name in ("reason", "link"):
            # JSON has their fields in place of them.
            plain |= _plain(value)
        elif message.HasField(field.name):
            plain[field.name] = _plain(value)
    return plain


def _varint(value: int) -> bytes:
    if value < 128:
        return _ONE_BYTE[value]
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_ONE_BYTE = [bytes([value]) for value in range(128)]
