"""Errors: which code becomes which exception, and what they tell."""

from __future__ import annotations

import copy
import pickle
import re
import unittest

from support import PYTHON_FOLDER

import p2p_node
from p2p_node import NodeExited, P2PError, PeerNotFound, PeerUnreachable
from p2p_node._errors import CLASS_OF_CODE, error_from
from p2p_node._json import Fields


class ErrorTest(unittest.TestCase):
    def test_every_code_of_the_node_has_its_exception(self) -> None:
        source = (PYTHON_FOLDER.parent / "src" / "failure.rs").read_text()
        codes = set(re.findall(r'Self::\w+ => "(\w+)"', source))
        self.assertEqual(codes, set(CLASS_OF_CODE))

    def test_an_event_becomes_an_error_with_all_it_tells(self) -> None:
        fields = {
            "event": "error",
            "id": 8,
            "code": "punch_timeout",
            "message": "no answer",
            "why": "312 probes",
            "hint": "p2p-node netcheck",
            "retryable": True,
            "peer": "m2ka",
            "elapsed_ms": 10_003,
        }
        error = error_from(Fields(fields))
        self.assertIs(type(error), PeerUnreachable)
        told = {name: getattr(error, name) for name in fields if name not in ("event", "id")}
        self.assertEqual(told, {name: fields[name] for name in told})
        self.assertEqual(str(error), "no answer [punch_timeout] (312 probes); p2p-node netcheck")
        self.assertEqual(
            error.explain(),
            "error[punch_timeout]: no answer\n  why: 312 probes\n  try: p2p-node netcheck",
        )

    def test_an_unknown_code_of_a_newer_node_is_an_error_too(self) -> None:
        error = error_from(Fields({"code": "moon_phase", "message": "wrong moon"}))
        self.assertIs(type(error), P2PError)
        self.assertEqual((error.code, error.retryable, error.peer), ("moon_phase", False, None))

    def test_pythons_own_exceptions_catch_ours(self) -> None:
        for code, base in [
            ("peer_not_found", LookupError),
            ("punch_timeout", ConnectionError),
            ("refused", PermissionError),
            ("timeout", TimeoutError),
            ("message_too_large", ValueError),
        ]:
            with self.subTest(code=code), self.assertRaises(base):
                raise error_from(Fields({"code": code, "message": ""}))

    def test_errors_survive_copying_and_pickling(self) -> None:
        dead = NodeExited("it died", returncode=70, stderr_lines=["panicked"])
        for error in [PeerNotFound("nobody", code="peer_not_found", why="8 nodes", retryable=True), dead]:
            for copied in [copy.copy(error), pickle.loads(pickle.dumps(error))]:
                self.assertEqual(vars(copied), vars(error))
                self.assertEqual(str(copied), str(error))

    def test_all_exceptions_can_be_imported(self) -> None:
        for kind in {*CLASS_OF_CODE.values(), *P2PError.__subclasses__()}:
            self.assertIs(getattr(p2p_node, kind.__name__), kind)
