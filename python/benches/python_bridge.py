#!/usr/bin/env python3
"""How fast Python talks to Python through two nodes on loopback, and where the time goes.

    python3 python/benches/python_bridge.py                      all of it, in about a minute
    python3 python/benches/python_bridge.py --alone              this package's own cost, without nodes
    python3 python/benches/python_bridge.py --profile            and which functions it goes to

Four processes take part: two of Python and two nodes, on a DHT of their own; nothing leaves this machine.
CPU seconds are from /proc, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from p2p_node import Message, P2PClient, P2PServer
from p2p_node._batch import Batch
from p2p_node._calls import Calls
from p2p_node._codec import Codec, Transport, choose_codec
from p2p_node._json import Fields
from p2p_node.testing import Network, Testnet

SMALL = bytes(100)
LARGE = os.urandom(1024 * 1024)
TICKS = os.sysconf("SC_CLK_TCK")
SERVICE = "bench:v1"


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--transport", choices=("json", "protobuf"), action="append")
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", metavar="TRANSPORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    transports: list[Transport] = options.transport or ["protobuf", "json"]
    if options.alone:
        alone(transports)
        return
    with Testnet() as testnet, tempfile.TemporaryDirectory() as folder:
        network = Network(testnet.environment, folder)
        print("transport  what                               messages/s    MiB/s   CPU µs a message")
        print("                                                                  Python  node  node  Python")
        for transport in transports:
            asyncio.run(between_nodes(network, transport, options.seconds, options.profile))


# Between two nodes.


async def between_nodes(network: Network, transport: Transport, seconds: float, profile: bool) -> None:
    """All figures for one notation."""
    machine = network.server()._session._env  # The environment of a node of its own.
    environment = {**os.environ, **machine}
    command = [sys.executable, __file__, "--serve", transport]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            server_node = int(server.stdout.readline())
            async with network.client(service=SERVICE, transport=transport) as client:
                assert client.pid is not None
                cpu = Cpu([os.getpid(), client.pid, server_node, server.pid])
                await measure_all(client, transport, seconds, cpu, profile)
        finally:
            server.stdin.close()
            server.wait(20)


async def measure_all(
    client: P2PClient, transport: Transport, seconds: float, cpu: Cpu, profile: bool
) -> None:
    """The figures, one after the other."""
    peer = client.server.peer

    async def send_many(payload: bytes) -> int:
        return await client.send_many(peer, until(time.monotonic() + seconds, payload))

    async def gather(payload: bytes) -> int:
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            await asyncio.gather(*(client.send(peer, payload) for _ in range(1_000)))
            count += 1_000
        return count

    await client.send(peer, b"first")
    ways: list[tuple[str, Callable[[bytes], Awaitable[int]], bytes]] = [
        ("send_many, 100 bytes", send_many, SMALL),
        ("gather of send, 100 bytes", gather, SMALL),
        ("send_many, 1 MiB", send_many, LARGE),
    ]
    for what, way, payload in ways:
        profiler = cProfile.Profile() if profile else None
        cpu.begin()
        begun = time.monotonic()
        if profiler is not None:
            profiler.enable()
        count = await way(payload)
        if profiler is not None:
            profiler.disable()
        took = time.monotonic() - begun
        rate = count / took
        mebibytes = rate * len(payload) / 2**20
        print(f"{transport:10} {what:34} {rate:10,.0f} {mebibytes:8.1f}   {cpu.per(count)}")
        if profiler is not None:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(14)
    await round_trips(client, transport, min(seconds, 2.0), cpu)


async def round_trips(client: P2PClient, transport: Transport, seconds: float, cpu: Cpu) -> None:
    """One at a time: until it is acknowledged, and until the other program has answered."""

    async def acknowledged() -> None:
        await client.send(client.server.peer, SMALL)

    async def answered() -> None:
        await client.request(client.server.peer, SMALL, msg_type="ask")

    for what, trip in (("send, acknowledged", acknowledged), ("request, answered", answered)):
        times: list[float] = []
        cpu.begin()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.perf_counter()
            await trip()
            times.append((time.perf_counter() - begun) * 1_000)
        centiles = statistics.quantiles(times, n=100)
        figures = f"p50 {centiles[49]:.3f} ms, p99 {centiles[98]:.3f} ms"
        print(f"{transport:10} {what:26} {figures:27}   {cpu.per(len(times))}")


async def serve(transport: Transport) -> None:
    """The other Python: takes all messages, answers requests."""
    async with P2PServer(service=SERVICE, ephemeral=True, transport=transport) as server:
        await server.wait_online()
        print(server.pid, flush=True)
        taking = asyncio.ensure_future(take(server))
        await asyncio.to_thread(sys.stdin.read)
        taking.cancel()


async def take(server: P2PServer) -> None:
    """Takes all messages, and answers requests."""
    async for message in server.listen():
        if message.type == "ask":
            await server.reply(message, message.payload)


def until(end: float, payload: bytes) -> Iterator[Message]:
    """Messages until it is time."""
    while time.monotonic() < end:
        yield Message.create(payload=payload)


class Cpu:
    """CPU time that processes take."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._begun: list[float] = []

    def begin(self) -> None:
        """Counts from here."""
        self._begun = [self._used(pid) for pid in self._pids]

    def per(self, count: int) -> str:
        """Microseconds for each of `count`, by process."""
        used = [self._used(pid) - begun for pid, begun in zip(self._pids, self._begun, strict=True)]
        return " ".join(f"{seconds * 1e6 / max(count, 1):6.1f}" for seconds in used)

    def _used(self, pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


# This package alone.


class Taker:
    """A `Listener` that only counts."""

    def __init__(self) -> None:
        self.messages = 0

    def handle_message(self, message: Message) -> None:
        """Counts it."""
        self.messages += 1

    def handle_ok(self, call_id: int, reply: object) -> None:
        """Nothing to do."""

    def handle_error(self, call_id: int, fields: Fields) -> None:
        """Nothing to do."""

    def handle_event(self, name: str, fields: Fields) -> None:
        """Nothing to do."""

    def handle_malformed(self, why: str) -> None:
        """Must not be."""
        raise AssertionError(why)

    handle_garbage = handle_malformed


def alone(transports: list[Transport]) -> None:
    """What a message costs this package: without pipes, nodes and other tasks."""
    print("transport  what                          µs a message")
    for transport in transports:
        codec = choose_codec(transport)
        for size, count in ((100, 50_000), (1024 * 1024, 100)):
            payload = os.urandom(size)
            message = Message.create(payload=payload)
            took = decoding(codec, transport, message, count)
            print(f"{transport:10} receive, {size:8} bytes        {took:8.2f}")
            took = asyncio.run(sending(codec, transport, payload, count))
            print(f"{transport:10} send_many, {size:8} bytes      {took:8.2f}")


def decoding(codec: Codec, transport: Transport, message: Message, count: int) -> float:
    """From the bytes in the buffer to a `Message`."""
    encoded = event_with(transport, message) * min(count, 1_000)
    taker = Taker()
    decoder = codec.decoder(taker)
    begun = time.process_time()
    while taker.messages < count:
        feed(decoder, encoded)
    return (time.process_time() - begun) / taker.messages * 1e6


async def sending(codec: Codec, transport: Transport, payload: bytes, count: int) -> float:
    """From the payload to the bytes for the pipe, and from the answer's bytes to the end of the call."""
    loop = asyncio.get_running_loop()
    written = 0
    answered = 0

    def write(part: bytes) -> None:
        nonlocal written
        written += 1

    calls = Calls(loop, codec, write)
    taker = Taker()
    taker.handle_ok = calls.handle_ok  # type: ignore[method-assign]
    decoder = codec.decoder(taker)
    acknowledgements = [ok_with(transport, call_id) for call_id in range(1, count + 1)]

    async def answer() -> None:
        nonlocal answered
        while answered < count:
            await asyncio.sleep(0)
            batch = acknowledgements[answered : answered + len(calls._running)]
            answered += len(batch)
            feed(decoder, b"".join(batch))

    batch = Batch(calls, loop, "m" * 52, 30.0)
    answering = asyncio.ensure_future(answer())
    begun = time.process_time()
    await batch.send(Message.create(payload=payload) for _ in range(count))
    took = time.process_time() - begun
    await answering
    return took / count * 1e6


def feed(decoder: object, encoded: bytes) -> None:
    """As if it came from a pipe."""
    from p2p_node._pipes import Sink

    sink: Sink = decoder  # type: ignore[assignment]
    rest = memoryview(encoded)
    while rest:
        space = sink.space()
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        sink.advance(count)
        rest = rest[count:]


def event_with(transport: Transport, message: Message) -> bytes:
    """What a node says when `message` arrives."""
    if transport == "json":
        import json

        from p2p_node._message import to_wire

        event = {"event": "message", "peer": "m" * 52, "message": to_wire(message)}
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    from p2p_node._frames import _varint
    from p2p_node._proto import stdio_pb2

    frame = stdio_pb2.Event()
    frame.message.peer = "m" * 52
    body = frame.message.message
    body.id, body.type, body.payload = message.id, message.type, message.payload
    body.timestamp = message.timestamp
    encoded = frame.SerializeToString()
    return _varint(len(encoded)) + encoded


def ok_with(transport: Transport, call_id: int) -> bytes:
    """What a node says when a message was delivered."""
    receipt = {"message_id": "f" * 32, "peer": "m" * 52, "state": "delivered", "rtt_ms": 0.25}
    if transport == "json":
        import json

        event = {"event": "ok", "id": call_id, **receipt}
        return json.dumps(event, separators=(",", ":")).encode() + b"\n"
    from p2p_node._frames import _varint
    from p2p_node._proto import stdio_pb2

    frame = stdio_pb2.Event(ok=stdio_pb2.Event.Ok(id=call_id))
    for name, value in receipt.items():
        setattr(frame.ok.receipt, name, value)
    encoded = frame.SerializeToString()
    return _varint(len(encoded)) + encoded


if __name__ == "__main__":
    main()
