"""Events and commands as bytes: JSON lines, and protobuf frames."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast


class Lines:
    """One JSON object a line."""

    def encode(self, kind: str, body: dict[str, Any]) -> bytes:
        flat = {"event": kind, **flattened(body)}
        return json.dumps(flat, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def commands(self) -> Iterator[dict[str, Any]]:
        for line in sys.stdin.buffer:
            command = json.loads(line)
            if "message" in command:
                message = command["message"]
                payload, encoding = message["payload"], message.pop("encoding", "utf8")
                is_text = encoding == "utf8"
                message["payload"] = payload.encode() if is_text else base64.b64decode(payload)
            yield command

    def unknown_event(self) -> bytes:
        return b'{"event":"aurora","height_km":100}\n'


class Frames:
    """A varint length and one message."""

    def __init__(self) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
        from p2p_node._proto import stdio_pb2

        self.schema = stdio_pb2

    def encode(self, kind: str, body: dict[str, Any]) -> bytes:
        event = self.schema.Event()
        getattr(event, kind).SetInParent()
        fill(getattr(event, kind), body)
        encoded = event.SerializeToString()
        return varint(len(encoded)) + encoded

    def commands(self) -> Iterator[dict[str, Any]]:
        while (length := self.read_varint()) is not None:
            command = self.schema.Command.FromString(sys.stdin.buffer.read(length))
            verb = command.WhichOneof("verb")
            assert verb is not None
            body = getattr(command, verb)
            fields = {field.name: getattr(body, field.name) for field in body.DESCRIPTOR.fields}
            if "message" in fields:
                fields["message"] = plain_message(fields["message"])
            yield {"cmd": verb, "id": command.id or None, **fields}

    def read_varint(self) -> int | None:
        value = shift = 0
        while byte := sys.stdin.buffer.read(1):
            value |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                return value
        return None

    def unknown_event(self) -> bytes:
        # Field 200, a string.
        encoded = b"\xc2\x0c\x06aurora"
        return varint(len(encoded)) + encoded


def flattened(body: dict[str, Any]) -> dict[str, Any]:
    """As the JSON lines have it."""
    flat: dict[str, Any] = {}
    for name, value in body.items():
        if name in ("reason", "link", "receipt", "received", "status", "pong", "netcheck", "broadcast"):
            flat |= flattened(cast("dict[str, Any]", value)) if isinstance(value, dict) else {name: value}
        elif name == "peers" and isinstance(value, dict):
            peers = cast("list[dict[str, Any]]", value["peers"])
            flat["peers"] = [flattened(peer) for peer in peers]
        elif name == "failed":
            flat["failed"] = [flattened(failed) for failed in value]
        elif name == "payload":
            try:
                flat |= {"payload": value.decode(), "encoding": "utf8"}
            except UnicodeDecodeError:
                flat |= {"payload": base64.b64encode(value).decode(), "encoding": "base64"}
        elif name == "id" and value is None:
            flat["id"] = None
        elif value is not None:
            is_object = isinstance(value, dict) and name != "metadata"
            flat[name] = flattened(cast("dict[str, Any]", value)) if is_object else value
    return flat


def fill(target: Any, body: dict[str, Any]) -> None:
    """Puts `body` into a protobuf message; what that does not know is left out."""
    for name, value in body.items():
        if name not in target.DESCRIPTOR.fields_by_name or value is None:
            continue
        if name == "metadata":
            target.metadata.update(value)
        elif isinstance(value, dict):
            getattr(target, name).SetInParent()
            fill(getattr(target, name), cast("dict[str, Any]", value))
        elif isinstance(value, list):
            fill_list(getattr(target, name), cast("list[object]", value))
        else:
            setattr(target, name, value)


def fill_list(target: Any, items: list[object]) -> None:
    for item in items:
        if isinstance(item, dict):
            fill(target.add(), cast("dict[str, Any]", item))
        else:
            target.append(item)


def plain_message(message: Any) -> dict[str, Any]:
    fields = {name: getattr(message, name) for name in ("id", "type", "payload", "timestamp")}
    return {**fields, "metadata": dict(message.metadata)}


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
