"""The life of a stand-in: its first words, its commands, its end."""

from __future__ import annotations

import os
import signal
import sys
import time

from .commands import handle
from .events import fail, notation, say, write
from .links import serve
from .startup import BEHAVIOUR, PEER_ID, option


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
