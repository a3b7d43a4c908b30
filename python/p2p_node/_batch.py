"""Many messages in one call, without a task or a future for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable

from ._calls import Calls, Sending
from ._message import Message

AHEAD_MESSAGES_MAX = 1_024
"""Messages that are made before the first of them is acknowledged."""

AHEAD_BYTES_MAX = 32 * 1024 * 1024
"""The same for their payloads."""


class Batch:
    """Messages to one peer, in order."""

    def __init__(
        self, calls: Calls, loop: asyncio.AbstractEventLoop, peer: str | None, seconds: float
    ) -> None:
        self._calls = calls
        self._loop = loop
        self._peer = peer
        self._seconds = seconds
        self._open: set[_BatchCall] = set()
        self._open_bytes = 0
        self._delivered = 0
        self._error: Exception | None = None
        self._progress: asyncio.Future[object] = loop.create_future()
        self._awaited = (0, 0)

    async def send(self, messages: Iterable[Message] | AsyncIterable[Message]) -> int:
        """Sends them all; returns how many. Raises the first failure, and gives up what is under way then."""
        try:
            if isinstance(messages, AsyncIterable):
                async for message in messages:
                    if self._must_wait():
                        await self._wait_until_open(AHEAD_MESSAGES_MAX // 2, AHEAD_BYTES_MAX // 2)
                    self._begin(message)
            else:
                for message in messages:
                    if self._must_wait():
                        await self._wait_until_open(AHEAD_MESSAGES_MAX // 2, AHEAD_BYTES_MAX // 2)
                    self._begin(message)
            await self._wait_until_open(0, 0)
        finally:
            self._progress.cancel()
            for call in self._open:
                self._calls.give_up(call)
        return self._delivered

    def succeed(self, call: _BatchCall) -> None:
        """One has arrived."""
        self._delivered += 1
        self._open.discard(call)
        self._open_bytes -= call.size
        if len(self._open) <= self._awaited[0] and self._open_bytes <= self._awaited[1]:
            self._wake()

    def fail(self, call: _BatchCall, error: Exception) -> None:
        """One has not arrived."""
        self._open.discard(call)
        self._open_bytes -= call.size
        self._error = self._error or error
        self._wake()

    def is_over(self) -> bool:
        """Whether what has not been sent yet is not to be sent any more."""
        return self._error is not None or self._progress.cancelled()

    def _begin(self, message: Message) -> None:
        deadline = self._loop.time() + self._seconds
        call = _BatchCall("send", deadline, self._seconds, self._progress, self._peer, "", message)
        call.batch = self
        self._open.add(call)
        self._open_bytes += call.size
        self._calls.send(call)

    def _must_wait(self) -> bool:
        return (
            len(self._open) >= AHEAD_MESSAGES_MAX
            or self._open_bytes >= AHEAD_BYTES_MAX
            or self._error is not None
        )

    async def _wait_until_open(self, count: int, size: int) -> None:
        if self._error is None and (len(self._open) > count or self._open_bytes > size):
            self._awaited = (count, size)
            self._progress = self._loop.create_future()
            await self._progress
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if not self._progress.done():
            self._progress.set_result(None)


class _BatchCall(Sending):
    __slots__ = ("batch",)

    batch: Batch

    def is_over(self) -> bool:
        return self.batch.is_over()

    def succeed(self, reply: object) -> None:
        self.batch.succeed(self)

    def fail(self, error: Exception) -> None:
        self.batch.fail(self, error)
