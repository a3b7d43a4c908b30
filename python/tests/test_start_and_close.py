"""How a node begins and ends, with a stand-in for the program."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from unittest import mock

from stand_in import node, odd, soon
from support import (
    NodeTestCase,
    is_running,
    over_both_transports,
    wait_until_gone,
)

from p2p_node import (
    BinaryNotFound,
    Bye,
    ConfigError,
    IncompatibleNode,
    NodeClosed,
    NodeExited,
    P2PError,
    P2PNode,
    P2PTimeout,
)
from p2p_node import _process as process_module
from p2p_node._node import DRAIN_SECONDS


@over_both_transports
class StartTest(NodeTestCase):
    async def assert_start_fails(self, node: P2PNode, kind: type[P2PError]) -> P2PError:
        with self.assertRaises(kind) as caught:
            await soon(node.start())
        if node.pid is not None:
            self.assertFalse(is_running(node.pid))
        return caught.exception

    def write_program(self, text: str) -> Path:
        path = self.folder / "p2p-node"
        path.write_text(text)
        path.chmod(0o755)
        return path

    async def test_a_program_that_is_not_there(self) -> None:
        await self.assert_start_fails(P2PNode(binary="/nowhere/p2p-node"), BinaryNotFound)

    async def test_a_file_that_is_no_program(self) -> None:
        path = self.write_program("no program")
        error = await self.assert_start_fails(P2PNode(binary=path), BinaryNotFound)
        self.assertIn("Exec format error", error.why)

    async def test_programs_that_speak_something_else(self) -> None:
        for behaviour, why in [
            ("other-protocol", "it speaks version (9,) of p2p-stdio, not 1"),
            ("no-json", "sage: p2p-node <COMMAND>"),
            ("no-hello", "its first event is bye, not hello"),
        ]:
            error = await self.assert_start_fails(node(behaviour), IncompatibleNode)
            self.assertIn(why, error.why)

    async def test_a_node_that_cannot_start_says_why(self) -> None:
        error = await self.assert_start_fails(node("key-in-use"), ConfigError)
        self.assertEqual((error.code, error.why), ("key_in_use", "a test wants it"))

    async def test_a_program_that_ends_at_once(self) -> None:
        error = await self.assert_start_fails(node("dies-at-once"), NodeExited)
        assert isinstance(error, NodeExited)
        self.assertEqual((error.returncode, error.why), (101, "panicked"))

    async def test_a_program_that_does_not_take_its_arguments(self) -> None:
        error = await self.assert_start_fails(node("wrong-flag"), ConfigError)
        self.assertEqual((error.code, error.why), ("config_invalid", "error: unexpected argument '--mood'"))

    async def test_a_program_that_says_nothing(self) -> None:
        await self.assert_start_fails(node("silent", start_timeout=0.2), P2PTimeout)

    async def test_a_start_that_is_cancelled_leaves_nothing(self) -> None:
        client = node("silent")
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(client.start(), 0.2)
        assert client.pid is not None
        wait_until_gone([client.pid])

    async def test_a_node_is_started_once(self) -> None:
        async with node() as client:
            with self.assertRaises(RuntimeError):
                await client.start()

    async def test_a_node_that_was_not_started(self) -> None:
        client = node()
        with self.assertRaises(NodeClosed):
            await client.status()
        with self.assertRaises(NodeClosed):
            client.listen()
        with self.assertRaises(NodeClosed):
            print(client.peer_id)
        await client.close()


@over_both_transports
class CloseTest(NodeTestCase):
    async def test_close_ends_the_process_and_all_streams(self) -> None:
        client = node()
        await client.start()
        messages, events = client.listen(), client.events()
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        await client.close()
        await client.close()
        assert client.pid is not None
        self.assertFalse(is_running(client.pid))
        with self.assertRaises(StopAsyncIteration):
            await waiting
        self.assertEqual([event async for event in events][-1], Bye("stdin_eof", 0))
        self.assertEqual([event async for event in client.events()], [])
        with self.assertRaises(NodeClosed):
            await client.status()

    async def test_calls_under_way_end_with_the_node(self) -> None:
        client = await node().start()
        call = asyncio.ensure_future(odd(client, "never answer"))
        await asyncio.sleep(0)
        await client.close()
        with self.assertRaises(NodeClosed):
            await soon(call)

    async def test_a_node_that_does_not_want_to_end_is_killed(self) -> None:
        client = await node("stubborn").start()
        with (
            mock.patch.object(process_module, "TERMINATE_SECONDS", 0.1),
        ):
            await soon(client.close(drain=0.1))
        assert client.pid is not None
        self.assertFalse(is_running(client.pid))

    async def test_close_goes_on_when_its_caller_is_cancelled(self) -> None:
        client = await node("stubborn").start()
        with (
            mock.patch.object(process_module, "TERMINATE_SECONDS", 0.2),
        ):
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(client.close(drain=0.2), 0.05)
            await soon(client.close())
        assert client.pid is not None
        self.assertFalse(is_running(client.pid))

    async def test_a_dial_that_nobody_waits_for_does_not_hold_the_end_up(self) -> None:
        client = await node("stubborn").start()
        call = asyncio.ensure_future(odd(client, "never answer"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        begun = time.monotonic()
        with mock.patch.object(process_module, "TERMINATE_SECONDS", 0.1):
            await client.close()
        self.assertLess(time.monotonic() - begun, DRAIN_SECONDS)

    def test_the_end_of_the_event_loop_ends_the_process(self) -> None:
        async def forget() -> int | None:
            client = await node("stubborn").start()
            closing = asyncio.ensure_future(client.close())
            await asyncio.sleep(0)
            closing.cancel()
            return client.pid

        pid = asyncio.run(forget())
        assert pid is not None
        wait_until_gone([pid])
