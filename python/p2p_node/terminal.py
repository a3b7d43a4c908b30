"""For programs that talk to a person at a terminal: typed lines in, messages and errors out."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine

from ._client import P2PClient
from ._errors import P2PError
from ._events import Connected, Disconnected, Online, Warned
from ._mailbox import Mailbox
from ._message import Message
from ._node import P2PNode
from ._server import P2PServer

LINES_WAITING_MAX = 64
"""Typed lines that wait to be taken; a file that is piped in waits beyond."""

CHUNK_BYTES = 64 * 1024
"""What Linux keeps in a pipe."""


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Lets the command line say what the node of a script is to be."""
    parser.add_argument("--service", metavar="NAME", help="the server's service, such as myapi:v1")
    parser.add_argument("--service-secret-file", metavar="FILE", help="what only its clients know")
    parser.add_argument("--binary", metavar="FILE", help="the p2p-node program")
    parser.add_argument(
        "--transport", choices=("auto", "json", "protobuf"), default="auto", help="how to talk to it"
    )


class Conversation:
    """Prints what arrives at a node and who comes and goes; sends what is typed."""

    def __init__(self, node: P2PNode) -> None:
        self._node = node
        self._peer = node.server.peer if isinstance(node, P2PClient) else None

    async def run(self) -> None:
        """Until the end of the input."""
        await until_one_ends(self._show_messages(), self._show_events(), self._send_typed())

    async def _show_messages(self) -> None:
        async for message in self._node.listen():
            self._peer = message.sender
            print(f"{short(message.sender or '')}: {readable(message)}", flush=True)

    async def _show_events(self) -> None:
        async for event in self._node.events("online", "connected", "disconnected", "warning"):
            match event:
                case Online(dht_nodes=count):
                    print(f"online: {count} DHT nodes know where this server is", flush=True)
                case Connected(connection):
                    self._peer = connection.peer
                    print(f"{short(connection.peer)} is connected ({connection.path.kind})", flush=True)
                case Disconnected(peer, reason):
                    print(f"{short(peer)} is gone: {printable(reason.message)}", flush=True)
                case Warned(problem):
                    explain(problem)
                case _:
                    pass

    async def _send_typed(self) -> None:
        async for line in TypedLines():
            message = Message.create(msg_type="text", payload=line)
            try:
                if isinstance(self._node, P2PClient):
                    receipt = await self._node.send_message(message)
                elif self._peer is not None:
                    receipt = await self._node.send_message(self._peer, message)
                else:
                    print("nobody has connected yet", flush=True)
                    continue
                print(f"delivered in {receipt.rtt_ms:.1f} ms", flush=True)
            except P2PError as error:
                explain(error)


def introduce(server: P2PServer) -> None:
    """Says who this is, and how to reach it."""
    service = server.ready.service
    print(f"server {server.peer_id} is ready")
    if service:
        print(f"  by its service:     python3 python/p2p_client.py --service {service}")
    else:
        print("  from this machine:  python3 python/p2p_client.py")
    print(f"  by its ticket:      python3 python/p2p_client.py {server.ticket}")
    print("type a line to send it to the peer that was heard last; Ctrl-C ends", flush=True)
    if server.ready.warning:
        print(f"note: {server.ready.warning}", file=sys.stderr, flush=True)


def greet(client: P2PClient) -> None:
    """Says whom the client talks to."""
    link = client.server
    print(f"connected to {link.peer} ({link.path.kind}, {link.rtt_ms:.1f} ms)")
    print("type a line to send it; Ctrl-C ends", flush=True)


class TypedLines:
    """The lines of stdin, for `async for`; ends with it. Make one per program.

    They are read by a thread with bare reads: a thread that waits in `sys.stdin` would keep the program
    from ending.
    """

    def __init__(self) -> None:
        self._lines: Mailbox[str] = Mailbox()
        self._room = threading.Semaphore(LINES_WAITING_MAX)
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, name="typed lines", daemon=True).start()

    def __aiter__(self) -> TypedLines:
        return self

    async def __anext__(self) -> str:
        """The next line, without its end."""
        line = await self._lines.take()
        self._room.release()
        return line

    def _read(self) -> None:
        begun = b""
        try:
            while chunk := os.read(sys.stdin.fileno(), CHUNK_BYTES):
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    self._put(line)
            if begun:
                self._put(begun)
            self._loop.call_soon_threadsafe(self._lines.close, StopAsyncIteration)
        except RuntimeError:
            # The event loop is closed: the program ends.
            pass

    def _put(self, line: bytes) -> None:
        self._room.acquire()
        text = line.decode("utf-8", "replace").rstrip("\r")
        self._loop.call_soon_threadsafe(self._lines.put, text)


def run(main: Callable[[], Coroutine[None, None, None]]) -> int:
    """Runs `main` to its end; returns the exit code. Ctrl-C is a usual end.

    An error is explained on stderr, where the node's own log goes, too.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("p2p_node.node").setLevel(logging.DEBUG)
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except P2PError as error:
        explain(error)
        return 1
    return 0


def explain(error: P2PError) -> None:
    """Says what failed, why, and what to do."""
    print(error.explain(), file=sys.stderr, flush=True)


async def until_one_ends(*works: Coroutine[None, None, None]) -> None:
    """Runs all of `works` until one of them ends; fails as it fails."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def readable(message: Message) -> str:
    """What a message says, safe to print: a peer's text must not steer our terminal."""
    try:
        text = message.text()
    except UnicodeDecodeError:
        return f"<{len(message.payload)} bytes of type {printable(message.type)}>"
    return printable(text)


def printable(text: str) -> str:
    """`text` with a mark in place of each character that does not print."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def short(peer: str) -> str:
    """The first eight characters of a peer id, for people."""
    return peer[:8]
