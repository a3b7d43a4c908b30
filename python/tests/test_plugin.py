"""The pytest plugin, as a program's own tests use it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from support import PYTHON_FOLDER, WAIT_SECONDS, NodeTestCase, real_binary

TEST = '''
import asyncio

def test_my_service(p2p_network):
    async def talk():
        async with p2p_network.server(service="a:v1") as server:
            await server.wait_online()
            async with p2p_network.client(service="a:v1") as client:
                await client.send("service", "hello")
                return (await anext(server.listen())).text()
    assert asyncio.run(talk()) == "hello"

def test_the_network_of_other_programs(p2p_testnet):
    assert p2p_testnet.environment["P2P_NODE_BIND"] == "127.0.0.1"
'''


class PluginTest(NodeTestCase):
    def test_a_program_tests_itself_offline(self) -> None:
        if importlib.util.find_spec("pytest") is None:
            self.skipTest("pytest is not installed")
        (self.folder / "test_mine.py").write_text(TEST)
        environment = {**os.environ, "PYTHONPATH": str(PYTHON_FOLDER), "P2P_NODE_BIN": str(real_binary())}
        # Where the package is installed its entry point does what `-p` does here.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "p2p_node._pytest_plugin", str(self.folder)]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=3 * WAIT_SECONDS
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("2 passed", done.stdout)
