"""Messages between the node and whoever listens, as many as are wanted there.

The node may send as many messages as it has credit for, and gets as much again as was taken out. So a
slow listener slows down those who send to it, and answers to its own calls overtake what waits. Credit
counts messages; large ones are paused by their bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from ._mailbox import Mailbox
from ._message import Message

CREDIT_MESSAGES = 1_024
"""Messages that wait to be taken, here and on the way."""

CREDIT_STEP = CREDIT_MESSAGES // 4
"""Taken messages are reported together."""

PAUSE_BYTES = 32 * 1024 * 1024
"""Bytes of waiting payloads at which no more is wanted; what is on the way still comes."""

RESUME_BYTES = 8 * 1024 * 1024
"""Bytes at which more is wanted again."""


class Inbox(Mailbox[Message]):
    """See the module."""

    def __init__(
        self, check_use: Callable[[], None], grant: Callable[[int], None], want: Callable[[bool], None]
    ) -> None:
        super().__init__(check_use)
        self._grant = grant
        self._want = want
        self._bytes = 0
        self._taken = 0
        self._is_paused = False

    def put(self, item: Message) -> None:
        """Adds a message."""
        self._bytes += len(item.payload)
        if self._bytes >= PAUSE_BYTES and not self._is_paused:
            self._is_paused = True
            self._want(False)
        super().put(item)

    async def take(self) -> Message:
        """The oldest message; waits for one."""
        message = await super().take()
        self._bytes -= len(message.payload)
        self._taken += 1
        if self._taken == CREDIT_STEP:
            self._taken = 0
            self._grant(CREDIT_STEP)
        if self._is_paused and self._bytes <= RESUME_BYTES:
            self._is_paused = False
            self._want(True)
        return message
