"""A node, as programs use it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeAlias, TypeVar, overload

from ._batch import Batch
from ._codec import Transport, choose_codec
from ._errors import NotReady
from ._events import EVENT_NAMES, Event, Ready
from ._json import JSON
from ._mailbox import Mailbox
from ._message import Message, Payload
from ._process import log
from ._records import (
    Broadcast,
    Connection,
    NetCheck,
    NodeStatus,
    PeerStatus,
    Pong,
    Receipt,
    broadcast_from,
    connection_from,
    netcheck_from,
    node_status_from,
    peer_status_from,
    pong_from,
)
from ._session import Session, check_timeout, not_started

if TYPE_CHECKING:
    from typing_extensions import Self

_T = TypeVar("_T")

StrPath: TypeAlias = "str | os.PathLike[str]"

Content: TypeAlias = "Payload | Message"
"""What to send: a ready message, or a payload to make one of."""

Handler: TypeAlias = Callable[[Message], Awaitable["Content"]]
"""Answers a message: with what it returns, or with nothing if that is `None`."""

CALL_SECONDS = 30.0
"""How long a call may take when nothing else is said: a dial, and a message over a slow link."""

QUESTION_SECONDS = 10.0
"""How long the node may take to answer from memory."""

DRAIN_SECONDS = 5.0
"""How long `close` lets running calls come to their end."""


class P2PNode:
    """A node that others cannot look up, run as a process of its own for as long as it is open.

        async with P2PNode(service="myapi:v1") as node:
            await node.send("service", "hello")

    `P2PServer` is one that can be looked up, `P2PClient` one that talks to one server.

    A peer is named by its id, by a ticket, as `service`, or as `@last`: who sent the latest message. All
    times are in seconds, except where a name ends in `_ms`. All waits end: a call fails after its timeout,
    and when the process dies every call and every `listen()` fails with its last words. A node belongs to
    the event loop that it was started in, and to the process: a fork of it cannot use it.
    """

    _mode: ClassVar[Literal["server", "client"]] = "client"

    def __init__(
        self,
        *,
        service: str | None = None,
        service_secret_file: StrPath | None = None,
        identity: StrPath | None = None,
        ephemeral: bool = False,
        allow: Sequence[str] = (),
        outbox: StrPath | None = None,
        transport: Transport = "auto",
        binary: StrPath | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        start_timeout: float = 15.0,
    ) -> None:
        """Describes a node; `start` starts it.

        `service` is what a server offers and others look for; `service_secret_file` holds what only its
        peers know. `identity` is the file of the node's key, `ephemeral` gives it a fresh one. If `allow`
        names peers, only they may connect. `outbox` is a directory in which messages wait, also over
        restarts: then `send` gives a receipt in the state `queued` when its time is over, and the event
        `Delivered` comes later. `transport` is how to talk to the program: `protobuf` frames,
        `json` lines, or `auto`, which is frames if the package `protobuf` is installed. `binary` is the
        program, `arguments` are further arguments for it, and `env` is added to its environment.
        `start_timeout` is in seconds. Raises `ImportError` if `transport` needs what is not installed.
        """
        options = [
            ("--service", service),
            ("--service-secret-file", service_secret_file),
            ("--identity", identity),
            ("--outbox", outbox),
            *(("--allow", peer) for peer in allow),
        ]
        codec = choose_codec(transport)
        words = ["--mode", self._mode]
        for flag, value in options:
            if value is not None:
                # In one word, so that no value is ever taken for a flag.
                words.append(f"{flag}={os.fspath(value)}")
        if ephemeral:
            words.append("--ephemeral")
        self._session = Session(codec, binary, [*words, *arguments], dict(env or {}))
        self._start_timeout = start_timeout
        self._default_peer: str | None = None

    def __repr__(self) -> str:
        ready = self._session.ready
        state = "not started" if ready is None else ready.peer_id[:8]
        if self._session.pid is not None and not self._session.is_open:
            state = "ended"
        return f"<{type(self).__name__} {state}>"

    # Life.

    async def start(self) -> Self:
        """Starts the node; returns when calls work. It is found by others a little later: `wait_online`.

        Raises `BinaryNotFound`, `ConfigError`, `NodeExited`, `IncompatibleNode` or `P2PTimeout`.
        """
        if self._session.pid is not None:
            raise RuntimeError("a node can be started once; make another one")
        try:
            await self._session.start(self._start_timeout)
        except BaseException:
            await self.close()
            raise
        return self

    async def wait_online(self, *, timeout: float = CALL_SECONDS) -> None:
        """Waits until others can find this node.

        Raises `P2PTimeout`, `NodeClosed` or `NodeExited`, and `NotReady` if the node is no server: what
        publishes nothing is never found.
        """
        if self._mode != "server":
            raise NotReady(
                "a client never goes online",
                code="not_ready",
                why="it publishes nothing",
                hint="use P2PServer",
            )
        await self._session.wait_online(timeout)

    async def close(self, *, drain: float = DRAIN_SECONDS) -> None:
        """Ends the node, within `drain` and some 10 seconds whatever happens. May be called at any time.

        Calls under way have `drain` seconds to come to their end.
        """
        await self._session.close(drain)

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
        ready = self._session.ready
        if ready is None:
            raise not_started()
        return ready

    @property
    def pid(self) -> int | None:
        """The process id; `None` before the start."""
        return self._session.pid

    # Talking to peers.

    @overload
    async def send_message(self, peer_id: Message, /, *, timeout: float = CALL_SECONDS) -> Receipt: ...
    @overload
    async def send_message(
        self, peer_id: str, message: Message, *, timeout: float = CALL_SECONDS
    ) -> Receipt: ...
    async def send_message(
        self, peer_id: str | Message, message: Message | None = None, *, timeout: float = CALL_SECONDS
    ) -> Receipt:
        """Sends `message`, dialling first if need be; returns when the other node has handed it over.

        Without a peer it goes to the one that the node was made for. Awaiting it is all the flow control
        that is needed: however many are sent at once, each waits for its turn within its timeout. Messages
        to one peer arrive in the order of the calls. A cancelled call's message may still arrive.

        Raises what `connect` raises, and `MessageTooLarge` or `DeliveryUnknown`.
        """
        if isinstance(peer_id, Message):
            return await self._send(self._default_peer, peer_id, timeout)
        if message is None:
            raise TypeError("send_message(peer_id, message), or send_message(message)")
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

    async def send_many(
        self,
        peer_id: str,
        contents: Iterable[Content] | AsyncIterable[Content],
        *,
        timeout: float = CALL_SECONDS,
    ) -> int:
        """Sends many messages, in order; returns how many arrived, which is all of them.

        The fastest way: `contents` is taken from as the peer keeps up, some 1,000 messages ahead. `timeout`
        is for each message. Raises the first failure; what comes after it is not sent, or may not arrive.
        """
        check_timeout(timeout)
        batch = Batch(self._session.usable_calls(), asyncio.get_running_loop(), peer_id, timeout)
        if isinstance(contents, AsyncIterable):
            return await batch.send(_message_of(content) async for content in contents)
        return await batch.send(_message_of(content) for content in contents)

    async def request(
        self,
        peer_id: str,
        content: Content,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Message:
        """Sends a message and returns the one that the other program answers it with.

        `msg_type` and `metadata` are for a payload; a ready message has its own. Raises what `send_message`
        raises, and `NoReply` if the message has arrived and nobody answered it in time.
        """
        message = _message_of(content, msg_type, metadata)
        return self._session.codec.message(
            await self._session.call_with("request", peer_id, "", message, timeout)
        )

    async def reply(
        self,
        to: Message,
        content: Content,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Receipt:
        """Answers a message that has arrived: whoever sent it with `request` gets this.

        Raises what `send_message` raises, and `ValueError` if `to` is a message of our own.
        """
        if to.sender is None:
            raise ValueError("a reply is to a message that has arrived")
        message = _message_of(content, msg_type, metadata)
        return self._session.codec.receipt(
            await self._session.call_with("reply", to.sender, to.id, message, timeout)
        )

    async def serve(self, handler: Handler, *, concurrency: int = 16) -> None:
        """Answers messages with what `handler` returns (`None`: nothing), until the node is closed.

        So many handlers run at once as `concurrency` says; with 1 the messages are handled in their order.
        A handler that raises is logged, and its message stays unanswered. Raises `NodeExited` if the node
        dies.
        """
        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        workers = [asyncio.ensure_future(self._work(handler)) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, handler: Handler) -> None:
        async for message in self.listen():
            try:
                answer = await handler(message)
                if answer is not None:
                    await self.reply(message, answer)
            except Exception:
                if not self._session.is_open:
                    continue
                log.exception("a message of %s was not answered", message.sender)

    async def broadcast(
        self,
        content: Content,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Broadcast:
        """Sends one message to every connected peer; says who has it, and who not and why."""
        message = _message_of(content, msg_type, metadata)
        reply = await self._session.call_with("broadcast", None, "", message, timeout)
        return broadcast_from(self._session.codec.fields(reply))

    def listen(self) -> MessageStream:
        """The messages that arrive, for `async for`.

        Whoever does not take them slows their senders down; nothing is dropped.
        """
        if self._session.pid is None:
            raise not_started()
        return MessageStream(self._session.inbox)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self.listen()

    def events(self, *names: str) -> EventStream:
        """What the node tells from here on, for `async for`. Also before the start.

        With `names`, such as `connected`, only those events; `ValueError` if there are none of that name.
        """
        for name in names:
            if name not in EVENT_NAMES:
                raise ValueError(f"no event is called {name!r}; there are {', '.join(EVENT_NAMES)}")
        kinds = tuple(EVENT_NAMES[name] for name in names)
        return EventStream(self._session.watch(kinds))

    # About peers and the network.

    async def connect(self, peer: str, *, timeout: float = CALL_SECONDS) -> Connection:
        """Opens a connection, or finds it open.

        Raises `PeerNotFound`, `PeerUnreachable`, `PeerIdentityMismatch`, `Refused`, `NetworkUnavailable`,
        `InvalidCall` or `P2PTimeout`.
        """
        return await self._connect(peer, timeout)

    async def disconnect(self, peer: str, *, timeout: float = QUESTION_SECONDS) -> None:
        """Ends a connection. Raises `PeerNotFound` if there is none."""
        await self._session.ask("disconnect", timeout, peer=peer)

    async def peers(self, *, timeout: float = QUESTION_SECONDS) -> tuple[PeerStatus, ...]:
        """The connected peers, in the order of their ids."""
        answer = await self._session.ask("list", timeout)
        return tuple(map(peer_status_from, answer.inners("peers")))

    async def status(self, *, timeout: float = QUESTION_SECONDS) -> NodeStatus:
        """How the node fares."""
        return node_status_from(await self._session.ask("status", timeout))

    async def ping(self, peer: str, *, timeout: float = QUESTION_SECONDS) -> Pong:
        """Asks a connected peer's node for an answer, through queues and all.

        Raises `PeerNotFound` if it is not connected, `P2PTimeout` if it does not answer.
        """
        return pong_from(await self._session.ask("ping", timeout, peer=peer))

    async def netcheck(
        self, peer: str | None = None, *, lifetime: float | None = None, timeout: float | None = None
    ) -> NetCheck:
        """What this network lets through, and which kinds of peers will be reached from it.

        With a `peer`, also whether that one will be, by which way and how quickly: it is looked up and not
        dialled. With a `lifetime` of 4 to 600 seconds, it is measured how long the NAT keeps a mapping that
        nothing goes through, with silences of up to so long. It takes five seconds at most, and what the
        measurement takes; when `timeout` is over, what is known by then is told.
        """
        fields: dict[str, JSON] = {}
        if peer is not None:
            fields["peer"] = peer
        if lifetime is not None:
            fields["lifetime_ms"] = round(lifetime * 1_000)
        seconds = CALL_SECONDS + (lifetime or 0) if timeout is None else timeout
        return netcheck_from(await self._session.ask("netcheck", seconds, **fields))

    async def _send(self, peer: str | None, message: Message, timeout: float) -> Receipt:
        return self._session.codec.receipt(await self._session.call_with("send", peer, "", message, timeout))

    async def _connect(self, peer: str | None, timeout: float) -> Connection:
        return connection_from(await self._session.ask("connect", timeout, peer=peer))


class Stream(Generic[_T]):
    """What comes from a node, for `async for`.

    A class and not a generator, so that it stays usable when a wait for the next item is cancelled or timed
    out. It ends when the node is closed, and raises `NodeExited` if it died.
    """

    def __init__(self, mailbox: Mailbox[_T]) -> None:
        self._mailbox = mailbox

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """The next one."""
        return await self._mailbox.take()


class MessageStream(Stream[Message]):
    """The messages that arrive at a node. Several streams of one node share them."""


class EventStream(Stream[Event]):
    """What a node tells. Each stream gets every event; a slow one loses the oldest."""


def _message_of(
    content: Content, msg_type: str | None = None, metadata: Mapping[str, str] | None = None
) -> Message:
    if isinstance(content, Message):
        if msg_type is not None or metadata is not None:
            raise TypeError("a ready message has its own type and metadata")
        return content
    return Message.create(msg_type=msg_type, payload=content, metadata=metadata)
