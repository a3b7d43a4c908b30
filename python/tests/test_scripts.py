"""The two scripts, as somebody runs them in two terminals of one machine."""

from __future__ import annotations

import os
import signal
import unittest
from pathlib import Path

from support import FAKE_NODE, NodeTestCase, Terminal, is_running, real_binary, wait_until_gone


class TwoTerminals:
    """What both scripts promise, with whatever program `binary` names."""

    class Promises(NodeTestCase):
        binary: Path

        def open(self, script: str, *arguments: str) -> Terminal:
            terminal = Terminal(script, *arguments, binary=self.binary)
            self.addCleanup(terminal.stop)
            return terminal

        def open_both(self, *arguments: str) -> tuple[Terminal, Terminal]:
            server = self.open("p2p_server.py", *arguments)
            server.wait_for("Ctrl-C ends")
            client = self.open("p2p_client.py", *arguments)
            client.wait_for("Ctrl-C ends")
            return server, client

        def talk(self, server: Terminal, client: Terminal) -> None:
            client.type("hello from the client")
            server.wait_for(": hello from the client")
            client.wait_for("delivered in")
            server.type("and grüße back")
            client.wait_for(": and grüße back")

        def test_a_typed_line_arrives_and_ctrl_c_ends_all(self) -> None:
            server, client = self.open_both()
            self.talk(server, client)
            nodes = [server.node_pid(), client.node_pid()]
            for terminal in (client, server):
                terminal.press_ctrl_c()
                self.assertEqual(terminal.wait(), 0, terminal.output.decode())
                self.assertNotIn(b"Traceback", terminal.output)
            for pid in nodes:
                self.assertFalse(is_running(pid))

        def test_a_client_finds_its_service(self) -> None:
            self.talk(*self.open_both("--service", "myapi:v1"))

        def test_the_end_of_the_input_ends_all_when_all_is_delivered(self) -> None:
            server, client = self.open_both()
            nodes = [server.node_pid(), client.node_pid()]
            client.type("last words")
            client.end_input()
            self.assertEqual(client.wait(), 0, client.output.decode())
            self.assertIn(b"delivered in", client.output)
            server.wait_for("last words")
            server.end_input()
            self.assertEqual(server.wait(), 0, server.output.decode())
            for pid in nodes:
                self.assertFalse(is_running(pid))

        def test_a_server_that_goes_away_is_noticed_and_found_again(self) -> None:
            server, client = self.open_both()
            self.talk(server, client)
            server.press_ctrl_c()
            server.wait()
            client.wait_for(" is gone: ")
            server = self.open("p2p_server.py")
            server.wait_for("Ctrl-C ends")
            self.talk(server, client)

        def test_nodes_end_when_python_is_killed(self) -> None:
            server, client = self.open_both()
            nodes = [server.node_pid(), client.node_pid()]
            for terminal in (client, server):
                os.kill(terminal.process.pid, signal.SIGKILL)
                terminal.wait()
            wait_until_gone(nodes)

        def test_ctrl_c_while_nothing_is_connected_yet(self) -> None:
            server = self.open("p2p_server.py")
            server.wait_for("Ctrl-C ends")
            server.type("is anybody there?")
            server.wait_for("nobody has connected yet")
            node = server.node_pid()
            server.press_ctrl_c()
            self.assertEqual(server.wait(), 0, server.output.decode())
            self.assertFalse(is_running(node))


@unittest.skipUnless(Path("/proc/self/task").exists(), "processes are looked up in /proc")
class FakeScriptsTest(TwoTerminals.Promises):
    """With the stand-in."""

    binary = FAKE_NODE

    def test_an_error_says_what_why_and_what_to_do(self) -> None:
        os.environ["FAKE_NODE"] = "key-in-use"
        for script in ("p2p_server.py", "p2p_client.py"):
            terminal = self.open(script)
            self.assertEqual(terminal.wait(), 1)
            lines = terminal.output.decode().splitlines()[-3:]
            self.assertEqual(
                lines,
                [
                    "error[key_in_use]: another node runs with this identity",
                    "  why: a test wants it",
                    "  try: look at the test",
                ],
            )

    def test_a_program_that_is_not_there(self) -> None:
        terminal = Terminal("p2p_server.py", binary=self.folder / "absent")
        self.addCleanup(terminal.stop)
        self.assertEqual(terminal.wait(), 1)
        self.assertIn(b"error[binary_not_found]", terminal.output)
        self.assertNotIn(b"Traceback", terminal.output)

    def test_a_peers_text_does_not_steer_the_terminal(self) -> None:
        server, client = self.open_both()
        client.type("\x1b[2J\x07red")
        self.assertIn("\ufffd[2J\ufffdred", server.wait_for("red"))

    def test_ctrl_c_while_the_client_still_looks_for_its_server(self) -> None:
        client = self.open("p2p_client.py")
        client.wait_for("looking for the server")
        client.press_ctrl_c()
        self.assertEqual(client.wait(), 0, client.output.decode())
        self.assertNotIn(b"Traceback", client.output)


@unittest.skipUnless(Path("/proc/self/task").exists(), "processes are looked up in /proc")
class RealScriptsTest(TwoTerminals.Promises):
    """With p2p-node itself, without DHT and STUN: the server hands itself over to the client in a file."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.binary = real_binary()
