#!/usr/bin/env python3
"""A client for p2p_server.py: sends what you type, prints what the server answers."""

import argparse
import sys

from p2p_node import P2PClient
from p2p_node.terminal import Conversation, add_node_options, greet, run


async def main() -> None:
    """Talks to the server until Ctrl-C or the end of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", nargs="?", help="a ticket or a peer id; else --service, or this machine's")
    add_node_options(parser)
    options = parser.parse_args()
    print("looking for the server …", flush=True)
    async with P2PClient(**vars(options)) as client:
        greet(client)
        await Conversation(client).run()


if __name__ == "__main__":
    sys.exit(run(main))
