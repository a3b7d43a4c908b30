#!/usr/bin/env python3
"""A service that adds up, and who asks it: `request_reply.py serve`, then `request_reply.py 1 2 3`."""

import asyncio
import sys

from p2p_node import JSON, Message, P2PClient, P2PServer

SERVICE = "sums:v1"


async def add_up(question: Message) -> JSON:
    """Answers one question. What it raises is logged, and the one who asks gets `NoReply`."""
    numbers = question.json()
    assert isinstance(numbers, list)
    return {"sum": sum(number for number in numbers if isinstance(number, (int, float)))}


async def serve() -> None:
    """Answers up to 16 questions at once, until Ctrl-C."""
    async with P2PServer(service=SERVICE, ephemeral=True) as server:
        await server.wait_online()
        print("adding up", flush=True)
        await server.serve(add_up)


async def ask(numbers: list[float]) -> None:
    """Asks one question."""
    async with P2PClient(service=SERVICE) as client:
        answer = await client.request("service", [*numbers], timeout=10)
        print(answer.json())


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else ask([float(word) for word in sys.argv[1:]]))
