#!/usr/bin/env python3
"""Copies a file to another machine.

send_file.py receive FOLDER          prints a ticket
send_file.py send TICKET FILE        on the other machine
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from p2p_node import Message, P2PClient, P2PServer

CHUNK_BYTES = 1024 * 1024


async def receive(folder: Path) -> None:
    """Takes one file. Messages arrive whole, once and in order: writing them down is all there is to do."""
    async with P2PServer(ephemeral=True) as server:
        await server.wait_online()
        print(server.ticket, flush=True)
        messages = server.listen()
        begin = await anext(messages)
        # Only the name: whoever sends does not choose the folder.
        path = folder / Path(begin.metadata["name"]).name
        digest = hashlib.sha256()
        with path.open("xb") as file:
            async for message in messages:
                if message.type == "end":
                    await server.reply(message, digest.hexdigest())
                    break
                file.write(message.payload)
                digest.update(message.payload)
        print(f"received {path.name}, {path.stat().st_size} bytes", flush=True)


async def send(ticket: str, path: Path) -> None:
    """Sends one file, with a progress bar."""
    size, digest = path.stat().st_size, hashlib.sha256()

    def chunks() -> Iterator[Message]:
        begun, done = time.monotonic(), 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield Message.create(msg_type="chunk", payload=chunk)
                digest.update(chunk)
                done += len(chunk)
                show_progress(done / size, done / (time.monotonic() - begun))

    async with P2PClient(ticket) as client:
        await client.send_message(Message.create(msg_type="begin", metadata={"name": path.name}))
        await client.send_many(client.server.peer, chunks())
        answer = await client.request(client.server.peer, "", msg_type="end")
        assert answer.text() == digest.hexdigest(), "it arrived damaged"
        print("\ndelivered and checked")


def show_progress(part: float, rate: float) -> None:
    """A bar of 40 characters."""
    bar = "#" * round(part * 40)
    print(f"\r[{bar:40}] {part:4.0%} {rate / 2**20:7.1f} MiB/s", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        asyncio.run(receive(Path(sys.argv[2])))
    else:
        asyncio.run(send(sys.argv[2], Path(sys.argv[3])))
