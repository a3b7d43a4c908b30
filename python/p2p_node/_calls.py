"""The calls under way: a command goes out, an answer with its id comes in.

Messages wait here for their turn, so that the node never has more of them than it takes: awaiting a call is
all the flow control that a program needs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from ._codec import Codec, MessageVerb
from ._errors import P2PError, P2PTimeout, error_from
from ._json import JSON, Fields
from ._message import Message

MESSAGES_AT_ONCE = 768
"""Messages that the node has and that have not been acknowledged. It keeps 1,024 for one peer."""

REQUESTS_AT_ONCE = 256
"""The same for requests, which take as long as the other program does; they must not hold messages up."""

BYTES_AT_ONCE = 16 * 1024 * 1024
"""The same for payloads of either kind: the largest message. The node keeps 32 MiB for one peer."""

ANSWER_MARGIN_SECONDS = 2.0
"""The node gives up first, because it knows better why; this is for its answer's way to us."""


class Call:
    """A command and the wait for its answer."""

    __slots__ = ("deadline", "future", "id", "seconds", "size", "verb")

    def __init__(self, verb: str, deadline: float, seconds: float, future: asyncio.Future[object]) -> None:
        self.id = 0
        """0 until it is written."""
        self.verb = verb
        self.deadline = deadline
        """By the event loop's clock."""
        self.seconds = seconds
        """How long it may take in all."""
        self.future = future
        self.size = 0
        """Bytes of payload."""

    def encode(self, codec: Codec, timeout_ms: int) -> Iterable[bytes]:
        """The command. Raises what makes it impossible."""
        raise NotImplementedError

    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.done()

    def succeed(self, reply: object) -> None:
        """Hands the answer over."""
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, error: Exception) -> None:
        """Hands the failure over."""
        if not self.future.done():
            self.future.set_exception(error)


class Question(Call):
    """A call without a message."""

    __slots__ = ("fields",)

    def __init__(
        self,
        verb: str,
        deadline: float,
        seconds: float,
        future: asyncio.Future[object],
        fields: Mapping[str, JSON],
    ) -> None:
        super().__init__(verb, deadline, seconds, future)
        self.fields = fields

    def encode(self, codec: Codec, timeout_ms: int) -> Iterable[bytes]:
        """See `Call`."""
        return (codec.command(self.verb, self.id, timeout_ms, self.fields),)


class Sending(Call):
    """A call with a message."""

    __slots__ = ("message", "message_verb", "peer", "to")

    def __init__(
        self,
        verb: MessageVerb,
        deadline: float,
        seconds: float,
        future: asyncio.Future[object],
        peer: str | None,
        to: str,
        message: Message,
    ) -> None:
        self.id = 0
        self.verb = verb
        self.deadline = deadline
        self.seconds = seconds
        self.future = future
        self.size = len(message.payload)
        self.message_verb: MessageVerb = verb
        self.peer = peer
        self.to = to
        self.message = message

    def encode(self, codec: Codec, timeout_ms: int) -> Iterable[bytes]:
        """See `Call`."""
        return codec.message_command(self.message_verb, self.id, timeout_ms, self.peer, self.to, self.message)


