#!/usr/bin/env python3
"""A server to talk to from p2p_client.py: prints what arrives; what you type goes to the latest peer."""

from __future__ import annotations

import argparse
import sys

from p2p_node import Connected, Disconnected, Message, Online, P2PError, P2PServer, Warned
from p2p_node.terminal import TypedLines, printable, readable, run, short, until_one_ends


class Server:
    """A running server and the peer that was heard last."""

    def __init__(self, node: P2PServer) -> None:
        self.node = node
        self.latest: str | None = None

    def introduce(self) -> None:
        """Says who this is, and how to reach it."""
        service = self.node.ready.service
        print(f"server {self.node.peer_id} is ready")
        if service:
            print(f"  by its service:     python3 python/p2p_client.py --service {service}")
        else:
            print("  from this machine:  python3 python/p2p_client.py")
        print(f"  by its ticket:      python3 python/p2p_client.py {self.node.ticket}")
        print("type a line to send it to the peer that was heard last; Ctrl-C ends", flush=True)
        if self.node.ready.warning:
            print(f"note: {self.node.ready.warning}", file=sys.stderr, flush=True)

    async def show_messages(self) -> None:
        """Prints what arrives."""
        async for received in self.node.listen():
            self.latest = received.peer
            print(f"{short(received.peer)}: {readable(received.message)}", flush=True)

    async def show_events(self) -> None:
        """Prints who comes and goes."""
        async for event in self.node.events():
            match event:
                case Online(dht_nodes=count):
                    print(f"online: {count} DHT nodes know where this server is", flush=True)
                case Connected(connection):
                    self.latest = connection.peer
                    print(f"{short(connection.peer)} is connected ({connection.path.kind})", flush=True)
                case Disconnected(peer, reason):
                    print(f"{short(peer)} is gone: {printable(reason.message)}", flush=True)
                case Warned(problem):
                    print(problem.explain(), file=sys.stderr, flush=True)
                case _:
                    pass

    async def send_typed(self) -> None:
        """Sends what is typed, until the end of the input."""
        async for line in TypedLines():
            if self.latest is None:
                print("nobody has connected yet", flush=True)
                continue
            try:
                message = Message.create(msg_type="text", payload=line)
                await self.node.send_message(self.latest, message)
            except P2PError as error:
                print(error.explain(), file=sys.stderr, flush=True)


async def main() -> int:
    """Serves until Ctrl-C or the end of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", metavar="NAME", help="the name to be found by, such as myapi:v1")
    parser.add_argument("--service-secret-file", metavar="FILE", help="what only its clients know")
    parser.add_argument("--binary", metavar="FILE", help="the p2p-node program")
    options = parser.parse_args()
    node = P2PServer(
        service=options.service,
        service_secret_file=options.service_secret_file,
        binary=options.binary,
    )
    async with node:
        server = Server(node)
        server.introduce()
        await until_one_ends(server.show_messages(), server.show_events(), server.send_typed())
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
