"""The lines that p2p-node is proved to write, read by this package."""

from __future__ import annotations

import unittest

from support import PYTHON_FOLDER

from p2p_node import Failed, OtherEvent
from p2p_node._events import event_from
from p2p_node._json import Fields
from p2p_node._message import message_from
from p2p_node._records import connection_from, node_status_from, peer_status_from, receipt_from

TRANSCRIPTS = PYTHON_FOLDER.parent / "tests" / "transcripts"


class TranscriptTest(unittest.TestCase):
    def setUp(self) -> None:
        if not TRANSCRIPTS.is_dir():
            self.skipTest(f"{TRANSCRIPTS} is not in this checkout")

    def test_every_line_is_understood(self) -> None:
        seen: set[str] = set()
        for path in sorted(TRANSCRIPTS.glob("*.txt")):
            for line in path.read_text().split("\n"):
                if line.startswith("< {"):
                    with self.subTest(path=path.name, line=line):
                        seen.add(understand(Fields.parse(line[2:].encode())))
        self.assertLessEqual({"hello", "ready", "message", "bye", "send", "connect", "list", "status"}, seen)


def understand(fields: Fields) -> str:
    """Reads a line as a node's user would; returns what kind of line it is."""
    name = fields.text("event")
    match name:
        case "hello":
            assert fields.integers("protocols") == (1,)
        case "message":
            message_from(fields)
        case "ok":
            return understand_answer(fields)
        case _:
            event = event_from(name, fields)
            assert not isinstance(event, OtherEvent), name
            assert not isinstance(event, Failed) or event.error.code
    return name


def understand_answer(fields: Fields) -> str:
    if fields.has("message_id"):
        receipt_from(fields)
        return "send"
    if fields.has("took_ms"):
        connection_from(fields)
        return "connect"
    if fields.has("peer_id"):
        node_status_from(fields)
        return "status"
    if fields.has("peers"):
        for peer in fields.inners("peers"):
            peer_status_from(peer)
        return "list"
    return "ok"
