#!/usr/bin/env python3
"""Sends back whatever it is sent: `echo_server.py [SERVICE]`."""

import asyncio
import sys

from p2p_node import Message, P2PServer


async def echo(message: Message) -> Message:
    """The same again."""
    return Message.create(msg_type=message.type, payload=message.payload)


async def main(service: str) -> None:
    """Echoes until Ctrl-C."""
    async with P2PServer(service=service) as server:
        await server.wait_online()
        print(f"{server.peer_id} echoes as {service}", flush=True)
        await server.serve(echo)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "echo:v1"))
