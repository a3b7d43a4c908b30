"""For programs that talk to a person at a terminal: typed lines in, errors and messages out."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine

from ._errors import P2PError
from ._mailbox import Mailbox
from ._message import Message

LINES_WAITING_MAX = 64
"""Typed lines that wait to be taken; a file that is piped in waits beyond."""

CHUNK_BYTES = 64 * 1024
"""What Linux keeps in a pipe."""


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


def run(main: Callable[[], Coroutine[None, None, int]]) -> int:
    """Runs `main` to its end; returns the exit code. Ctrl-C is a usual end.

    An error is explained on stderr, where the node's own log goes, too.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("p2p_node.node").setLevel(logging.DEBUG)
    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        return 0
    except P2PError as error:
        print(error.explain(), file=sys.stderr, flush=True)
        return 1


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
