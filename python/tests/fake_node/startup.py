"""How this stand-in was started: who it is, what it is to do wrong, and its flags."""

from __future__ import annotations

import os
import secrets
import sys

ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
PEER_ID = "".join(ALPHABET[byte % 32] for byte in secrets.token_bytes(52))
BEHAVIOURS = {
    "other-protocol": "hello names a version that nobody speaks",
    "no-json": "the first line is no JSON, and no frame either",
    "no-hello": "the first event is not hello",
    "silent": "nothing is ever said",
    "key-in-use": "the start fails, as the real program would say it",
    "dies-at-once": "the process ends without a word on stdout",
    "wrong-flag": "the command line is refused",
    "stubborn": "neither the end of stdin nor SIGTERM ends it",
    "newer": "unknown events and unknown keys are among what it says",
    "server-comes-late": "the first two dials find nobody",
    "reads-nothing": "no command is ever read",
}
BEHAVIOUR = os.environ.get("FAKE_NODE", "")
assert BEHAVIOUR == "" or BEHAVIOUR in BEHAVIOURS


def option(name: str) -> str | None:
    for argument in sys.argv[1:]:
        if argument.startswith(name + "="):
            return argument[len(name) + 1 :]
    return None
