"""A node whose program is the stand-in `fake_node`, for tests of what its user sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from support import FAKE_NODE, WAIT_SECONDS

from p2p_node import P2PNode

_T = TypeVar("_T")


async def soon(awaitable: Awaitable[_T]) -> _T:
    """The outcome, which is due within moments."""
    return await asyncio.wait_for(awaitable, WAIT_SECONDS)


def node(behaviour: str = "", start_timeout: float = WAIT_SECONDS) -> P2PNode:
    environment = {"FAKE_NODE": behaviour}
    return P2PNode(binary=FAKE_NODE, env=environment, start_timeout=start_timeout)


async def odd(node: P2PNode, kind: str, payload: str = "") -> None:
    """Sends a message that makes the stand-in do something."""
    await node.send("service", payload, msg_type=kind)
