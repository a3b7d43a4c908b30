#!/usr/bin/env python3
"""A server to talk to from p2p_client.py: prints what arrives; what you type goes to the latest peer."""

import argparse
import sys

from p2p_node import P2PServer
from p2p_node.terminal import Conversation, add_node_options, introduce, run


async def main() -> None:
    """Serves until Ctrl-C or the end of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_node_options(parser)
    async with P2PServer(**vars(parser.parse_args())) as server:
        introduce(server)
        await Conversation(server).run()


if __name__ == "__main__":
    sys.exit(run(main))
