"""What the stand-in tells the program that has started it, on stdout."""

from __future__ import annotations

import os
import threading
from typing import Any

from .notation import Frames, Lines

stdout_lock = threading.Lock()
notation = Frames() if os.environ["P2P_NODE_STDIO"] == "protobuf" else Lines()


def write(encoded: bytes) -> None:
    with stdout_lock:
        rest = memoryview(encoded)
        while rest:
            rest = rest[os.write(1, rest) :]


def say(kind: str, **body: Any) -> None:
    write(notation.encode(kind, body))


def answer(call_id: object, **reply: Any) -> None:
    say("ok", id=call_id, **reply)


def fail(call_id: object, code: str, message: str, **more: Any) -> None:
    reason = {"code": code, "message": message, "why": "a test wants it", "hint": "look at the test"}
    say("error", id=call_id, reason=reason, **{"retryable": False, **more})


def message(number: int, payload: str = "x") -> dict[str, Any]:
    return {
        "id": f"m{number}",
        "type": "text",
        "payload": payload.encode(),
        "timestamp": 1_763_820_000_123,
        "metadata": {},
    }
