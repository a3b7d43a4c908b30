"""Where the program is looked for."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
import unittest
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import support as support  # It says where p2p_node is.

import p2p_node._binary
from p2p_node import BinaryNotFound, find_binary


class FindBinaryTest(unittest.TestCase):
    """A machine with nothing but this package's checkout in a temporary folder."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="p2p-")
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve()
        (self.root / "Cargo.toml").touch()
        module = self.root / "python" / "p2p_node" / "_binary.py"
        places = {"scripts": self.root / "venv" / "bin", "user": self.root / "user" / "bin"}

        def get_path(_name: str, scheme: str = "scripts") -> str:
            return str(places.get(scheme, places["user"]))

        patches = ExitStack()
        self.addCleanup(patches.close)
        patches.enter_context(mock.patch.object(p2p_node._binary, "__file__", str(module)))
        patches.enter_context(mock.patch.object(sysconfig, "get_path", get_path))
        environment = {"PATH": str(self.root / "path"), "P2P_NODE_BIN": ""}
        patches.enter_context(mock.patch.dict(os.environ, environment))
        os.environ.pop("CARGO_TARGET_DIR", None)

    def program(self, place: str) -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile("/bin/true", path)
        path.chmod(0o755)
        return path

    def test_the_places_are_tried_in_order(self) -> None:
        places = [
            "path/p2p-node",
            "target/debug/p2p-node",
            "target/release/p2p-node",
            "python/bin/p2p-node",
            "python/p2p_node/p2p-node",
            "user/bin/p2p-node",
            "venv/bin/p2p-node",
        ]
        for place in places:
            with self.subTest(place=place):
                program = self.program(place)
                self.assertEqual(find_binary(), program)

    def test_the_latest_build_is_taken(self) -> None:
        debug, release = self.program("target/debug/p2p-node"), self.program("target/release/p2p-node")
        for latest, other in [(debug, release), (release, debug)]:
            os.utime(latest, (2_000, 2_000))
            os.utime(other, (1_000, 1_000))
            self.assertEqual(find_binary(), latest)
        with mock.patch.dict(os.environ, {"CARGO_TARGET_DIR": str(self.root / "elsewhere")}):
            elsewhere = self.program("elsewhere/release/p2p-node")
            self.assertEqual(find_binary(), elsewhere)

    def test_what_is_named_comes_first(self) -> None:
        self.program("venv/bin/p2p-node")
        named, argument = self.program("named"), self.program("argument")
        with mock.patch.dict(os.environ, {"P2P_NODE_BIN": str(named)}):
            self.assertEqual(find_binary(), named)
            self.assertEqual(find_binary(argument), argument)

    def test_nothing_is_run_in_place_of_what_is_named(self) -> None:
        self.program("venv/bin/p2p-node")
        absent = str(self.root / "absent")
        with (
            mock.patch.dict(os.environ, {"P2P_NODE_BIN": absent}),
            self.assertRaises(BinaryNotFound) as caught,
        ):
            find_binary()
        self.assertEqual(caught.exception.places, (absent,))
        with self.assertRaises(FileNotFoundError):
            find_binary(absent)

    def test_the_error_lists_every_place(self) -> None:
        self.program("target/release/p2p-node").chmod(0o644)
        with self.assertRaises(BinaryNotFound) as caught:
            find_binary()
        expected = (
            f"{self.root}/venv/bin/p2p-node",
            f"{self.root}/user/bin/p2p-node",
            f"{self.root}/python/p2p_node/p2p-node",
            f"{self.root}/python/bin/p2p-node",
            f"{self.root}/target/release/p2p-node (not executable)",
            f"{self.root}/target/debug/p2p-node",
            f"PATH={self.root}/path",
        )
        self.assertEqual(caught.exception.places, expected)
        for place in expected:
            self.assertIn(place, str(caught.exception))
