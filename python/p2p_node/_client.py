"""The side that looks for a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ._codec import Transport
from ._errors import P2PError
from ._node import P2PNode, StrPath
from ._records import Connection
from ._session import not_started

if TYPE_CHECKING:
    from typing_extensions import Self

RETRY_SECONDS = 0.5
"""Between two attempts to reach a server that is not there yet."""


class P2PClient(P2PNode):
    """A node with one server that it talks to.

        client = P2PClient(service="myapi:v1")
        await client.start()
        await client.send_message(Message.create(msg_type="request", payload="hello"))

    The server is `server`, a ticket or a peer id; else one of `service`; else the one on this machine. A
    message that names no peer goes to it; it is looked for anew if the connection was lost meanwhile.
    """

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
        """Describes a client; `start` starts and connects it.

        `connect_timeout` is in seconds; the other options are those of `P2PNode`.
        """
        super().__init__(
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
        self._default_peer = server
        self._connect_timeout = connect_timeout
        self._server: Connection | None = None

    @property
    def server(self) -> Connection:
        """The connection that `start` made."""
        if self._server is None:
            raise not_started()
        return self._server

    async def start(self) -> Self:
        """Starts the node and connects it, waiting for a server that is not there yet.

        Raises what `P2PNode.start` and `connect` raise.
        """
        await super().start()
        try:
            self._server = await self._reach_server()
        except BaseException:
            await self.close()
            raise
        return self

    async def _reach_server(self) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_timeout
        while True:
            try:
                return await self._connect(self._default_peer, max(0.1, deadline - loop.time()))
            except P2PError as error:
                if not self._may_come(error) or loop.time() + RETRY_SECONDS >= deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    def _may_come(self, error: P2PError) -> bool:
        """Whether a server may be there a little later."""
        # A call that names nobody is invalid only for want of a server on this machine.
        return error.retryable or (self._default_peer is None and error.code == "invalid_argument")
