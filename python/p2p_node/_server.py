"""The side that is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ._node import P2PNode, StrPath


class P2PServer(P2PNode):
    """A node that others can find: by its service, its peer id or its ticket.

        server = P2PServer(service="myapi:v1")
        await server.start()
        async for received in server.listen():
            await server.send(received.peer, "got it")

    Without a service it is found on the same machine by a client that names nobody, and anywhere by its
    ticket.
    """

    def __init__(
        self,
        *,
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
        """Describes a server; `start` starts it. The parameters are those of `P2PNode`."""
        super().__init__(
            mode="server",
            service=service,
            service_secret_file=service_secret_file,
            identity=identity,
            ephemeral=ephemeral,
            allow=allow,
            binary=binary,
            arguments=arguments,
            env=env,
            start_timeout=start_timeout,
        )
