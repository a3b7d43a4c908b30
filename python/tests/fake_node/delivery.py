"""Messages on their way to the program: no more than it has given credit for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from .events import say


class Delivery:
    """Hands messages to the program while it has credit for them, and listens."""

    def __init__(self) -> None:
        self.credit: int | None = None
        self.is_listening = True
        self.waiting: queue.SimpleQueue[tuple[str, dict[str, Any], Callable[[], None]]] = queue.SimpleQueue()
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def put(self, peer: str, message: dict[str, Any], then: Callable[[], None] = lambda: None) -> None:
        self.waiting.put((peer, message, then))

    def run(self) -> None:
        while True:
            peer, message, then = self.waiting.get()
            with self.changed:
                self.changed.wait_for(lambda: self.credit != 0 and self.is_listening)
                if self.credit is not None:
                    self.credit -= 1
            say("message", peer=peer, message=message)
            then()

    def grant(self, count: int) -> None:
        with self.changed:
            assert self.credit is not None, "credit without a hello"
            self.credit += count
            self.changed.notify()

    def listen(self, enabled: bool) -> None:
        with self.changed:
            self.is_listening = enabled
            self.changed.notify()


delivery = Delivery()
