"""What the program wants: every command, and the messages that make the stand-in do something odd."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from typing import Any

from .delivery import delivery
from .events import answer, fail, message, say, write
from .links import links, reach
from .startup import PEER_ID

cancelled: list[int] = []


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
            ages = {"connected_ms": 5, "path_ms": 4}
            peers = [{"link": link.fields(), **ages, **link.loss(), **link.counts} for link in links.values()]
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
