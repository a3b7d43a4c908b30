"""Other stand-ins: how they are met, and what goes to and fro."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from .delivery import delivery
from .events import answer, fail, say
from .startup import BEHAVIOUR, PEER_ID, option

links: dict[str, Link] = {}
dials = 0


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

    def loss(self) -> dict[str, Any]:
        # Nothing was sent over a link that is quiet.
        return {"loss_percent": 0.0} if self.counts["messages_sent"] else {}

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
    step = {"target": "service", "peer": link.peer, "stage": "punch", "elapsed_ms": 2}
    say("progress", **step, detail="probing 1 address")
    say("progress", **step, detail="direct: it is near", strategy="direct", why="it is near")
    say("connected", **link.fields())
    return link
