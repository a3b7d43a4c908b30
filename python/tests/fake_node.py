#!/usr/bin/env python3
"""A stand-in for the p2p-node program: speaks p2p-stdio/1, and meets other stand-ins on this machine.

A server waits at a Unix socket in $XDG_RUNTIME_DIR, a client without a ticket goes there. `FAKE_NODE` in the
environment makes it misbehave, and so do messages of certain types; see `BEHAVIOURS` and `send`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from typing import Any

ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
PEER_ID = "".join(ALPHABET[byte % 32] for byte in secrets.token_bytes(52))
BEHAVIOURS = {
    "other-protocol": "hello names a version that nobody speaks",
    "no-json": "the first line is no JSON",
    "no-hello": "the first event is not hello",
    "silent": "nothing is ever said",
    "key-in-use": "the start fails, as the real program would say it",
    "dies-at-once": "the process ends without a word on stdout",
    "wrong-flag": "the command line is refused",
    "stubborn": "neither the end of stdin nor SIGTERM ends it",
    "newer": "unknown events and unknown keys are among what it says",
    "server-comes-late": "the first two dials find nobody",
}
BEHAVIOUR = os.environ.get("FAKE_NODE", "")
assert BEHAVIOUR == "" or BEHAVIOUR in BEHAVIOURS

stdout_lock = threading.Lock()
links: dict[str, Link] = {}
dials = 0


def option(name: str) -> str | None:
    for argument in sys.argv[1:]:
        if argument.startswith(name + "="):
            return argument[len(name) + 1 :]
    return None


def say(**event: Any) -> None:
    line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    with stdout_lock:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(1, rest) :]


def fail(call_id: object, code: str, message: str, **more: Any) -> None:
    fields = {"why": "a test wants it", "hint": "look at the test", "retryable": False, **more}
    say(event="error", id=call_id, code=code, message=message, **fields)


def message(number: int, payload: str = "x") -> dict[str, Any]:
    return {
        "id": f"m{number}",
        "type": "text",
        "payload": payload,
        "encoding": "utf8",
        "timestamp": 1_763_820_000_123,
        "metadata": {},
    }


class Link:
    """A connection to another stand-in: JSON lines over a Unix socket."""

    def __init__(self, connection: socket.socket, direction: str) -> None:
        self.connection = connection
        self.direction = direction
        self.lines = connection.makefile("rb")
        self.lock = threading.Lock()
        self.calls: dict[int, tuple[object, str]] = {}
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
            self.connection.sendall(json.dumps(value).encode() + b"\n")

    def send(self, call_id: object, sent: dict[str, Any]) -> None:
        self.counts["messages_sent"] += 1
        number = self.counts["messages_sent"]
        self.calls[number] = (call_id, sent["id"])
        self.write({"number": number, "message": sent})

    def read(self) -> None:
        for line in self.lines:
            value = json.loads(line)
            if "acknowledged" in value:
                call_id, message_id = self.calls.pop(value["acknowledged"])
                fields = {"message_id": message_id, "peer": self.peer, "state": "delivered"}
                say(event="ok", id=call_id, **fields, rtt_ms=0.5)
            else:
                self.counts["messages_received"] += 1
                say(event="message", peer=self.peer, message=value["message"])
                self.write({"acknowledged": value["number"]})
        links.pop(self.peer, None)
        closed = {"code": "closed_by_peer", "message": "the peer closed the connection"}
        say(event="disconnected", peer=self.peer, **closed, will_retry=False)


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
            say(event="connected", **Link(connection, "in").fields())

    threading.Thread(target=accept, daemon=True).start()


def reach(call_id: object, peer: str | None) -> Link | None:
    global dials
    if peer in links:
        return links[peer]
    if peer not in (None, "service"):
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
    say(event="connected", **link.fields())
    return link


def send(call_id: object, command: dict[str, Any]) -> None:
    sent = command["message"]
    payload = sent["payload"]
    match sent["type"]:
        case "fail":
            fail(call_id, payload, "it failed", peer=PEER_ID, elapsed_ms=7)
        case "never answer":
            pass
        case "note":
            say(event="ok", id=call_id, message_id=sent["id"], peer=PEER_ID, state="delivered", rtt_ms=1)
        case "die":
            print("thread 'main' panicked: a test wants it", file=sys.stderr, flush=True)
            os._exit(70)
        case "flood":
            # Messages first, then the answer: as if the peer had been quick.
            for number in range(int(payload)):
                say(event="message", peer=PEER_ID, message=message(number))
            say(event="ok", id=call_id, message_id=sent["id"], peer=PEER_ID, state="delivered", rtt_ms=1)
        case "pour":
            say(event="ok", id=call_id, message_id=sent["id"], peer=PEER_ID, state="delivered", rtt_ms=1)
            threading.Thread(target=pour, args=(int(payload),), daemon=True).start()
        case _:
            link = reach(call_id, command.get("peer"))
            if link is not None:
                link.send(call_id, sent)


def pour(count: int) -> None:
    for number in range(count):
        say(event="message", peer=PEER_ID, message=message(number, "x" * 1_000))
    say(event="poured")


def handle(command: dict[str, Any]) -> None:
    call_id = command.get("id")
    match command["cmd"]:
        case "send":
            send(call_id, command)
        case "connect":
            link = reach(call_id, command.get("peer"))
            if link is not None:
                say(event="ok", id=call_id, **link.fields())
        case "disconnect":
            links[command["peer"]].connection.shutdown(socket.SHUT_RDWR)
            say(event="ok", id=call_id, peer=command["peer"])
        case "list":
            peers = [{**link.fields(), "connected_ms": 5, **link.counts} for link in links.values()]
            say(event="ok", id=call_id, peers=peers)
        case "status":
            say(
                event="ok",
                id=call_id,
                peer_id=PEER_ID,
                online=True,
                nat="none",
                local_addrs=["127.0.0.1:1"],
                public_addrs=[],
                peers=len(links),
                uptime_ms=9,
                dht_nodes=8,
            )
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
            print("Usage: p2p-node <COMMAND>", flush=True)
        case "no-hello":
            say(event="ready")
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
    say(event="hello", node="p2p-node", version="0.0.0", protocols=protocols, pid=os.getpid(), mode=mode)
    if BEHAVIOUR == "key-in-use":
        fail(None, "key_in_use", "another node runs with this identity")
        say(event="bye", reason="fatal", exit_code=3)
        os._exit(3)
    if mode == "server":
        serve()
    service = {"service": option("--service")} if option("--service") else {}
    addrs = ["127.0.0.1:41641"]
    newer = {"colour": "blue", "nested": {"deep": [1]}} if BEHAVIOUR == "newer" else {}
    say(
        event="ready",
        peer_id=PEER_ID,
        ticket="p2p1" + PEER_ID,
        addrs=addrs,
        **service,
        admission="anyone",
        warning="anyone who knows this node's service name or id may connect",
        **newer,
    )
    if BEHAVIOUR == "newer":
        say(event="aurora", height_km=100)
    say(event="online", dht_nodes=8, addrs=addrs, took_ms=12)
    for line in sys.stdin.buffer:
        handle(json.loads(line))
    while BEHAVIOUR == "stubborn":
        time.sleep(1)
    say(event="bye", reason="stdin_eof", exit_code=0)
    os._exit(0)


main()
