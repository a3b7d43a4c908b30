"""One run of a node: its process, and what is said over its stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Mapping, Sequence

from ._binary import find_binary
from ._calls import Calls, Question, Sending
from ._codec import Codec, MessageVerb
from ._errors import ConfigError, IncompatibleNode, NodeClosed, NodeExited, P2PError, P2PTimeout
from ._events import Event, Failed, Online, Ready, Warned, event_from
from ._inbox import CREDIT_MESSAGES, Inbox
from ._json import JSON, Fields
from ._mailbox import Mailbox
from ._message import Message
from ._process import Process, log

PROTOCOL = 1
"""The version of `p2p-stdio` that this package speaks."""

CALL_SECONDS_MAX = 3_600.0
"""What the node takes as a timeout."""

EVENTS_WAITING_MAX = 1_024
"""Events that wait in one `events()`. Beyond, the oldest are dropped: they tell of what has passed."""

EXIT_CODE_USAGE = 2
"""What the program ends with when a flag or an environment variable is wrong."""


class Session:
    """Made before the start; a `Listener` from there to the end of the process."""

    def __init__(
        self,
        codec: Codec,
        binary: str | os.PathLike[str] | None,
        arguments: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        self.codec = codec
        self._binary = binary
        self._arguments = arguments
        self._env = env
        self._process: Process | None = None
        self._calls: Calls | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process_id = 0
        self._ready: asyncio.Future[Ready] | None = None
        self._online = asyncio.Event()
        self._start_failure: P2PError | None = None
        self._greeted = False
        self._closing = False
        self._returncode: int | None = None
        self.inbox = Inbox(self.check_use, self._grant, self._want)
        self._watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()

    # Life.

    async def start(self, seconds: float) -> None:
        """See `P2PNode.start`."""
        self._loop = asyncio.get_running_loop()
        self._process_id = os.getpid()
        self._ready = self._loop.create_future()
        self._process = Process(
            [str(find_binary(self._binary)), *self._arguments],
            env={**os.environ, **self._env, **self._own_variables()},
            sink=self.codec.decoder(self),
            on_exit=self._handle_exit,
        )
        self._calls = Calls(self._loop, self.codec, self._process.write)
        self._calls.tell("hello", protocol=PROTOCOL, client="p2p_node for Python", credit=CREDIT_MESSAGES)
        await asyncio.wait({self._ready}, timeout=seconds)
        if not self._ready.done():
            raise P2PTimeout(
                f"the node was not ready within {seconds:g} s",
                code="timeout",
                why=" | ".join(self._process.stderr_lines) or "it wrote nothing to stderr",
                hint="run the program by hand, or allow more with start_timeout",
                retryable=True,
            )
        self._ready.result()

    async def close(self, drain_seconds: float) -> None:
        """See `P2PNode.close`."""
        if self._process is None or self._calls is None or self._process_id != os.getpid():
            return
        self._closing = True
        # What nobody waits for any more, such as the dial of a cancelled call, holds nothing up.
        await self._process.stop(drain_seconds=0.0 if self._calls.are_all_given_up() else drain_seconds)

    @property
    def ready(self) -> Ready | None:
        """What the node said when it had started, if it has."""
        ready = self._ready
        return ready.result() if ready is not None and ready.done() and not ready.exception() else None

    @property
    def pid(self) -> int | None:
        """The process id; `None` before the start."""
        return None if self._process is None else self._process.pid

    @property
    def is_open(self) -> bool:
        """Whether calls make sense."""
        return self._process is not None and not self._closing and self._returncode is None

    async def wait_online(self, seconds: float) -> None:
        """See `P2PNode.wait_online`."""
        check_timeout(seconds)
        self.usable_calls()
        try:
            await asyncio.wait_for(self._online.wait(), seconds)
        except asyncio.TimeoutError:
            raise P2PTimeout(
                f"the node did not get online within {seconds:g} s",
                code="timeout",
                why="no DHT node has taken its record yet",
                hint="does UDP leave this network? `netcheck` tells",
                retryable=True,
            ) from None
        self.usable_calls()

    def watch(self, kinds: tuple[type[Event], ...]) -> Watcher:
        """A mailbox for events of these kinds, or of all."""
        watcher = Watcher(self.check_use, kinds)
        if self._returncode is not None:
            watcher.close(self._end_of_stream)
        self._watchers.add(watcher)
        return watcher

    def _own_variables(self) -> dict[str, str]:
        # The end of stdin may not be noticed while another child of ours holds the pipe; our end is.
        return {"P2P_NODE_STDIO": self.codec.name, "P2P_NODE_PARENT_PID": str(os.getpid())}

    # Calls.

    async def call_with(
        self, verb: MessageVerb, peer: str | None, to: str, message: Message, seconds: float
    ) -> object:
        """A call with a message; returns what the codec can read."""
        check_timeout(seconds)
        calls = self.usable_calls()
        loop = asyncio.get_running_loop()
        call = Sending(verb, loop.time() + seconds, seconds, loop.create_future(), peer, to, message)
        calls.send(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            calls.give_up(call)
            raise

    async def ask(self, verb: str, seconds: float, **fields: JSON) -> Fields:
        """A call without a message."""
        check_timeout(seconds)
        calls = self.usable_calls()
        loop = asyncio.get_running_loop()
        call = Question(verb, loop.time() + seconds, seconds, loop.create_future(), fields)
        calls.ask(call)
        try:
            return self.codec.fields(await call.future)
        except asyncio.CancelledError:
            calls.give_up(call)
            raise

    def usable_calls(self) -> Calls:
        """For a call. Raises what keeps it from being made."""
        if self._calls is None or not self.is_open:
            raise self.not_usable()
        self.check_use()
        return self._calls

    def check_use(self) -> None:
        """Raises where this node cannot be used."""
        if self._loop is None:
            return
        if self._process_id != os.getpid():
            raise RuntimeError("a node cannot be used in a fork of its process; start one there")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a node is used in the event loop that it was started in")

    def _grant(self, messages: int) -> None:
        if self._calls is not None and self._returncode is None:
            self._calls.tell("credit", messages=messages)

    def _want(self, enabled: bool) -> None:
        if self._calls is not None and self._returncode is None:
            self._calls.tell("listen", enabled=enabled)

    # What the process tells: a `Listener`.

    def handle_message(self, message: Message) -> None:
        """For the decoder."""
        if self._greeted:
            self.inbox.put(message)
        else:
            self._handle_hello("message", Fields({}))

    def handle_ok(self, call_id: int, reply: object) -> None:
        """For the decoder."""
        if self._calls is not None:
            self._calls.handle_ok(call_id, reply)

    def handle_error(self, call_id: int, fields: Fields) -> None:
        """For the decoder."""
        if self._calls is not None:
            self._calls.handle_error(call_id, fields)

    def handle_event(self, name: str, fields: Fields) -> None:
        """For the decoder."""
        if not self._greeted:
            self._handle_hello(name, fields)
            return
        event = event_from(name, fields)
        if isinstance(event, Ready) and self._ready is not None and not self._ready.done():
            self._ready.set_result(event)
        elif isinstance(event, Online):
            self._online.set()
        elif isinstance(event, Failed):
            self._start_failure = event.error
            log.warning("%s", event.error)
        elif isinstance(event, Warned):
            log.warning("%s", event.problem)
        for watcher in self._watchers:
            watcher.tell(event)

    def handle_malformed(self, why: str) -> None:
        """For the decoder."""
        if self._greeted:
            log.warning("the node said something odd: %s", why)
        else:
            self._refuse(why)

    def handle_garbage(self, why: str) -> None:
        """For the decoder."""
        self.handle_malformed(why)
        if self._process is not None:
            self._process.kill()

    def _handle_hello(self, name: str, fields: Fields) -> None:
        if name != "hello":
            self._refuse(f"its first event is {name}, not hello")
            return
        protocols = fields.integers("protocols")
        if PROTOCOL not in protocols:
            self._refuse(f"it speaks version {protocols} of p2p-stdio, not {PROTOCOL}")
            return
        self._greeted = True

    def _refuse(self, why: str) -> None:
        if self._ready is not None and not self._ready.done():
            error = IncompatibleNode("the program does not speak p2p-stdio/1", why=why)
            self._ready.set_exception(error)
            # Nobody asks for it if the start was cancelled.
            self._ready.exception()

    def _handle_exit(self, returncode: int) -> None:
        assert self._ready is not None and self._calls is not None, "it ran"
        self._returncode = returncode
        if not self._ready.done():
            self._ready.set_exception(self._start_failure or self.not_usable())
            # Nobody asks for it if the start was cancelled.
            self._ready.exception()
        self._calls.fail_all(self.not_usable)
        self._online.set()
        self.inbox.close(self._end_of_stream)
        for watcher in self._watchers:
            watcher.close(self._end_of_stream)

    def _end_of_stream(self) -> Exception:
        return StopAsyncIteration() if self._closing else self.not_usable()

    def not_usable(self) -> P2PError:
        """Why nothing can be asked of the node."""
        if self._process is None:
            return not_started()
        if self._closing or self._returncode is None:
            return NodeClosed("the node has been closed", code="shutting_down")
        if not self._greeted and self._returncode == EXIT_CODE_USAGE:
            return ConfigError(
                "the node does not take its arguments",
                code="config_invalid",
                why=" | ".join(filter(None, self._process.stderr_lines)),
                hint="p2p-node --help",
            )
        return NodeExited(
            f"the node ended with {_exit_text(self._returncode)}",
            returncode=self._returncode,
            stderr_lines=self._process.stderr_lines,
        )


class Watcher(Mailbox[Event]):
    """What one `events()` has not taken yet."""

    def __init__(self, check_use: Callable[[], None], kinds: tuple[type[Event], ...]) -> None:
        super().__init__(check_use)
        self._kinds = kinds

    def tell(self, event: Event) -> None:
        """Adds an event, if it is of the right kind."""
        if self._kinds and not isinstance(event, self._kinds):
            return
        if len(self) >= EVENTS_WAITING_MAX:
            self.drop_oldest()
        self.put(event)


def not_started() -> P2PError:
    """For what needs a node that runs."""
    hint = "await node.start(), or: async with node"
    return NodeClosed("the node has not been started", code="shutting_down", hint=hint)


def check_timeout(seconds: float) -> None:
    """Raises `ValueError` for what is no timeout."""
    if not 0 < seconds <= CALL_SECONDS_MAX:
        raise ValueError(f"a timeout is more than 0 and at most {CALL_SECONDS_MAX:g} seconds")


def _exit_text(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
