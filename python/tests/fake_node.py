#!/usr/bin/env python3
"""A stand-in for the p2p-node program: speaks p2p-stdio/1, and meets other stand-ins on this machine.

A server waits at a Unix socket in $XDG_RUNTIME_DIR, a client without a ticket goes there. `FAKE_NODE` in the
environment makes it misbehave, and so do messages of certain types; see `BEHAVIOURS` and `send`.

Inside, events and commands have the shape of `proto/stdio.proto`; `Lines` and `Frames` write and read them.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
PEER_ID = "".join(ALPHABET[byte % 32] for byte in secrets.token_bytes(52))
BEHAVIOURS = {
    "other-protocol": "hello names a version that nobody speaks",
    "no-json": "the first line is no JSON, and no frame either",
    "no-hello": "the first event is not hello",
    "silent": "nothing is ever said",
    "key-in-use": "the start fails, as the real program would say it",
    "dies-at-once": "the process ends without a word on stdout",
    "wrong-flag": "the command line is refused",
    "stubborn": "neither the end of stdin nor SIGTERM ends it",
    "newer": "unknown events and unknown keys are among what it says",
    "server-comes-late": "the first two dials find nobody",
    "reads-nothing": "no command is ever read",
}
BEHAVIOUR = os.environ.get("FAKE_NODE", "")
assert BEHAVIOUR == "" or BEHAVIOUR in BEHAVIOURS

stdout_lock = threading.Lock()
links: dict[str, Link] = {}
cancelled: list[int] = []
dials = 0


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
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
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


notation = Frames() if os.environ["P2P_NODE_STDIO"] == "protobuf" else Lines()


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


def option(name: str) -> str | None:
    for argument in sys.argv[1:]:
        if argument.startswith(name + "="):
            return argument[len(name) + 1 :]
    return None


def write(encoded: bytes) -> None:
    with stdout_lock:
        rest = memoryview(encoded)
        while rest:
            rest = rest[os.write(1, rest) :]


def say(kind: str, **body: Any) -> None:
    write(notation.encode(kind, body))


def answer(call_id: object, **reply: Any) -> None:
    say("ok", id=call_id, **reply)


def fail(call_id: object, code: str, message: str, **more: Any) -> None:
    reason = {"code": code, "message": message, "why": "a test wants it", "hint": "look at the test"}
    say("error", id=call_id, reason=reason, **{"retryable": False, **more})


def message(number: int, payload: str = "x") -> dict[str, Any]:
    return {
        "id": f"m{number}",
        "type": "text",
        "payload": payload.encode(),
        "timestamp": 1_763_820_000_123,
        "metadata": {},
    }


class Delivery:
    """Hands messages to the program while it has credit for them, and listens."""

    def __init__(self) -> None:
        self.credit: int | None = None
        self.is_listening = True
        self.waiting: queue.SimpleQueue[tuple[str, dict[str, Any], Callable[[], None]]] = queue.SimpleQueue()
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def put(self, peer: str, message: dict[str, Any], then: Callable[[], None] = lambda: None) -> None:
        self.waiting.put((peer, message, then))

    def run(self) -> None:
        while True:
            peer, message, then = self.waiting.get()
            with self.changed:
                self.changed.wait_for(lambda: self.credit != 0 and self.is_listening)
                if self.credit is not None:
                    self.credit -= 1
            say("message", peer=peer, message=message)
            then()

    def grant(self, count: int) -> None:
        with self.changed:
            assert self.credit is not None, "credit without a hello"
            self.credit += count
            self.changed.notify()

    def listen(self, enabled: bool) -> None:
        with self.changed:
            self.is_listening = enabled
            self.changed.notify()


delivery = Delivery()


class Link:
    """A connection to another stand-in: JSON lines over a Unix socket."""

    def __init__(self, connection: socket.socket, direction: str) -> None:
        self.connection = connection
        self.direction = direction
        self.lines = connection.makefile("rb")
        self.lock = threading.Lock()
        self.acknowledged: dict[int, Callable[[], None]] = {}
        self.sending: dict[int, object] = {}
        self.requests: dict[str, object] = {}
        self.counts = {"messages_sent": 0, "messages_received": 0}
        self.write({"peer": PEER_ID})
        self.peer = json.loads(self.lines.readline())["peer"]
        links[self.peer] = self
        threading.Thread(target=self.read, daemon=True).start()

    def fields(self) -> dict[str, Any]:
        path = {"kind": "loopback", "local": "127.0.0.1:1", "remote": "127.0.0.1:2"}
        return {
            "peer": self.peer,
            "direction": self.direction,
            "path": path,
            "rtt_ms": 0.25,
            "took_ms": 3,
        }

    def write(self, value: dict[str, Any]) -> None:
        with self.lock:
            try:
                self.connection.sendall(json.dumps(value).encode() + b"\n")
            except OSError:
                # The other one is gone; `read` says so.
                pass

    def receipt(self, sent: dict[str, Any]) -> dict[str, Any]:
        return {"message_id": sent["id"], "peer": self.peer, "state": "delivered", "rtt_ms": 0.5}

    def send(self, sent: dict[str, Any], then: Callable[[], None], call_id: object = None) -> None:
        self.counts["messages_sent"] += 1
        number = self.counts["messages_sent"]
        self.acknowledged[number] = then
        self.sending[number] = call_id
        payload = base64.b64encode(sent["payload"]).decode()
        self.write({"number": number, "message": {**sent, "payload": payload}})

    def read(self) -> None:
        for line in self.lines:
            value = json.loads(line)
            if "acknowledged" in value:
                del self.sending[value["acknowledged"]]
                self.acknowledged.pop(value["acknowledged"])()
            else:
                self.receive(value["number"], value["message"])
        links.pop(self.peer, None)
        for call_id in self.sending.values():
            if call_id is not None:
                fail(call_id, "delivery_unknown", "the connection ended first", peer=self.peer)
        reason = {"code": "closed_by_peer", "message": "the peer closed the connection"}
        say("disconnected", peer=self.peer, reason=reason, will_retry=False)

    def receive(self, number: int, received: dict[str, Any]) -> None:
        received["payload"] = base64.b64decode(received["payload"])
        self.counts["messages_received"] += 1
        call_id = self.requests.pop(received.get("metadata", {}).get("in-reply-to", ""), None)
        if call_id is not None:
            answer(call_id, received={"peer": self.peer, "message": received})
            self.write({"acknowledged": number})
        else:
            delivery.put(self.peer, received, lambda: self.write({"acknowledged": number}))


def rendezvous() -> str:
    name = option("--service") or "this-machine"
    return os.path.join(os.environ["XDG_RUNTIME_DIR"], f"fake-{name}.sock")


def serve() -> None:
    path = rendezvous()
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            say("connected", **Link(connection, "in").fields())

    threading.Thread(target=accept, daemon=True).start()


def reach(call_id: object, peer: str | None) -> Link | None:
    global dials
    if peer in links:
        return links[peer]
    if peer not in (None, "", "service"):
        fail(call_id, "peer_not_found", f"nothing is published for {peer}", retryable=True, elapsed_ms=12)
        return None
    for link in links.values():
        if link.direction == "out":
            return link
    dials += 1
    connection = socket.socket(socket.AF_UNIX)
    try:
        if BEHAVIOUR == "server-comes-late" and dials <= 2:
            raise FileNotFoundError
        connection.connect(rendezvous())
    except OSError:
        if option("--service"):
            fail(call_id, "peer_not_found", "nothing is published for the service", retryable=True)
        else:
            fail(call_id, "invalid_argument", "no peer is named and the node has no service")
        return None
    link = Link(connection, "out")
    say("connected", **link.fields())
    return link


def pair_with(peer: str) -> dict[str, Any]:
    why = "both NATs give each destination another port"
    way = {"method": "no direct way", "why": why, "outlook": "impossible", "takes": "never"}
    return {
        "peer": peer,
        "addrs": ["198.51.100.9:50112"],
        "mapping": "address-and-port-dependent",
        "filtering": "unknown",
        "ports": {"allocation": "random", "seen": 0},
        "helpers": 2,
        "outlook": "impossible",
        "verdict": f"{why}. IPv6 would help.",
        "ways": [way],
    }


def send(call_id: object, command: dict[str, Any]) -> None:
    sent = command["message"]
    payload = sent["payload"]
    receipt = {"message_id": sent["id"], "peer": PEER_ID, "state": "delivered", "rtt_ms": 1}
    match sent["type"]:
        case "fail":
            fail(call_id, payload.decode(), "it failed", peer=PEER_ID, elapsed_ms=7)
        case "never answer":
            pass
        case "note":
            answer(call_id, receipt=receipt)
        case "queue":
            answer(call_id, receipt={**receipt, "state": "queued"})
            say("delivered", **receipt)
        case "die":
            print("thread 'main' panicked: a test wants it", file=sys.stderr, flush=True)
            os._exit(70)
        case "close stdout":
            os.close(1)
        case "garble":
            write(b"\xff\xff\xff\xff\xff a library printed this\n")
            answer(call_id, receipt=receipt)
        case "flood":
            for number in range(int(payload)):
                delivery.put(PEER_ID, message(number))
            answer(call_id, receipt=receipt)
        case "pour":
            answer(call_id, receipt=receipt)
            for number in range(int(payload)):
                delivery.put(PEER_ID, message(number, "x" * 1_000))
        case "pour large":
            answer(call_id, receipt=receipt)
            for number in range(int(payload)):
                delivery.put(PEER_ID, message(number, "x" * 1_000_000))
        case _:
            link = reach(call_id, command.get("peer"))
            if link is None:
                return
            if command["cmd"] == "request":
                link.requests[sent["id"]] = call_id
                link.send(sent, lambda: None)
                return
            if command["cmd"] == "reply":
                sent["metadata"] = {**sent.get("metadata", {}), "in-reply-to": command["to"]}
            link.send(sent, lambda: answer(call_id, receipt=link.receipt(sent)), call_id)


def broadcast(call_id: object, sent: dict[str, Any]) -> None:
    targets = list(links.values())
    left = queue.SimpleQueue[None]()
    for link in targets:
        link.send(sent, lambda: left.put(None))

    def wait() -> None:
        for _ in targets:
            left.get()
        reason = {"code": "connection_lost", "message": "gone", "why": "", "hint": ""}
        failed = [{"peer": "y" * 52, "reason": reason}] if sent["type"] == "one fails" else []
        answer(call_id, broadcast={"sent": [link.receipt(sent) for link in targets], "failed": failed})

    threading.Thread(target=wait, daemon=True).start()


def handle(command: dict[str, Any]) -> None:
    call_id = command.get("id")
    match command["cmd"]:
        case "hello":
            delivery.credit = command["credit"]
        case "credit":
            delivery.grant(command["messages"])
        case "listen":
            delivery.listen(command["enabled"])
        case "cancel":
            cancelled.append(command["target"])
            fail(command["target"], "cancelled", "the program gave it up")
        case "send" | "request" | "reply":
            send(call_id, command)
        case "broadcast":
            broadcast(call_id, command["message"])
        case "connect":
            link = reach(call_id, command.get("peer"))
            if link is not None:
                answer(call_id, link=link.fields())
        case "disconnect":
            links[command["peer"]].connection.shutdown(socket.SHUT_RDWR)
            answer(call_id, peer=command["peer"])
        case "list":
            peers = [{"link": link.fields(), "connected_ms": 5, **link.counts} for link in links.values()]
            answer(call_id, peers={"peers": peers})
        case "status":
            status = {
                "peer_id": PEER_ID,
                "online": True,
                # What tests want to know.
                "nat": f"cancelled {cancelled}, credit {delivery.credit}",
                "local_addrs": ["127.0.0.1:1"],
                "public_addrs": [],
                "peers": len(links),
                "uptime_ms": 9,
                "dht_nodes": 8,
            }
            answer(call_id, status=status)
        case "ping":
            link = reach(call_id, command["peer"])
            if link is not None:
                fields = link.fields()
                answer(call_id, pong={name: fields[name] for name in ("peer", "rtt_ms", "path")})
        case "netcheck":
            netcheck = {
                "udp": True,
                "public_addrs": ["203.0.113.7:41641"],
                "mapping": "endpoint-independent",
                "stun_servers": 2,
                "dht_nodes": 18,
                "verdicts": ["direct connections will work with most peers"],
                "local_addrs": ["192.168.1.20:41641"],
                "filtering": "unknown",
                "ports": {"allocation": "block", "low": 41_000, "high": 41_900, "seen": 8},
                "addresses": "one",
                "hairpin": "missing",
                "lifetime": {"state": "measured", "less_than_ms": command.get("lifetime_ms") or 9},
                "keep_alive_ms": 25_000,
                "servers": [
                    {
                        "name": "stun.example:3478",
                        "addr": "198.51.100.10:3478",
                        "rtt_ms": 20.5,
                    },
                    {"name": "stun.example.net:3478", "addr": "198.51.100.11:3478"},
                ],
                "helpers": 1,
                "helper": False,
                "complete": True,
                "pairs": [pair_with(command["peer"])] if command.get("peer") else [],
            }
            answer(call_id, netcheck=netcheck)
        case verb:
            fail(call_id, "unknown_command", f"there is no command {verb!r}")


def misbehave_at_start() -> None:
    match BEHAVIOUR:
        case "dies-at-once":
            print("panicked", file=sys.stderr, flush=True)
            os._exit(101)
        case "wrong-flag":
            print("error: unexpected argument '--mood'", file=sys.stderr, flush=True)
            os._exit(2)
        case "no-json":
            write(b"Usage: p2p-node <COMMAND>\n")
        case "no-hello":
            say("bye", reason="fatal", exit_code=1)
        case "silent":
            sys.stdin.read()
            os._exit(0)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case _:
            pass


def main() -> None:
    misbehave_at_start()
    mode = sys.argv[sys.argv.index("--mode") + 1]
    protocols = [9] if BEHAVIOUR == "other-protocol" else [1]
    say("hello", node="p2p-node", version="0.0.0", protocols=protocols, pid=os.getpid(), mode=mode)
    if BEHAVIOUR == "key-in-use":
        fail(None, "key_in_use", "another node runs with this identity")
        say("bye", reason="fatal", exit_code=3)
        os._exit(3)
    if mode == "server":
        serve()
    addrs = ["127.0.0.1:41641"]
    newer = {"colour": "blue", "nested": {"deep": [1]}} if BEHAVIOUR == "newer" else {}
    say(
        "ready",
        peer_id=PEER_ID,
        ticket="p2p1" + PEER_ID,
        addrs=addrs,
        service=option("--service"),
        admission="anyone",
        warning="anyone who knows this node's service name or id may connect",
        **newer,
    )
    if BEHAVIOUR == "newer":
        write(notation.unknown_event())
    say("online", dht_nodes=8, addrs=addrs, took_ms=12)
    while BEHAVIOUR == "reads-nothing":
        time.sleep(1)
    for command in notation.commands():
        handle(command)
    while BEHAVIOUR == "stubborn":
        time.sleep(1)
    say("bye", reason="stdin_eof", exit_code=0)
    os._exit(0)


main()
