"""What all tests share: an environment in which nothing can reach the internet, and programs to run in it."""

from __future__ import annotations

import atexit
import faulthandler
import importlib.util
import ipaddress
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar, cast
from unittest import mock

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background by a shell: the programs that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

PYTHON_FOLDER = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PYTHON_FOLDER))  # Tests run from the checkout, with nothing installed.

from p2p_node import BINARY_VARIABLE, BinaryNotFound, Message, Transport, find_binary  # noqa: E402
from p2p_node import _node as node_module  # noqa: E402
from p2p_node._codec import Codec, choose_codec  # noqa: E402
from p2p_node._json import Fields  # noqa: E402

_T = TypeVar("_T", bound="type[NodeTestCase]")


def make_program(package: Path) -> Path:
    """`package` as a program that runs on this very Python, with what is installed for it."""
    folder = tempfile.mkdtemp(prefix="p2p-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = Path(folder) / "p2p-node"
    where = f"import runpy, sys; sys.path.insert(0, {str(package.parent)!r})"
    run = f"runpy.run_module({package.name!r}, run_name='__main__')"
    program.write_text(f"#!{sys.executable}\n{where}\n{run}\n")
    program.chmod(0o755)
    return program


FAKE_NODE = make_program(Path(__file__).resolve().parent / "fake_node")

HAS_PROTOBUF = importlib.util.find_spec("google") is not None and (
    importlib.util.find_spec("google.protobuf") is not None
)

NETWORK_VARIABLES = ("P2P_NODE_DHT_BOOTSTRAP", "P2P_NODE_STUN")

TEST_SECONDS_MAX = 120
"""A test that takes longer hangs: it is ended with all its stacks on stderr."""

WAIT_SECONDS = 20.0
"""For what usually takes milliseconds, on a machine with better things to do."""


def guard_against_the_internet(event: str, arguments: tuple[object, ...]) -> None:
    """Refuses to start any process that could start a node with public servers."""
    if event != "subprocess.Popen":
        return
    _, command, _, env = cast("tuple[str, list[str], str | None, Mapping[str, str] | None]", arguments)
    environment = os.environ if env is None else env
    words = [str(word) for word in command]
    if "testnet" in words[1:2]:
        return
    if any(word.startswith(("--dht-bootstrap", "--stun", "--bind")) for word in words):
        raise AssertionError(f"{words} would win over the environment")
    for name in NETWORK_VARIABLES:
        if not is_local(environment.get(name, "")):
            raise AssertionError(f"{words[0]} would be started with {name}={environment.get(name)!r}")


def offline() -> dict[str, str]:
    """The environment for a program that has nothing to do with nodes."""
    return {**os.environ, **dict.fromkeys(NETWORK_VARIABLES, "none")}


def is_local(servers: str) -> bool:
    """Whether `servers` is `none` or names loopback addresses only."""
    if servers == "none":
        return True
    hosts = [server.rpartition(":")[0].strip("[]") for server in servers.split(",")]
    try:
        return all(ipaddress.ip_address(host).is_loopback for host in hosts)
    except ValueError:
        return False


sys.addaudithook(guard_against_the_internet)


class NodeTestCase(unittest.IsolatedAsyncioTestCase):
    """A test that starts nodes: offline, with folders of its own, and not for ever."""

    transport: Transport = "json"

    def setUp(self) -> None:
        if self.transport == "protobuf" and not HAS_PROTOBUF:
            self.skipTest("protobuf is not installed")
        codecs = mock.patch.object(node_module, "choose_codec", self.choose_codec)
        codecs.start()
        self.addCleanup(codecs.stop)
        faulthandler.dump_traceback_later(TEST_SECONDS_MAX, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        folder = tempfile.TemporaryDirectory(prefix="p2p-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        folders = {name: str(self.folder) for name in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        offline = {
            **dict.fromkeys(NETWORK_VARIABLES, "none"),
            "P2P_NODE_BIND": "127.0.0.1",
            "P2P_NODE_NO_LAN": "1",
        }
        environment = mock.patch.dict(os.environ)
        environment.start()
        self.addCleanup(environment.stop)
        for name in [name for name in os.environ if name.startswith("P2P_NODE_") and name != BINARY_VARIABLE]:
            del os.environ[name]
        os.environ.update({**offline, **folders})

    def choose_codec(self, transport: Transport) -> Codec:
        """What a node uses that was not told what to use."""
        return choose_codec(self.transport if transport == "auto" else transport)


def over_both_transports(case: _T) -> _T:
    """Makes the test case two: one whose nodes are spoken to in JSON lines, and one in frames."""
    kinds: dict[Transport, str] = {"json": "", "protobuf": "OverFrames"}
    made: list[type] = []
    for transport, suffix in kinds.items():
        name = case.__name__ + suffix
        made.append(type(name, (case,), {"transport": transport, "__module__": case.__module__}))
        setattr(sys.modules[case.__module__], name, made[-1])
    return cast("_T", made[0])


class Notebook:
    """Writes down what a decoder tells."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def handle_message(self, message: Message) -> None:
        self.told.append(message)

    def handle_ok(self, call_id: int, reply: object) -> None:
        self.told.append(call_id)

    def handle_error(self, call_id: int, fields: Fields) -> None:
        self.told.append((call_id, fields.text("code")))

    def handle_event(self, name: str, fields: Fields) -> None:
        self.told.append(name)

    def handle_malformed(self, why: str) -> None:
        self.told.append("malformed")

    def handle_garbage(self, why: str) -> None:
        self.told.append("garbage")


def told_in_pieces(encoded: bytes, transport: Transport, seed: int, piece_max: int) -> list[object]:
    """What a decoder makes of `encoded` when it comes in pieces of up to `piece_max` bytes."""
    notebook = Notebook()
    decoder = choose_codec(transport).decoder(notebook)
    chance = random.Random(seed)
    rest = memoryview(encoded)
    while rest:
        space = decoder.space()
        count = min(len(space), len(rest), chance.randint(1, piece_max))
        space[:count] = rest[:count]
        decoder.advance(count)
        rest = rest[count:]
    return notebook.told


def python_blocks(document: str) -> list[str]:
    """The programs in a document, which is named from the package's folder."""
    return re.findall(r"```python\n(.*?)```", (PYTHON_FOLDER / document).read_text(), re.DOTALL)


def real_binary() -> Path:
    """The program under test. Tests that need it are skipped where it has not been built, but never in CI."""
    try:
        return find_binary()
    except BinaryNotFound as error:
        if os.environ.get("CI") == "true":
            raise
        raise unittest.SkipTest(f"{error.message}: {error.hint}") from error


class Terminal:
    """A script, as somebody runs it in a terminal."""

    def __init__(self, script: str, *arguments: str, binary: Path | None = None) -> None:
        self.output = b""
        chosen = ["--binary", str(binary)] if binary is not None else []
        self.process = subprocess.Popen[bytes](
            [sys.executable, str(PYTHON_FOLDER / script), *chosen, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # As a job of a shell: a process group of its own, which Ctrl-C goes to.
            start_new_session=True,
        )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def wait_for(self, text: str) -> str:
        """Waits until a line contains `text`; returns that line."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                line = read_line(self.process.stdout.fileno(), deadline - time.monotonic())
            except (TimeoutError, EOFError) as error:
                raise AssertionError(f"{text!r} was not printed, but:\n{self.output.decode()}") from error
            self.output += line
            if text in line.decode():
                return line.decode()

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> int:
        """Waits for the end; returns the exit code."""
        assert self.process.stdout is not None
        returncode = self.process.wait(WAIT_SECONDS)
        self.output += self.process.stdout.read()
        return returncode

    def node_pid(self) -> int:
        """The process that the script has started."""
        (child,) = children(self.process.pid)
        return child

    def stop(self) -> None:
        end(self.process)


def read_line(descriptor: int, seconds: float) -> bytes:
    """A line from a pipe. Byte by byte, so that nothing is read ahead of a wait."""
    deadline = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(line.decode())
        byte = os.read(descriptor, 1)
        if not byte:
            raise EOFError(line.decode())
        line += byte
    return line


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that may have ended already."""
    process.kill()
    process.wait(WAIT_SECONDS)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def children(parent: int) -> list[int]:
    """The processes that `parent` has started."""
    tasks = Path(f"/proc/{parent}/task")
    return [int(word) for task in tasks.iterdir() for word in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether there is a process `pid` that has not ended (one that nobody has waited for has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


def wait_until_gone(pids: Iterable[int], seconds: float = WAIT_SECONDS) -> None:
    """Waits until none of these processes runs."""
    deadline = time.monotonic() + seconds
    left = list(pids)
    while left := [pid for pid in left if is_running(pid)]:
        if time.monotonic() > deadline:
            raise AssertionError(f"processes {left} are still there")
        time.sleep(0.02)
