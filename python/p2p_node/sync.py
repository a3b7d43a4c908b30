"""The same for programs without an event loop: every call waits until it is done.

    from p2p_node import Message, sync

    with sync.P2PClient(service="myapi:v1") as client:
        client.send_message(Message.create(msg_type="request", payload="hello"))
        for message in client.listen(timeout=10):
            print(message.text())

Each node has an event loop in a thread of its own, so all of this works in a notebook, too, and in a
program whose own event loop is running. A node may be used from several threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from ._client import P2PClient as AsyncClient
from ._codec import Transport
from ._events import Event
from ._message import Message, Payload
from ._node import CALL_SECONDS, DRAIN_SECONDS, QUESTION_SECONDS, Content, Stream, StrPath
from ._node import P2PNode as AsyncNode
from ._records import Broadcast, Connection, NetCheck, NodeStatus, PeerStatus, Pong, Receipt
from ._server import P2PServer as AsyncServer
from ._session import not_started

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["P2PClient", "P2PNode", "P2PServer"]

_T = TypeVar("_T")
_N = TypeVar("_N", bound=AsyncNode)


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="p2p-node loop", daemon=True)
        self._thread.start()

    def wait_for(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs it there; Ctrl-C while waiting cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


class _Blocking(Generic[_N]):
    """What all kinds of nodes have; see the asynchronous ones for what the methods do."""

    def __init__(self, node: _N) -> None:
        self._node = node
        self._loop: _Loop | None = None

    def __repr__(self) -> str:
        return f"<sync.{type(self).__name__} {self._node!r}>"

    def start(self) -> Self:
        """See `p2p_node.P2PNode.start`."""
        if self._loop is not None:
            raise RuntimeError("the node is started already")
        self._loop = _Loop()
        try:
            self._wait(self._node.start())
        except BaseException:
            self._end()
            raise
        return self

    def close(self, *, drain: float = DRAIN_SECONDS) -> None:
        """See `p2p_node.P2PNode.close`."""
        if self._loop is not None:
            self._wait(self._node.close(drain=drain))
            self._end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def peer_id(self) -> str:
        """See `p2p_node.P2PNode.peer_id`."""
        return self._node.peer_id

    @property
    def ticket(self) -> str:
        """See `p2p_node.P2PNode.ticket`."""
        return self._node.ticket

    def wait_online(self, *, timeout: float = CALL_SECONDS) -> None:
        """See `p2p_node.P2PNode.wait_online`."""
        self._wait(self._node.wait_online(timeout=timeout))

    @overload
    def send_message(self, peer_id: Message, /, *, timeout: float = CALL_SECONDS) -> Receipt: ...
    @overload
    def send_message(self, peer_id: str, message: Message, *, timeout: float = CALL_SECONDS) -> Receipt: ...
    def send_message(
        self, peer_id: str | Message, message: Message | None = None, *, timeout: float = CALL_SECONDS
    ) -> Receipt:
        """See `p2p_node.P2PNode.send_message`."""
        if isinstance(peer_id, Message):
            return self._wait(self._node.send_message(peer_id, timeout=timeout))
        if message is None:
            raise TypeError("send_message(peer_id, message), or send_message(message)")
        return self._wait(self._node.send_message(peer_id, message, timeout=timeout))

    def send(
        self,
        peer_id: str,
        payload: Payload,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Receipt:
        """See `p2p_node.P2PNode.send`."""
        return self._wait(
            self._node.send(peer_id, payload, msg_type=msg_type, metadata=metadata, timeout=timeout)
        )

    def send_many(self, peer_id: str, contents: Iterable[Content], *, timeout: float = CALL_SECONDS) -> int:
        """See `p2p_node.P2PNode.send_many`. `contents` is taken from in the loop's thread."""
        return self._wait(self._node.send_many(peer_id, contents, timeout=timeout))

    def request(
        self,
        peer_id: str,
        content: Content,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Message:
        """See `p2p_node.P2PNode.request`."""
        return self._wait(
            self._node.request(peer_id, content, msg_type=msg_type, metadata=metadata, timeout=timeout)
        )

    def reply(
        self,
        to: Message,
        content: Content,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Receipt:
        """See `p2p_node.P2PNode.reply`."""
        return self._wait(
            self._node.reply(to, content, msg_type=msg_type, metadata=metadata, timeout=timeout)
        )

    def serve(self, handler: Callable[[Message], Content], *, concurrency: int = 16) -> None:
        """See `p2p_node.P2PNode.serve`; handlers run in threads, and Ctrl-C ends it."""

        async def handle(message: Message) -> Content:
            return await asyncio.to_thread(handler, message)

        self._wait(self._node.serve(handle, concurrency=concurrency))

    def broadcast(
        self,
        content: Content,
        *,
        msg_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float = CALL_SECONDS,
    ) -> Broadcast:
        """See `p2p_node.P2PNode.broadcast`."""
        return self._wait(
            self._node.broadcast(content, msg_type=msg_type, metadata=metadata, timeout=timeout)
        )

    def listen(self, *, timeout: float | None = None) -> Iterator[Message]:
        """The messages that arrive; ends with the node, or when none has come for `timeout` seconds."""
        return self._iterate(self._node.listen(), timeout)

    def __iter__(self) -> Iterator[Message]:
        return self.listen()

    def events(self, *names: str, timeout: float | None = None) -> Iterator[Event]:
        """What the node tells from here on; ends as `listen` does."""
        return self._iterate(self._node.events(*names), timeout)

    def connect(self, peer: str, *, timeout: float = CALL_SECONDS) -> Connection:
        """See `p2p_node.P2PNode.connect`."""
        return self._wait(self._node.connect(peer, timeout=timeout))

    def disconnect(self, peer: str, *, timeout: float = QUESTION_SECONDS) -> None:
        """See `p2p_node.P2PNode.disconnect`."""
        self._wait(self._node.disconnect(peer, timeout=timeout))

    def peers(self, *, timeout: float = QUESTION_SECONDS) -> tuple[PeerStatus, ...]:
        """See `p2p_node.P2PNode.peers`."""
        return self._wait(self._node.peers(timeout=timeout))

    def status(self, *, timeout: float = QUESTION_SECONDS) -> NodeStatus:
        """See `p2p_node.P2PNode.status`."""
        return self._wait(self._node.status(timeout=timeout))

    def ping(self, peer: str, *, timeout: float = QUESTION_SECONDS) -> Pong:
        """See `p2p_node.P2PNode.ping`."""
        return self._wait(self._node.ping(peer, timeout=timeout))

    def netcheck(
        self, peer: str | None = None, *, lifetime: float | None = None, timeout: float | None = None
    ) -> NetCheck:
        """See `p2p_node.P2PNode.netcheck`."""
        return self._wait(self._node.netcheck(peer, lifetime=lifetime, timeout=timeout))

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            coroutine.close()
            raise not_started()
        return self._loop.wait_for(coroutine)

    def _iterate(self, stream: Stream[_T], timeout: float | None) -> Iterator[_T]:
        async def take() -> tuple[_T] | None:
            try:
                return (await asyncio.wait_for(stream.__anext__(), timeout),)
            except (StopAsyncIteration, asyncio.TimeoutError):
                return None

        while (taken := self._wait(take())) is not None:
            yield taken[0]

    def _end(self) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loop = None


class P2PNode(_Blocking[AsyncNode]):
    """See `p2p_node.P2PNode`."""

    _kind: ClassVar[type[AsyncNode]] = AsyncNode

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
        """Describes a node, with the options of `p2p_node.P2PNode`; `start` starts it."""
        super().__init__(
            self._kind(
                service=service,
                service_secret_file=service_secret_file,
                identity=identity,
                ephemeral=ephemeral,
                allow=allow,
                outbox=outbox,
                transport=transport,
                binary=binary,
                arguments=arguments,
                env=env,
                start_timeout=start_timeout,
            )
        )


class P2PServer(P2PNode):
    """See `p2p_node.P2PServer`."""

    _kind = AsyncServer


class P2PClient(_Blocking[AsyncClient]):
    """See `p2p_node.P2PClient`."""

    def __init__(
        self,
        server: str | None = None,
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
        connect_timeout: float = 30.0,
    ) -> None:
        """Describes a client, with the options of `p2p_node.P2PClient`; `start` starts it."""
        super().__init__(
            AsyncClient(
                server,
                service=service,
                service_secret_file=service_secret_file,
                identity=identity,
                ephemeral=ephemeral,
                allow=allow,
                outbox=outbox,
                transport=transport,
                binary=binary,
                arguments=arguments,
                env=env,
                start_timeout=start_timeout,
                connect_timeout=connect_timeout,
            )
        )

    @property
    def server(self) -> Connection:
        """See `p2p_node.P2PClient.server`."""
        return self._node.server
