"""The examples, as their first lines say to run them, on an offline network."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from unittest import mock

from support import PYTHON_FOLDER, WAIT_SECONDS, NodeTestCase, Terminal, real_binary

from p2p_node import P2PClient
from p2p_node.testing import Testnet

EXAMPLES = PYTHON_FOLDER / "examples"


class ExampleTest(NodeTestCase):
    binary: Path
    testnet: Testnet

    @classmethod
    def setUpClass(cls) -> None:
        cls.binary = real_binary()
        cls.testnet = Testnet(binary=cls.binary)
        cls.addClassCleanup(cls.testnet.close)

    def setUp(self) -> None:
        super().setUp()
        mine = {
            **self.testnet.environment,
            "P2P_NODE_BIN": str(self.binary),
            "PYTHONPATH": str(PYTHON_FOLDER),
        }
        environment = mock.patch.dict(os.environ, mine)
        environment.start()
        self.addCleanup(environment.stop)

    def open(self, example: str, *arguments: str) -> Terminal:
        terminal = Terminal(f"examples/{example}", *arguments)
        self.addCleanup(terminal.stop)
        return terminal

    def run_example(self, example: str, *arguments: str) -> str:
        command = [sys.executable, str(EXAMPLES / example), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=3 * WAIT_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    async def test_echo_server(self) -> None:
        self.open("echo_server.py").wait_for("echoes as echo:v1")
        async with P2PClient(service="echo:v1") as client:
            answer = await client.request("service", "hello", timeout=WAIT_SECONDS)
        self.assertEqual((answer.text(), answer.type), ("hello", "text"))

    def test_chat(self) -> None:
        host = self.open("chat.py", "host", "kitchen")
        host.wait_for("the room kitchen is open")
        guests = [self.open("chat.py", "join", "kitchen") for _ in range(2)]
        for guest in guests:
            guest.wait_for("you are in kitchen")
        guests[0].type("is anybody there?")
        for one in [host, *guests]:
            one.wait_for(": is anybody there?")
        host.type("me")
        for guest in guests:
            guest.wait_for("host: me")

    def test_request_reply(self) -> None:
        self.open("request_reply.py", "serve").wait_for("adding up")
        self.assertEqual(self.run_example("request_reply.py", "1", "2", "39"), "{'sum': 42.0}\n")

    def test_send_file(self) -> None:
        source, folder = self.folder / "photo.jpg", self.folder / "received"
        folder.mkdir()
        source.write_bytes(secrets.token_bytes(3_500_000))
        receiver = self.open("send_file.py", "receive", str(folder))
        ticket = receiver.wait_for("p2p1").strip()
        self.assertIn("delivered and checked", self.run_example("send_file.py", "send", ticket, str(source)))
        receiver.wait_for("received photo.jpg, 3500000 bytes")
        self.assertEqual((folder / "photo.jpg").read_bytes(), source.read_bytes())

    def test_two_nodes(self) -> None:
        self.assertEqual(self.run_example("two_nodes.py").splitlines()[1:], ["delivered", "42 True"])

    def test_every_example_is_run(self) -> None:
        source = Path(__file__).read_text()
        for example in EXAMPLES.glob("*.py"):
            self.assertIn(f"def test_{example.stem}(", source)
