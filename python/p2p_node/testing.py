"""A network without internet, on this machine: for tests of programs that use this package."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, cast

from ._binary import find_binary
from ._client import P2PClient
from ._codec import Transport
from ._errors import NodeExited, P2PTimeout
from ._node import StrPath
from ._server import P2PServer

if TYPE_CHECKING:
    from typing_extensions import Self

START_SECONDS = 20.0
"""How long the servers may take; usually it is milliseconds."""


class Testnet:
    """A DHT and STUN servers on loopback, as long as it is open: the program's `testnet`.

    with Testnet() as testnet, tempfile.TemporaryDirectory() as folder:
        network = Network(testnet.environment, folder)
        async with network.server(service="a:v1") as server:
            await server.wait_online()
            async with network.client(service="a:v1") as client:
                await client.send("service", "hello")
    """

    __test__ = False  # pytest takes it for a test otherwise.

    def __init__(self, *, binary: StrPath | None = None) -> None:
        """Starts it. Raises `BinaryNotFound`, `NodeExited` or `P2PTimeout`."""
        command = [str(find_binary(binary)), "testnet"]
        self._popen = subprocess.Popen[bytes](command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            servers = cast("dict[str, list[str]]", json.loads(self._first_line()))
        except BaseException:
            self.close()
            raise
        self.environment: Mapping[str, str] = {
            "P2P_NODE_DHT_BOOTSTRAP": ",".join(servers["bootstrap"]),
            "P2P_NODE_STUN": ",".join(servers["stun"]),
            "P2P_NODE_BIND": "127.0.0.1",
            "P2P_NODE_NO_LAN": "1",
        }
        """What makes nodes use it, and nothing else."""

    def close(self) -> None:
        """Ends it."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _first_line(self) -> bytes:
        # A pipe cannot be waited for with a limit on every system: whoever is too late is ended.
        stdout = cast("IO[bytes]", self._popen.stdout)
        too_late = threading.Event()

        def give_up() -> None:
            too_late.set()
            self._popen.kill()

        timer = threading.Timer(START_SECONDS, give_up)
        timer.start()
        line = stdout.readline()
        timer.cancel()
        if too_late.is_set():
            raise P2PTimeout(f"the testnet did not start within {START_SECONDS:g} s", code="timeout")
        if not line:
            raise NodeExited("the testnet did not start", returncode=self._popen.wait())
        return line


class Network:
    """Makes nodes that know one network and nothing of each other, as on machines of their own."""

    def __init__(
        self, environment: Mapping[str, str], folder: StrPath, *, binary: StrPath | None = None
    ) -> None:
        """`environment` says what the network is, see `Testnet`; nodes keep their files in `folder`."""
        self.environment = environment
        self._folder = Path(folder)
        self._binary = binary
        self._count = 0

    def server(
        self,
        *,
        service: str | None = None,
        service_secret_file: StrPath | None = None,
        allow: Sequence[str] = (),
        transport: Transport = "auto",
        arguments: Sequence[str] = (),
    ) -> P2PServer:
        """A server that is not started yet, with an identity of its own; options as for `P2PServer`."""
        return P2PServer(
            service=service,
            service_secret_file=service_secret_file,
            ephemeral=True,
            allow=allow,
            transport=transport,
            binary=self._binary,
            arguments=arguments,
            env=self._machine(),
        )

    def client(
        self,
        server: str | None = None,
        *,
        service: str | None = None,
        service_secret_file: StrPath | None = None,
        transport: Transport = "auto",
        arguments: Sequence[str] = (),
    ) -> P2PClient:
        """A client that is not started yet, with an identity of its own; options as for `P2PClient`."""
        return P2PClient(
            server,
            service=service,
            service_secret_file=service_secret_file,
            ephemeral=True,
            transport=transport,
            binary=self._binary,
            arguments=arguments,
            env=self._machine(),
        )

    def _machine(self) -> dict[str, str]:
        self._count += 1
        folder = self._folder / f"node-{os.getpid()}-{self._count}"
        folder.mkdir(mode=0o700)
        folders = dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
        return {**self.environment, **folders}
