"""A queue that ends: what was put in before its end can still be taken out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """Filled by one event loop's callbacks, emptied by its tasks. Whoever fills it minds its length."""

    def __init__(self, check_use: Callable[[], None] | None = None) -> None:
        """`check_use` raises where a wait would never end, because it is another loop that fills."""
        self._items: deque[_T] = deque()
        self._changed = asyncio.Event()
        self._end: Callable[[], Exception] | None = None
        self._check_use = check_use

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: _T) -> None:
        """Adds an item."""
        self._items.append(item)
        if len(self._items) == 1:
            self._changed.set()

    def drop_oldest(self) -> None:
        """Makes room for another item."""
        self._items.popleft()

    def close(self, end: Callable[[], Exception]) -> None:
        """Lets everybody who finds the mailbox empty from here on fail with what `end` makes."""
        self._end = self._end or end
        self._changed.set()

    async def take(self) -> _T:
        """The oldest item; waits for one. Nothing is lost if the wait is cancelled."""
        items = self._items
        while not items:
            if self._end is not None:
                raise self._end()
            if self._check_use is not None:
                self._check_use()
            self._changed.clear()
            await self._changed.wait()
        return items.popleft()
