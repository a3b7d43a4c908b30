"""What becomes of the program when ours ends in some odd way. With p2p-node itself."""

from __future__ import annotations

import os
import signal
import unittest
from pathlib import Path

from support import PYTHON_FOLDER, NodeTestCase, Terminal, real_binary, wait_until_gone

PROGRAM = """
import asyncio, os, signal, subprocess, sys
from p2p_node import P2PNode

async def main():
    async with P2PNode() as node:
        {deed}
        print("node", node.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@unittest.skipUnless(Path("/proc/self/task").exists(), "processes are looked up in /proc")
class LifecycleTest(NodeTestCase):
    def start(self, deed: str = "") -> tuple[Terminal, int]:
        os.environ |= {"P2P_NODE_BIN": str(real_binary()), "PYTHONPATH": str(PYTHON_FOLDER)}
        path = self.folder / "program.py"
        path.write_text(PROGRAM.format(deed=deed))
        terminal = Terminal(str(path))
        self.addCleanup(terminal.stop)
        return terminal, int(terminal.wait_for("node ").split()[1])

    def test_ctrl_c_ends_it(self) -> None:
        terminal, node = self.start()
        terminal.press_ctrl_c()
        terminal.wait()
        wait_until_gone([node], 1.0)

    def test_a_kill_ends_it(self) -> None:
        terminal, node = self.start()
        os.kill(terminal.process.pid, signal.SIGKILL)
        wait_until_gone([node], 5.0)

    def test_a_kill_ends_it_although_another_process_holds_its_pipes(self) -> None:
        holding = """
        os.set_inheritable(node._session._process._stdin.fileno(), True)
        waiting = [sys.executable, "-c", "import signal; signal.pause()"]
        child = subprocess.Popen(waiting, close_fds=False, stdin=subprocess.DEVNULL)
        print("child", child.pid, flush=True)
        """
        terminal, node = self.start(holding)
        child = int(terminal.output.decode().split("child ")[1].split()[0])
        self.addCleanup(os.kill, child, signal.SIGKILL)
        os.kill(terminal.process.pid, signal.SIGKILL)
        wait_until_gone([node], 5.0)
