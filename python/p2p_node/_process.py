"""Owns the node's process: bytes in, bytes out, and an end within a known time.

`subprocess.Popen` and not asyncio's own subprocesses: those need a particular event loop on some systems,
lose lines over 64 KiB, and take an exited process for a running one while a pipe is open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from ._errors import BinaryNotFound
from ._pipes import Sink, open_pipes

log = logging.getLogger("p2p_node")
node_log = logging.getLogger("p2p_node.node")

STDERR_LINES_KEPT = 20
"""Enough for a panic message with its location."""

STDERR_LINE_BYTES_MAX = 4_096
"""Longer lines are cut into several."""

TERMINATE_SECONDS = 8.0
"""From SIGTERM to SIGKILL: the node takes up to 5 s to say goodbye, and 2 s to write its last lines."""

KILL_SECONDS = 2.0
"""From SIGKILL to giving up on the operating system."""

TAIL_SECONDS = 1.0
"""How long stderr may stay open after the process's end. Only a process that inherited it does that."""

SILENT_SECONDS = 8.0
"""How long a process may run after it has closed its stdout: as long as after SIGTERM."""


class Process:
    """A running program. Made, used and stopped in one event loop."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        sink: Sink,
        on_exit: Callable[[int], None],
    ) -> None:
        """Starts it. `sink` gets its stdout; `on_exit` comes last, with the exit code."""
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._exited = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._stderr_lines: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        self._popen = _spawn(arguments, env)
        self._stdin, self._stdout = _pipe(self._popen.stdin), _pipe(self._popen.stdout)
        _open_processes.add(self)
        self._pipes = open_pipes(self._loop, self._stdin, self._stdout, sink, self._handle_silence)
        self._stderr_reader = threading.Thread(target=self._read_stderr, name="p2p-node stderr", daemon=True)
        self._stderr_reader.start()
        threading.Thread(target=self._wait_for_exit, name="p2p-node exit", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def stderr_lines(self) -> tuple[str, ...]:
        """The last lines that it wrote to stderr."""
        return tuple(self._stderr_lines)

    def write(self, part: bytes) -> None:
        """Queues bytes for its stdin. Never waits; the caller minds how much is queued."""
        self._pipes.write(part)

    async def stop(self, *, drain_seconds: float) -> None:
        """Ends the program: closes its stdin, waits `drain_seconds`, then terminates it, then kills it.

        The way down goes on if the caller is cancelled; if that is cancelled too, because the event loop
        ends, the program is killed.
        """
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(drain_seconds))
        await asyncio.shield(self._stopping)

    def kill(self) -> None:
        """Ends the program at once."""
        self._popen.kill()

    def drop_pipes(self) -> None:
        """Lets go of the pipes, in a process that only inherited them."""
        for pipe in (self._stdin, self._stdout):
            _close(pipe)

    async def _stop(self, drain_seconds: float) -> None:
        self._pipes.end()
        try:
            for seconds, next_step in (
                (drain_seconds, self._popen.terminate),
                (TERMINATE_SECONDS, self._popen.kill),
            ):
                if await self._exits_within(seconds):
                    return
                next_step()
            if not await self._exits_within(KILL_SECONDS):
                log.error("process %d does not end, not even when killed", self.pid)
        except asyncio.CancelledError:
            self._popen.kill()
            raise

    async def _exits_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._exited.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def _handle_silence(self) -> None:
        if not self._exited.is_set():
            self._loop.call_later(SILENT_SECONDS, self._kill_if_running)

    def _kill_if_running(self) -> None:
        if not self._exited.is_set():
            self._popen.kill()

    def _handle_exit(self, returncode: int) -> None:
        self._pipes.finish()
        _open_processes.discard(self)
        self._on_exit(returncode)
        self._exited.set()

    # What the threads run.

    def _read_stderr(self) -> None:
        with open(_pipe(self._popen.stderr).fileno(), "rb", closefd=False) as pipe:
            while raw := pipe.readline(STDERR_LINE_BYTES_MAX):
                line = raw.decode("utf-8", "replace").rstrip()
                self._stderr_lines.append(line)
                node_log.debug("%s", line)
        _close(_pipe(self._popen.stderr))

    def _wait_for_exit(self) -> None:
        returncode = self._popen.wait()
        self._stderr_reader.join(TAIL_SECONDS)
        try:
            self._loop.call_soon_threadsafe(self._handle_exit, returncode)
        except RuntimeError:
            # The event loop is closed: nobody is left to be told.
            pass


_open_processes: weakref.WeakSet[Process] = weakref.WeakSet()


def _drop_inherited_pipes() -> None:
    # Held open by a fork, the pipe would never end, and with it the node would not.
    for process in list(_open_processes):
        process.drop_pipes()
    _open_processes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_inherited_pipes)


def _spawn(arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # In a process group of its own: Ctrl-C in the terminal reaches us only, and we end the node properly.
    group: dict[str, Any]
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    elif sys.version_info >= (3, 11):
        group = {"process_group": 0}
    else:
        group = {"start_new_session": True}
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen[bytes](
            arguments, bufsize=0, env=env, stdin=pipe, stdout=pipe, stderr=pipe, **group
        )
    except OSError as error:
        raise BinaryNotFound(
            f"{arguments[0]} cannot be run", why=str(error), places=[arguments[0]]
        ) from error


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "all three pipes are asked for, see _spawn"
    return pipe


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        # It is closed all the same.
        pass
