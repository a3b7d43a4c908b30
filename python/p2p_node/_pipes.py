"""Moves bytes between the event loop and a process's stdin and stdout.

Where the event loop can watch a pipe, it does: a message then costs no change of threads, in which both
threads would queue for the interpreter's lock. Where it cannot (Windows; loops that only know sockets), two
threads do the same work.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Protocol

READ_BYTES = 256 * 1024
"""What a thread reads at once."""

PIPE_BYTES = 1024 * 1024
"""What a pipe is to hold, where the system lets us say so: Linux lets everybody have this much."""

UNREAD_BYTES_MAX = 8 * 1024 * 1024
"""Bytes that a thread has read and the event loop has not. Beyond, the pipe holds the node back."""

BUFFERS_AT_ONCE = 1_000
"""What one system call takes; Linux allows 1,024."""


class Sink(Protocol):
    """Takes what was read."""

    def space(self) -> memoryview:
        """Where to put the next bytes; never empty."""
        ...

    def advance(self, count: int) -> None:
        """Says that so many bytes have been put there."""
        ...


class Pipes(Protocol):
    """A process's stdin and stdout."""

    def write(self, part: bytes) -> None:
        """Queues bytes for stdin. Never waits; the caller minds how much is queued."""
        ...

    def end(self) -> None:
        """Closes stdin after what is queued."""
        ...

    def finish(self) -> None:
        """Reads what is left of stdout once the process has ended, and closes everything."""
        ...


def open_pipes(
    loop: asyncio.AbstractEventLoop,
    stdin: IO[bytes],
    stdout: IO[bytes],
    sink: Sink,
    on_end: Callable[[], None],
) -> Pipes:
    """The better kind of pipes that `loop` can serve. `on_end` is called in it when stdout ends."""
    for pipe in (stdin, stdout):
        _widen(pipe)
    if sys.platform != "win32":
        try:
            return LoopPipes(loop, stdin, stdout, sink, on_end)
        except NotImplementedError:
            pass
    return ThreadPipes(loop, stdin, stdout, sink, on_end)


