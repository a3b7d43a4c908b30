#!/usr/bin/env python3
"""A room to talk in. The one who opens it runs `chat.py host ROOM`, all others `chat.py join ROOM`."""

import sys

from p2p_node import P2PClient, P2PNode, P2PServer
from p2p_node.terminal import TypedLines, readable, run, short, until_one_ends


async def host(room: str) -> None:
    """Passes what each one says on to all."""
    async with P2PServer(service=f"chat-{room}", ephemeral=True) as server:
        await server.wait_online()
        print(f"the room {room} is open", flush=True)
        await until_one_ends(pass_on(server), say(server))


async def join(room: str) -> None:
    """Talks to the host, who passes it on."""
    async with P2PClient(service=f"chat-{room}") as client:
        print(f"you are in {room}", flush=True)
        await until_one_ends(show(client), say(client))


async def pass_on(server: P2PServer) -> None:
    """Shows a message and sends it to everybody, its sender, too."""
    async for message in server.listen():
        line = f"{short(message.sender or '')}: {readable(message)}"
        print(line, flush=True)
        await server.broadcast(line)


async def show(client: P2PClient) -> None:
    """Shows what the host passes on."""
    async for message in client.listen():
        print(readable(message), flush=True)


async def say(node: P2PNode) -> None:
    """Sends what is typed, until the end of the input."""
    async for line in TypedLines():
        if isinstance(node, P2PClient):
            await node.send(node.server.peer, line)
        else:
            await node.broadcast(f"host: {line}")


if __name__ == "__main__":
    role, room = sys.argv[1:]
    sys.exit(run(lambda: host(room) if role == "host" else join(room)))
