"""The pytest plugin, as a program's own tests use it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from support import PYTHON_FOLDER, WAIT_SECONDS, NodeTestCase, python_blocks, real_binary

AROUND = """
import asyncio

{snippet}

def test_what_the_readme_shows(p2p_network):
    asyncio.run(talk(p2p_network))

def test_the_network_of_other_programs(p2p_testnet):
    assert p2p_testnet.environment["P2P_NODE_BIND"] == "127.0.0.1"
"""


class PluginTest(NodeTestCase):
    def test_a_program_tests_itself_offline(self) -> None:
        if importlib.util.find_spec("pytest") is None:
            self.skipTest("pytest is not installed")
        (snippet,) = [code for code in python_blocks("README.md") if "p2p_network" in code]
        # Without a plugin for coroutines.
        source = AROUND.format(snippet=snippet.replace("test_my_service", "talk"))
        (self.folder / "test_mine.py").write_text(source)
        environment = {**os.environ, "PYTHONPATH": str(PYTHON_FOLDER), "P2P_NODE_BIN": str(real_binary())}
        # Where the package is installed its entry point does what `-p` does here.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "p2p_node._pytest_plugin", str(self.folder)]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, timeout=3 * WAIT_SECONDS
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("2 passed", done.stdout)