class Window:
    """How many messages of one kind are with the node, and which wait for their turn."""

    __slots__ = ("bytes", "count", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.bytes = 0
        self.waiting: deque[Sending] = deque()

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes may go. One may always go alone."""
        return self.count < self.limit and (self.bytes + size <= BYTES_AT_ONCE or self.count == 0)


class Calls:
    """All calls of one node."""

    def __init__(self, loop: asyncio.AbstractEventLoop, codec: Codec, write: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._codec = codec
        self._write = write
        self._ids = itertools.count(1)
        self._running: dict[int, Call] = {}
        self._messages = Window(MESSAGES_AT_ONCE)
        self._requests = Window(REQUESTS_AT_ONCE)
        self._next_sweep: asyncio.TimerHandle | None = None
        self._next_sweep_time = float("inf")

    def ask(self, call: Question) -> None:
        """Writes a call without a message."""
        self._expect_by(call.deadline)
        self._start(call)

    def send(self, call: Sending) -> None:
        """Writes a call with a message, or lets it wait for its turn."""
        self._expect_by(call.deadline)
        window = self._requests if call.verb == "request" else self._messages
        if not window.waiting and window.has_room(call.size):
            self._start_message(window, call)
        else:
            window.waiting.append(call)

    def tell(self, verb: str, **fields: JSON) -> None:
        """Writes a command that needs no answer."""
        self._write(self._codec.command(verb, 0, 0, fields))

    def give_up(self, call: Call) -> None:
        """Says that nobody waits for `call` any more. Its place is free when the node has let go of it."""
        if call.id in self._running:
            self.tell("cancel", target=call.id)
        if call.future.done() and not call.future.cancelled():
            # Nobody will look at it.
            call.future.exception()

    def handle_ok(self, call_id: int, reply: object) -> None:
        """The node has answered."""
        call = self._finish(call_id)
        if call is not None:
            call.succeed(reply)

    def handle_error(self, call_id: int, fields: Fields) -> None:
        """The node has answered that it cannot."""
        call = self._finish(call_id)
        if call is not None:
            call.fail(error_from(fields))

    def fail_all(self, failure: Callable[[], Exception]) -> None:
        """Ends all calls."""
        waiting = [*self._messages.waiting, *self._requests.waiting]
        for window in (self._messages, self._requests):
            window.waiting.clear()
        for call in [*self._running.values(), *waiting]:
            call.fail(failure())
        self._running.clear()
        if self._next_sweep is not None:
            self._next_sweep.cancel()

    def are_all_given_up(self) -> bool:
        """Whether there are calls, and nobody waits for any of them."""
        return bool(self._running) and all(call.is_over() for call in self._running.values())

    def _start_message(self, window: Window, call: Sending) -> None:
        window.count += 1
        window.bytes += call.size
        try:
            self._start(call)
        except (P2PError, ValueError, TypeError) as error:
            # It cannot be written down: too large, or with text that has no UTF-8.
            self._finish(call.id)
            call.fail(error)

    def _start(self, call: Call) -> None:
        call.id = call_id = next(self._ids)
        self._running[call_id] = call
        timeout_ms = max(1, round((call.deadline - self._loop.time()) * 1_000))
        for part in call.encode(self._codec, timeout_ms):
            self._write(part)

    def _finish(self, call_id: int) -> Call | None:
        call = self._running.pop(call_id, None)
        if isinstance(call, Sending):
            window = self._requests if call.verb == "request" else self._messages
            window.count -= 1
            window.bytes -= call.size
            if window.waiting:
                self._start_waiting(window)
        return call

    def _start_waiting(self, window: Window) -> None:
        # Written in the order in which they came, and not when their tasks get their turn.
        waiting = window.waiting
        while waiting and (waiting[0].is_over() or window.has_room(waiting[0].size)):
            call = waiting.popleft()
            if not call.is_over():
                self._start_message(window, call)

    # One timer for all deadlines: thousands of timers cost more than the calls themselves.

    def _expect_by(self, deadline: float) -> None:
        if deadline < self._next_sweep_time:
            if self._next_sweep is not None:
                self._next_sweep.cancel()
            self._next_sweep_time = deadline
            self._next_sweep = self._loop.call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        self._next_sweep = None
        self._next_sweep_time = float("inf")
        now = self._loop.time()
        for window in (self._messages, self._requests):
            overdue = [call for call in window.waiting if call.deadline <= now and not call.is_over()]
            for call in overdue:
                call.fail(_not_sent(call, len(window.waiting)))
            window.waiting = deque(call for call in window.waiting if not call.is_over())
        latest = now - ANSWER_MARGIN_SECONDS
        for late in [call for call in self._running.values() if call.deadline <= latest]:
            if not late.is_over():
                late.fail(_not_answered(late))
            self.give_up(late)
            self._finish(late.id)
        waiting = [call.deadline for window in (self._messages, self._requests) for call in window.waiting]
        running = [call.deadline + ANSWER_MARGIN_SECONDS for call in self._running.values()]
        if waiting or running:
            self._expect_by(min([*waiting, *running]))


def _not_sent(call: Call, waiting: int) -> P2PTimeout:
    return P2PTimeout(
        f"the message was not sent within {call.seconds:g} s",
        code="timeout",
        why=f"{waiting} messages waited for earlier ones to be acknowledged",
        hint="send less at once, or allow more time with timeout",
        retryable=True,
    )


def _not_answered(call: Call) -> P2PTimeout:
    return P2PTimeout(
        f"the node did not answer {call.verb} within {call.seconds:g} s",
        code="timeout",
        why="it is busy, or has a bug",
        hint="try again; RUST_LOG=debug in the environment makes it say more",
        retryable=True,
    )
