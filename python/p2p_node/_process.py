"""Owns the node's process: lines in, lines out, and an end within a known time.

Four small threads serve the pipes, because asyncio's own subprocesses need a particular event loop on some
systems, lose lines over 64 KiB, and take an exited process for a running one while a pipe is open.
The threads decide nothing: what they see is handed to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from ._errors import BinaryNotFound, QueueFull

log = logging.getLogger("p2p_node")
node_log = logging.getLogger("p2p_node.node")

UNREAD_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of the node's lines that wait for the event loop. Beyond, the pipe holds the node back."""

UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024
"""Bytes that wait for the node to read them: two of the largest messages, and some."""

STDERR_LINES_KEPT = 20
"""Enough for a panic message with its location."""

STDERR_LINE_BYTES_MAX = 4_096
"""Longer lines are cut into several."""

TERMINATE_SECONDS = 8.0
"""From SIGTERM to SIGKILL: the node takes up to 5 s to say goodbye, and 2 s to write its last lines."""

KILL_SECONDS = 2.0
"""From SIGKILL to giving up on the operating system."""

TAIL_SECONDS = 1.0
"""How long pipes may stay open after the process's end. Only a process that inherited them does that."""

SILENT_SECONDS = 8.0
"""How long a process may run after it has closed its stdout: as long as after SIGTERM."""


class Process:
    """A running program. Made, used and stopped in one event loop."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        on_lines: Callable[[], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Starts it. `on_lines` says that `take` has something; `on_exit` comes last, with the exit code."""
        self._loop = asyncio.get_running_loop()
        self._on_lines = on_lines
        self._on_exit = on_exit
        self._exited = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._unread = _Unread()
        self._unwritten = _Unwritten()
        self._stderr_lines: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        self._popen = _spawn(arguments, env)
        self._threads = {
            name: threading.Thread(target=run, name=f"p2p-node {name}", daemon=True)
            for name, run in (
                ("stdin", self._write_stdin),
                ("stdout", self._read_stdout),
                ("stderr", self._read_stderr),
                ("exit", self._wait_for_exit),
            )
        }
        for thread in self._threads.values():
            thread.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def stderr_lines(self) -> tuple[str, ...]:
        """The last lines that it wrote to stderr."""
        return tuple(self._stderr_lines)

    def write(self, line: bytes) -> None:
        """Queues a line, which ends with its line feed. Raises `QueueFull` if the program does not read."""
        self._unwritten.put(line)

    def take(self) -> bytes | None:
        """The next line that the program has written, if there is one."""
        return self._unread.take()

    async def stop(self, *, drain_seconds: float) -> None:
        """Ends the program: closes its stdin, waits `drain_seconds`, then terminates it, then kills it.

        The way down goes on if the caller is cancelled; if that is cancelled too, because the event loop
        ends, the program is killed.
        """
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(drain_seconds))
        await asyncio.shield(self._stopping)

    async def _stop(self, drain_seconds: float) -> None:
        self._unwritten.end()
        self._unread.lift_limit()
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

    def _handle_exit(self, returncode: int) -> None:
        self._on_exit(returncode)
        self._exited.set()

    def _tell_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The event loop is closed: nobody is left to be told.
            pass

    # What the threads run.

    def _write_stdin(self) -> None:
        with _pipe(self._popen.stdin) as pipe:
            try:
                while (line := self._unwritten.take()) is not None:
                    pipe.write(line)
                    if self._unwritten.is_empty():
                        pipe.flush()
            except OSError:
                # The program does not read any more; its end is noticed by another thread.
                pass
            finally:
                _close(pipe)

    def _read_stdout(self) -> None:
        with _pipe(self._popen.stdout) as pipe:
            for line in pipe:
                if self._unread.put(line):
                    self._tell_loop(self._on_lines)
        try:
            self._popen.wait(SILENT_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()

    def _read_stderr(self) -> None:
        with _pipe(self._popen.stderr) as pipe:
            while raw := pipe.readline(STDERR_LINE_BYTES_MAX):
                line = raw.decode("utf-8", "replace").rstrip()
                self._stderr_lines.append(line)
                node_log.debug("%s", line)

    def _wait_for_exit(self) -> None:
        returncode = self._popen.wait()
        # What is left in the pipe is little and is still to be heard.
        self._unread.lift_limit()
        self._unwritten.end()
        for name in ("stdout", "stderr"):
            self._threads[name].join(TAIL_SECONDS)
        self._tell_loop(self._handle_exit, returncode)


class _Unread:
    """Lines between the thread that reads them and the event loop."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._limited = True
        self._changed = threading.Condition()

    def put(self, line: bytes) -> bool:
        """Adds a line, when there is room for it; says whether it is the only one."""
        with self._changed:
            while self._limited and self._bytes >= UNREAD_BYTES_MAX:
                self._changed.wait()
            self._lines.append(line)
            self._bytes += len(line)
            return len(self._lines) == 1

    def take(self) -> bytes | None:
        with self._changed:
            if not self._lines:
                return None
            line = self._lines.popleft()
            self._bytes -= len(line)
            self._changed.notify()
            return line

    def lift_limit(self) -> None:
        """Lets the reader come to the end of the pipe."""
        with self._changed:
            self._limited = False
            self._changed.notify()


class _Unwritten:
    """Lines between the event loop and the thread that writes them."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, line: bytes) -> None:
        with self._lock:
            if self._bytes > 0 and self._bytes + len(line) > UNWRITTEN_BYTES_MAX:
                raise QueueFull(
                    "the node does not read what it is told",
                    code="queue_full",
                    why=f"{self._bytes} bytes wait for it",
                    hint="await earlier calls before making more",
                    retryable=True,
                )
            self._bytes += len(line)
        self._lines.put(line)

    def take(self) -> bytes | None:
        """The next line; waits for one. `None` at the end."""
        line = self._lines.get()
        if line is not None:
            with self._lock:
                self._bytes -= len(line)
        return line

    def is_empty(self) -> bool:
        return self._lines.empty()

    def end(self) -> None:
        """Lets the writer end after what is queued."""
        self._lines.put(None)


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
        return subprocess.Popen[bytes](arguments, env=env, stdin=pipe, stdout=pipe, stderr=pipe, **group)
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
        # What could not be written any more cannot be flushed either.
        pass
