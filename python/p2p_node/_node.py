"""A node: its process, and the protocol `p2p-stdio/1` that it speaks over stdin and stdout."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

from ._binary import find_binary
from ._errors import ConfigError, IncompatibleNode, NodeClosed, NodeExited, P2PError, P2PTimeout, error_from
from ._events import (
    Connection,
    Event,
    Failed,
    NodeStatus,
    PeerStatus,
    Ready,
    Receipt,
    Warned,
    connection_from,
    event_from,
    node_status_from,
    peer_status_from,
    receipt_from,
)
from ._json import JSON, Fields, Malformed
from ._mailbox import Mailbox
from ._message import Message, Payload, Received, from_wire, to_wire
from ._process import Process, log

if TYPE_CHECKING:
    from typing_extensions import Self

Mode: TypeAlias = Literal["server", "client"]

StrPath: TypeAlias = "str | os.PathLike[str]"

PROTOCOL = 1
"""The version of `p2p-stdio` that this package speaks."""

CALL_SECONDS = 30.0
"""How long a call may take when nothing else is said: a dial, and a message over a slow link."""

CALL_SECONDS_MAX = 3_600.0
"""What the node takes as a timeout."""

QUESTION_SECONDS = 10.0
"""How long the node may take to answer from memory."""

ANSWER_MARGIN_SECONDS = 2.0
"""The node gives up first, because it knows better why; this is for its answer's way to us."""

DRAIN_SECONDS = 5.0
"""How long `close` lets running calls come to their end."""

INBOX_MESSAGES_MAX = 1_024
"""Messages that wait for `listen`. Beyond, the node is not read, and that slows their senders down."""

INBOX_BYTES_MAX = 32 * 1024 * 1024
"""The same for their payloads: two of the largest."""

EVENTS_WAITING_MAX = 1_024
"""Events that wait in one `events()`. Beyond, the oldest are dropped: they tell of what has passed."""

EXIT_CODE_USAGE = 2
"""What the program ends with when a flag or an environment variable is wrong."""

LINES_AT_ONCE = 64
"""Lines that are handled before other tasks get their turn."""


