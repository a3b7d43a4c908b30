#!/usr/bin/env python3
"""A client for p2p_server.py: sends what you type, prints what the server answers."""

from __future__ import annotations

import argparse
import sys

from p2p_node import Connected, Disconnected, Message, P2PClient, P2PError, Warned
from p2p_node.terminal import TypedLines, printable, readable, run, short, until_one_ends


async def show_messages(client: P2PClient) -> None:
    """Prints what arrives."""
    async for received in client.listen():
        print(f"{short(received.peer)}: {readable(received.message)}", flush=True)


async def show_events(client: P2PClient) -> None:
    """Prints when the connection comes and goes."""
    async for event in client.events():
        match event:
            case Connected(connection):
                print(f"connected to {short(connection.peer)} again", flush=True)
            case Disconnected(peer, reason):
                print(f"{short(peer)} is gone: {printable(reason.message)}", flush=True)
            case Warned(problem):
                print(problem.explain(), file=sys.stderr, flush=True)
            case _:
                pass


async def send_typed(client: P2PClient) -> None:
    """Sends what is typed, until the end of the input."""
    async for line in TypedLines():
        try:
            receipt = await client.send_message(Message.create(msg_type="text", payload=line))
            print(f"delivered in {receipt.rtt_ms:.1f} ms", flush=True)
        except P2PError as error:
            print(error.explain(), file=sys.stderr, flush=True)


async def main() -> int:
    """Talks to the server until Ctrl-C or the end of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "server", nargs="?", help="a ticket or a peer id; else the service's, or this machine's"
    )
    parser.add_argument("--service", metavar="NAME", help="the server's service, such as myapi:v1")
    parser.add_argument("--service-secret-file", metavar="FILE", help="what only its clients know")
    parser.add_argument("--binary", metavar="FILE", help="the p2p-node program")
    options = parser.parse_args()
    client = P2PClient(
        options.server,
        service=options.service,
        service_secret_file=options.service_secret_file,
        binary=options.binary,
    )
    print("looking for the server …", flush=True)
    async with client:
        link = client.server
        print(f"connected to {link.peer} ({link.path.kind}, {link.rtt_ms:.1f} ms)")
        print("type a line to send it; Ctrl-C ends", flush=True)
        await until_one_ends(show_messages(client), show_events(client), send_typed(client))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