class LoopPipes:
    """Served by the event loop itself."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stdin: IO[bytes],
        stdout: IO[bytes],
        sink: Sink,
        on_end: Callable[[], None],
    ) -> None:
        """Raises `NotImplementedError` if the loop cannot watch pipes."""
        self._loop = loop
        self._stdin = stdin
        self._stdout = stdout
        self._sink = sink
        self._on_end = on_end
        self._unwritten: deque[bytes | memoryview] = deque()
        self._flush_is_due = False
        self._is_blocked = False
        self._ending = False
        loop.add_reader(stdout.fileno(), self._read)
        os.set_blocking(stdin.fileno(), False)
        os.set_blocking(stdout.fileno(), False)

    def write(self, part: bytes) -> None:
        """See `Pipes`."""
        self._unwritten.append(part)
        if not self._flush_is_due:
            # Once for all that is written in this turn of the loop.
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def end(self) -> None:
        """See `Pipes`."""
        self._ending = True
        if not self._flush_is_due:
            self._flush()

    def finish(self) -> None:
        """See `Pipes`."""
        while not self._stdout.closed and self._read():
            pass
        self._stop_reading()
        self._stop_writing()

    def _flush(self) -> None:
        self._flush_is_due = False
        unwritten = self._unwritten
        if self._stdin.closed:
            unwritten.clear()
        while unwritten:
            batch = [unwritten.popleft() for _ in range(min(len(unwritten), BUFFERS_AT_ONCE))]
            try:
                written = os.writev(self._stdin.fileno(), batch)
            except BlockingIOError:
                written = 0
            except OSError:
                # The process does not read any more; its end is noticed elsewhere.
                self._stop_writing()
                return
            unwritten.extendleft(reversed(_rest(batch, written)))
            if unwritten and not self._is_blocked:
                self._is_blocked = True
                self._loop.add_writer(self._stdin.fileno(), self._flush)
            if self._is_blocked:
                break
        if not unwritten:
            self._unblock()
            if self._ending:
                self._stop_writing()
        else:
            # The loop calls again when there is room.
            self._flush_is_due = True

    def _unblock(self) -> None:
        if self._is_blocked:
            self._is_blocked = False
            self._loop.remove_writer(self._stdin.fileno())

    def _stop_writing(self) -> None:
        self._unwritten.clear()
        if not self._stdin.closed:
            self._unblock()
            self._stdin.close()

    def _read(self) -> bool:
        """Reads once; says whether there was something."""
        try:
            count = os.readv(self._stdout.fileno(), [self._sink.space()])
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if count > 0:
            self._sink.advance(count)
            return True
        self._stop_reading()
        self._on_end()
        return False

    def _stop_reading(self) -> None:
        if not self._stdout.closed:
            self._loop.remove_reader(self._stdout.fileno())
            self._stdout.close()


class ThreadPipes:
    """Served by two threads, which decide nothing: what they see is handed to the event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stdin: IO[bytes],
        stdout: IO[bytes],
        sink: Sink,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._stdin = stdin
        self._stdout = stdout
        self._sink = sink
        self._on_end = on_end
        self._unwritten: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._is_limited = True
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="p2p-node stdout", daemon=True)
        self._reader.start()
        threading.Thread(target=self._write, name="p2p-node stdin", daemon=True).start()

    def write(self, part: bytes) -> None:
        """See `Pipes`."""
        self._unwritten.put(part)

    def end(self) -> None:
        """See `Pipes`."""
        self._unwritten.put(None)

    def finish(self) -> None:
        """See `Pipes`."""
        with self._changed:
            self._is_limited = False
            self._changed.notify()
        self._reader.join(FINISH_SECONDS)
        self._take()
        self.end()

    def _take(self) -> None:
        """Hands over what the thread has read."""
        while True:
            with self._changed:
                if not self._unread:
                    return
                chunk = memoryview(self._unread.popleft())
                self._unread_bytes -= len(chunk)
                self._changed.notify()
            while chunk:
                space = self._sink.space()
                count = min(len(space), len(chunk))
                space[:count] = chunk[:count]
                self._sink.advance(count)
                chunk = chunk[count:]

    def _tell_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The event loop is closed: nobody is left to be told.
            pass

    # What the threads run.

    def _read(self) -> None:
        with self._stdout as pipe:
            while chunk := _read_some(pipe):
                with self._changed:
                    while self._is_limited and self._unread_bytes >= UNREAD_BYTES_MAX:
                        self._changed.wait()
                    self._unread.append(chunk)
                    self._unread_bytes += len(chunk)
                    is_first = len(self._unread) == 1
                if is_first:
                    self._tell_loop(self._take)
        self._tell_loop(self._on_end)

    def _write(self) -> None:
        try:
            with self._stdin as pipe:
                while (part := self._unwritten.get()) is not None:
                    rest = memoryview(part)
                    while rest:
                        rest = rest[os.write(pipe.fileno(), rest) :]
        except OSError:
            # The process does not read any more; its end is noticed elsewhere.
            pass


FINISH_SECONDS = 1.0
"""How long stdout may stay open after the process's end. Only a process that inherited it does that."""


def _rest(batch: list[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    """What is left of `batch` when its first bytes have been written."""
    for index, part in enumerate(batch):
        if written < len(part):
            return [memoryview(part)[written:], *batch[index + 1 :]] if written else batch[index:]
        written -= len(part)
    return []


def _read_some(pipe: IO[bytes]) -> bytes:
    try:
        return os.read(pipe.fileno(), READ_BYTES)
    except OSError:
        return b""


def _widen(pipe: IO[bytes]) -> None:
    if sys.platform == "linux":
        import fcntl

        try:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            # The user has used up what pipes may hold: it stays at what it is.
            pass