class P2PNode:
    """A node, run as a process of its own for as long as it is open.

        async with P2PNode(mode="client", service="myapi:v1") as node:
            await node.send("service", "hello")

    All waits end: a call fails after its timeout, and when the process dies every call and every
    `listen()` fails with its last words. A node belongs to the event loop that it was started in.
    """

    def __init__(
        self,
        *,
        mode: Mode,
        service: str | None = None,
        service_secret_file: StrPath | None = None,
        identity: StrPath | None = None,
        ephemeral: bool = False,
        allow: Sequence[str] = (),
        binary: StrPath | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        start_timeout: float = 15.0,
    ) -> None:
        """Describes a node; `start` starts it.

        `mode` says whether it serves `service` or looks for it. `service_secret_file` holds what only its
        peers know. `identity` is the file of its key, `ephemeral` gives it a fresh one. If `allow` names
        peers, only they may connect. `binary` is the program, `arguments` are further arguments for it, and
        `env` is added to its environment. `start_timeout` is in seconds.
        """
        options = [
            ("--service", service),
            ("--service-secret-file", service_secret_file),
            ("--identity", identity),
            *(("--allow", peer) for peer in allow),
        ]
        self._arguments = ["--mode", mode]
        for flag, value in options:
            if value is not None:
                # In one word, so that no value is ever taken for a flag.
                self._arguments.append(f"{flag}={os.fspath(value)}")
        if ephemeral:
            self._arguments.append("--ephemeral")
        self._arguments += arguments
        self._binary = binary
        self._env = dict(env or {})
        self._start_timeout = start_timeout

        self._process: Process | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[Ready] | None = None
        self._start_failure: P2PError | None = None
        self._greeted = False
        self._closing = False
        self._returncode: int | None = None
        self._call_ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Fields]] = {}
        self._abandoned: set[int] = set()
        self._inbox: Mailbox[Received] = Mailbox()
        self._inbox_bytes = 0
        self._watchers: weakref.WeakSet[Mailbox[Event]] = weakref.WeakSet()

    # Life.

    async def start(self) -> Self:
        """Starts the node; returns when calls work. It is found by others a little later: see `Online`.

        Raises `BinaryNotFound`, `ConfigError`, `NodeExited`, `IncompatibleNode` or `P2PTimeout`.
        """
        if self._process is not None:
            raise RuntimeError("a node can be started once; make another one")
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._process = Process(
            [str(find_binary(self._binary)), *self._arguments],
            env={**os.environ, **self._env},
            on_lines=self._pump,
            on_exit=self._handle_exit,
        )
        try:
            await asyncio.wait({self._ready}, timeout=self._start_timeout)
            if not self._ready.done():
                raise P2PTimeout(
                    f"the node was not ready within {self._start_timeout:g} s",
                    code="timeout",
                    why=" | ".join(self._process.stderr_lines) or "it wrote nothing to stderr",
                    hint="run the program by hand, or allow more with start_timeout",
                    retryable=True,
                )
            self._ready.result()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Ends the node, within some 15 seconds whatever happens. May be called again, and at any time.

        Calls under way have a few seconds to come to their end.
        """
        if self._process is None:
            return
        self._closing = True
        # What nobody waits for any more, such as the dial of a cancelled call, holds nothing up.
        drain_seconds = 0.0 if self._abandoned and not self._calls else DRAIN_SECONDS
        await self._process.stop(drain_seconds=drain_seconds)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def peer_id(self) -> str:
        """Who this node is: 52 characters."""
        return self.ready.peer_id

    @property
    def ticket(self) -> str:
        """What leads others to this node, and admits them. Hand it to nobody else."""
        return self.ready.ticket

    @property
    def ready(self) -> Ready:
        """What the node said when it had started."""
        if self._ready is None or not self._ready.done():
            raise NodeClosed("the node has not been started", code="shutting_down")
        return self._ready.result()

    @property
    def pid(self) -> int | None:
        """The process id; `None` before the start."""
        return None if self._process is None else self._process.pid

    # Talking to peers. A peer is named by its id, a ticket, `service`, or `@last` for the latest sender.

    async def send_message(self, peer_id: str, message: Message, *, timeout: float = CALL_SECONDS) -> Receipt:
        """Sends `message`, dialling first if need be; returns when the other node has handed it over.

        Raises what `connect` raises, and `MessageTooLarge`, `QueueFull`, `DeliveryUnknown`. Messages to one
        peer arrive in the order of the calls. A cancelled call's message may still arrive.
        """
        return await self._send(peer_id, message, timeout)

    async def send(
        self,
        peer_id: str,
        payload: Payload,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Receipt:
        """`send_message` with a message made of these parts."""
        message = Message.create(msg_type=msg_type, payload=payload, metadata=metadata)
        return await self._send(peer_id, message, timeout)

    async def connect(self, peer: str, *, timeout: float = CALL_SECONDS) -> Connection:
        """Opens a connection, or finds it open.

        Raises `PeerNotFound`, `PeerUnreachable`, `PeerIdentityMismatch`, `Refused`, `NetworkUnavailable`,
        `InvalidCall` or `P2PTimeout`.
        """
        return await self._connect(peer, timeout)

    async def disconnect(self, peer: str) -> None:
        """Ends a connection. Raises `PeerNotFound` if there is none."""
        await self._call("disconnect", QUESTION_SECONDS, peer=peer)

    async def peers(self) -> tuple[PeerStatus, ...]:
        """The connected peers, in the order of their ids."""
        answer = await self._call("list", QUESTION_SECONDS)
        return tuple(map(peer_status_from, answer.inners("peers")))

    async def status(self) -> NodeStatus:
        """How the node fares."""
        return node_status_from(await self._call("status", QUESTION_SECONDS))

    def listen(self) -> MessageStream:
        """The messages that arrive, for `async for`.

        Whoever does not take them slows their senders down; nothing is dropped.
        """
        if self._process is None:
            raise self._failure()
        return MessageStream(self._inbox, self._handle_taken)

    def events(self) -> EventStream:
        """What the node tells from here on, for `async for`. Also before the start."""
        watcher: Mailbox[Event] = Mailbox()
        if self._returncode is not None:
            watcher.close(self._end_of_stream)
        self._watchers.add(watcher)
        return EventStream(watcher)

    # Calls: a command goes out, an answer with its id comes in.

    async def _send(self, peer: str | None, message: Message, timeout: float) -> Receipt:
        wire = to_wire(message)
        return receipt_from(await self._call("send", timeout, peer=peer, message=wire))

    async def _connect(self, peer: str | None, timeout: float) -> Connection:
        return connection_from(await self._call("connect", timeout, peer=peer))

    async def _call(self, verb: str, timeout: float, **fields: JSON) -> Fields:
        if not 0 < timeout <= CALL_SECONDS_MAX:
            raise ValueError(f"a timeout is more than 0 and at most {CALL_SECONDS_MAX:g} seconds")
        if self._process is None or self._closing or self._returncode is not None:
            raise self._failure()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            raise RuntimeError("a node is used in the event loop that it was started in")
        call_id = next(self._call_ids)
        timeout_ms = max(1, round(timeout * 1_000))
        command = {"cmd": verb, "id": call_id, "timeout_ms": timeout_ms, **fields}
        line = json.dumps(command, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        answer: asyncio.Future[Fields] = loop.create_future()
        self._process.write(line)
        self._calls[call_id] = answer
        # The answer comes behind messages that perhaps nobody takes.
        loop.call_soon(self._pump)
        try:
            await asyncio.wait({answer}, timeout=timeout + ANSWER_MARGIN_SECONDS)
            if not answer.done():
                raise P2PTimeout(
                    f"the node did not answer {verb} within {timeout:g} s",
                    code="timeout",
                    why="it is busy, or has a bug",
                    hint="try again; RUST_LOG=debug in the environment makes it say more",
                    retryable=True,
                )
            return answer.result()
        finally:
            del self._calls[call_id]
            if not answer.done():
                self._abandoned.add(call_id)
            else:
                # The caller may have been cancelled at the same moment, and never look at it.
                answer.exception()

    # What the process tells.

    def _pump(self) -> None:
        """Handles waiting lines, unless there is no room for the messages among them."""
        assert self._process is not None, "only a started process has lines"
        for _ in range(LINES_AT_ONCE):
            # An answer that somebody waits for is let through together with the messages before it.
            if self._inbox_is_full() and not self._calls and not self._closing:
                return
            line = self._process.take()
            if line is None:
                return
            self._handle_line(line)
        asyncio.get_running_loop().call_soon(self._pump)

    def _handle_line(self, line: bytes) -> None:
        try:
            fields = Fields.parse(line)
            name = fields.text("event")
            if not self._greeted:
                self._handle_hello(name, fields)
            elif name == "message":
                self._handle_message(Received(fields.text("peer"), from_wire(fields.inner("message"))))
            elif name in ("ok", "error") and fields.has_integer("id"):
                self._handle_answer(name, fields.integer("id"), fields)
            else:
                self._handle_event(event_from(name, fields))
        except Malformed as error:
            if not self._greeted:
                self._refuse(str(error))
            log.error("a line of the node cannot be used: %s", error)

    def _handle_hello(self, name: str, fields: Fields) -> None:
        if name != "hello":
            raise Malformed(f"its first event is {name}, not hello")
        protocols = fields.integers("protocols")
        if PROTOCOL not in protocols:
            raise Malformed(f"it speaks version {protocols} of p2p-stdio, not {PROTOCOL}")
        self._greeted = True

    def _refuse(self, why: str) -> None:
        assert self._ready is not None, "only a started process says anything"
        if not self._ready.done():
            error = IncompatibleNode("the program does not speak p2p-stdio/1", why=why)
            self._ready.set_exception(error)
            # Nobody asks for it if the start was cancelled.
            self._ready.exception()

    def _handle_answer(self, name: str, call_id: int, fields: Fields) -> None:
        self._abandoned.discard(call_id)
        answer = self._calls.get(call_id)
        if answer is None or answer.done():
            return
        if name == "ok":
            answer.set_result(fields)
        else:
            answer.set_exception(error_from(fields))

    def _handle_message(self, received: Received) -> None:
        if self._closing and self._inbox_is_full():
            log.warning("a message of %s came while the node was being closed", received.peer)
            return
        self._inbox_bytes += len(received.message.payload)
        self._inbox.put(received)

    def _handle_event(self, event: Event) -> None:
        assert self._ready is not None, "only a started process has events"
        if isinstance(event, Ready) and not self._ready.done():
            self._ready.set_result(event)
        if isinstance(event, Failed):
            self._start_failure = event.error
            log.warning("%s", event.error)
        if isinstance(event, Warned):
            log.warning("%s", event.problem)
        for watcher in self._watchers:
            if len(watcher) >= EVENTS_WAITING_MAX:
                watcher.drop_oldest()
            watcher.put(event)

    def _handle_exit(self, returncode: int) -> None:
        assert self._process is not None and self._ready is not None, "it ran"
        # Calls and inbox are no limit any more: what is left is what the pipe held.
        while (line := self._process.take()) is not None:
            self._handle_line(line)
        self._returncode = returncode
        if not self._ready.done():
            self._ready.set_exception(self._start_failure or self._failure())
            # Nobody asks for it if the start was cancelled.
            self._ready.exception()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(self._failure())
        self._inbox.close(self._end_of_stream)
        for watcher in self._watchers:
            watcher.close(self._end_of_stream)

    def _handle_taken(self, received: Received) -> None:
        self._inbox_bytes -= len(received.message.payload)
        asyncio.get_running_loop().call_soon(self._pump)

    def _inbox_is_full(self) -> bool:
        return len(self._inbox) >= INBOX_MESSAGES_MAX or self._inbox_bytes >= INBOX_BYTES_MAX

    def _end_of_stream(self) -> Exception:
        return StopAsyncIteration() if self._closing else self._failure()

    def _failure(self) -> P2PError:
        """Why nothing can be asked of the node."""
        if self._process is None:
            hint = "await node.start(), or: async with node"
            return NodeClosed("the node has not been started", code="shutting_down", hint=hint)
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


class MessageStream:
    """The messages that arrive at a node.

    A class and not a generator, so that it stays usable when a wait for the next message is cancelled or
    timed out. Several streams of one node share its messages: each message goes to one of them.
    """

    def __init__(self, inbox: Mailbox[Received], on_taken: Callable[[Received], None]) -> None:
        self._inbox = inbox
        self._on_taken = on_taken

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> Received:
        """The next message. Ends when the node is closed; raises `NodeExited` if it died."""
        received = await self._inbox.take()
        self._on_taken(received)
        return received


class EventStream:
    """What a node tells. Each stream gets every event; a slow one loses the oldest."""

    def __init__(self, watcher: Mailbox[Event]) -> None:
        self._watcher = watcher

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        """The next event. Ends when the node is closed; raises `NodeExited` if it died."""
        return await self._watcher.take()


def _exit_text(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
