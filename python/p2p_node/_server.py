"""The side that is found."""

from __future__ import annotations

from ._node import P2PNode


class P2PServer(P2PNode):
    """A node that others can find: by its service, its peer id or its ticket.

        server = P2PServer(service="myapi:v1")
        await server.start()
        async for message in server.listen():
            await server.reply(message, "got it")

    Without a service it is found on the same machine by a client that names nobody, and anywhere by its
    ticket. Its options are those of `P2PNode`.
    """

    _mode = "server"
