"""The wheel, installed in all the ways that pip knows: the program is found, and works.

`tests/run wheel` makes the wheel and names it in P2P_NODE_WHEEL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from support import PYTHON_FOLDER, NodeTestCase, offline

INSTALL_SECONDS = 300

WHEEL = os.environ.get("P2P_NODE_WHEEL")


class InstalledTest(NodeTestCase):
    wheel: Path

    def setUp(self) -> None:
        super().setUp()
        if WHEEL is None:
            self.skipTest("no wheel was made: tests/run wheel")
        self.wheel = Path(WHEEL)
        # Nothing but what was installed may be found.
        for name in ("P2P_NODE_BIN", "PYTHONPATH", "CARGO_TARGET_DIR"):
            os.environ.pop(name, None)
        os.environ["PATH"] = "/usr/bin:/bin"

    def run_python(self, python: Path, *words: str) -> str:
        done = subprocess.run(
            [str(python), *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=offline(),
            timeout=INSTALL_SECONDS,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def install(self, *options: str, python: Path | None = None) -> None:
        pip = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
        self.run_python(python or Path(sys.executable), *pip, *options, str(self.wheel))

    def find_program(self, python: Path | None = None) -> Path:
        code = "import p2p_node; print(p2p_node.find_binary())"
        return Path(self.run_python(python or Path(sys.executable), "-c", code).strip())

    def test_in_an_environment_of_its_own_without_anything_else(self) -> None:
        environment = self.folder / "venv"
        self.run_python(Path(sys.executable), "-m", "venv", str(environment))
        python = environment / "bin" / "python"
        self.install(python=python)
        self.assertEqual(self.find_program(python), environment / "bin" / "p2p-node")
        output = self.run_python(python, str(PYTHON_FOLDER / "examples" / "two_nodes.py"))
        self.assertEqual(output.splitlines()[1:], ["delivered", "42 True"])

    def test_into_a_folder(self) -> None:
        folder = self.folder / "target"
        self.install("--target", str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        self.assertEqual(self.find_program(), folder / "bin" / "p2p-node")

    def test_under_a_prefix(self) -> None:
        prefix = self.folder / "prefix"
        self.install("--prefix", str(prefix))
        variables = {"base": str(prefix), "platbase": str(prefix)}
        os.environ["PYTHONPATH"] = sysconfig.get_path("purelib", "posix_prefix", vars=variables)
        self.assertEqual(self.find_program(), prefix / "bin" / "p2p-node")

    def test_the_wheel_holds_what_it_should(self) -> None:
        names = zipfile.ZipFile(self.wheel).namelist()
        self.assertIn("p2p_node/py.typed", names)
        self.assertIn("p2p_node/_proto/stdio_pb2.pyi", names)
        self.assertEqual([name for name in names if "tests/" in name or "examples/" in name], [])
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        text = zipfile.ZipFile(self.wheel).read(entry_points).decode()
        self.assertIn("[pytest11]", text)
        self.assertIn("p2p_node=p2p_node._pytest_plugin", text.replace(" ", ""))
