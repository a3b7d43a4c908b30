"""What the documents show of Python, run with the stand-in."""

from __future__ import annotations

import os
import textwrap
from unittest import mock

from support import FAKE_NODE, PYTHON_FOLDER, NodeTestCase, Terminal, python_blocks


class DocumentTest(NodeTestCase):
    def setUp(self) -> None:
        super().setUp()
        mine = {"P2P_NODE_BIN": str(FAKE_NODE), "PYTHONPATH": str(PYTHON_FOLDER), "PYTHONUNBUFFERED": "1"}
        environment = mock.patch.dict(os.environ, mine)
        environment.start()
        self.addCleanup(environment.stop)

    def run_block(self, code: str) -> Terminal:
        path = self.folder / f"block_{len(list(self.folder.glob('block_*')))}.py"
        path.write_text(code)
        terminal = Terminal(str(path))
        self.addCleanup(terminal.stop)
        return terminal

    def test_the_packages_own_readme(self) -> None:
        server, client, blocking, fixtures = python_blocks("README.md")
        self.assertIn("p2p_network", fixtures)  # test_plugin.py runs it.
        serving = self.run_block(server)
        talking = self.run_block(client)
        serving.wait_for(" hello world")
        talking.wait_for("delivered in ")
        talking.wait_for("{'bytes': 8}")
        self.assertEqual(talking.wait(), 0, talking.output.decode())
        writing = self.run_block(blocking)
        writing.wait_for('{"bytes":5}')
        self.assertEqual(writing.wait(), 0, writing.output.decode())

    def test_the_projects_readme(self) -> None:
        server, *_ = python_blocks("README.md")
        serving = self.run_block(server)
        (snippet,) = python_blocks("../README.md")
        imports, _, body = snippet.partition("\n\n")
        main = f"async def main():\n{textwrap.indent(body, '    ')}"
        talking = self.run_block(f"import asyncio\n{imports}\n\n{main}\nasyncio.run(main())")
        serving.wait_for(" hello")
        talking.wait_for('{"bytes":5}')
