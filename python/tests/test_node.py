"""A node as its user sees it, with a stand-in for the program."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar
from unittest import mock

from support import FAKE_NODE, WAIT_SECONDS, NodeTestCase, is_running, wait_until_gone

from p2p_node import (
    BinaryNotFound,
    Bye,
    ConfigError,
    Connected,
    Event,
    EventStream,
    IncompatibleNode,
    Message,
    NodeClosed,
    NodeExited,
    NodeStatus,
    Online,
    OtherEvent,
    P2PClient,
    P2PError,
    P2PNode,
    P2PServer,
    P2PTimeout,
    PeerNotFound,
    QueueFull,
    Ready,
    Received,
    Refused,
)
from p2p_node import _node as node_module
from p2p_node import _process as process_module

_T = TypeVar("_T")


async def soon(awaitable: Awaitable[_T]) -> _T:
    """The outcome, which is due within moments."""
    return await asyncio.wait_for(awaitable, WAIT_SECONDS)


def node(behaviour: str = "", start_timeout: float = WAIT_SECONDS) -> P2PNode:
    environment = {"FAKE_NODE": behaviour}
    return P2PNode(mode="client", binary=FAKE_NODE, env=environment, start_timeout=start_timeout)


async def odd(node: P2PNode, kind: str, payload: str = "") -> None:
    """Sends a message that makes the stand-in do something."""
    await node.send("service", payload, msg_type=kind)


async def run_status(node: P2PNode) -> NodeStatus:
    return await node.status()


class TalkTest(NodeTestCase):
    async def test_the_asked_for_surface(self) -> None:
        server = P2PServer(binary=FAKE_NODE)
        await server.start()
        client = P2PClient(binary=FAKE_NODE)
        await client.start()

        message = Message.create(msg_type="request", payload="hello world", metadata={"key": "value"})
        receipt = await client.send_message(message)
        self.assertEqual((receipt.message_id, receipt.peer), (message.id, server.peer_id))
        heard = await soon(anext(server.listen()))
        self.assertEqual(heard, Received(client.peer_id, message))

        answer = Message.create(msg_type="response", payload={"ok": True})
        await server.send_message(client.peer_id, answer)
        self.assertEqual(await soon(anext(client.listen())), Received(server.peer_id, answer))

        await client.send_message(server.peer_id, message)
        await client.close()
        await server.close()

    async def test_large_and_odd_payloads_arrive_as_they_are_in_order(self) -> None:
        payloads = [b"two\nlines", "\N{SNOWMAN}".encode(), bytes(range(256)) * 8_192, b""]
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            await asyncio.gather(*(client.send("service", payload) for payload in payloads))
            heard = [(await soon(anext(server.listen()))).message.payload for _ in payloads]
        self.assertEqual(heard, payloads)

    async def test_peers_and_status_are_told(self) -> None:
        async with P2PServer(binary=FAKE_NODE, service="a:b") as server:
            self.assertEqual(server.ready.service, "a:b")
            self.assertEqual(await server.peers(), ())
            async with P2PClient(binary=FAKE_NODE, service="a:b") as client:
                await client.send("service", "hello")
                (peer,) = await client.peers()
                self.assertEqual((peer.connection, peer.messages_sent), (client.server, 1))
                self.assertEqual((await client.status()).peers, 1)
                await client.disconnect(server.peer_id)

    async def test_events_are_told_to_everybody_who_asks(self) -> None:
        server = P2PServer(binary=FAKE_NODE)
        first, second = server.events(), server.events()
        async with server, P2PClient(binary=FAKE_NODE) as client:
            for events in (first, second):
                kinds = [type(await soon(anext(events))) for _ in range(2)]
                self.assertEqual(kinds, [Ready, Online])
                connected = await soon(anext(events))
                assert isinstance(connected, Connected)
                self.assertEqual(connected.connection.peer, client.peer_id)

    async def test_a_client_waits_for_its_server(self) -> None:
        for service in (None, "myapi:v1"):
            async with P2PServer(binary=FAKE_NODE, service=service):
                late = {"FAKE_NODE": "server-comes-late"}
                async with P2PClient(binary=FAKE_NODE, service=service, env=late) as client:
                    self.assertEqual(client.server.direction, "out")

    async def test_a_client_without_a_server_gives_up_in_time(self) -> None:
        client = P2PClient(binary=FAKE_NODE, service="myapi:v1", connect_timeout=0.6)
        begun = time.monotonic()
        with self.assertRaises(PeerNotFound):
            await client.start()
        self.assertLess(time.monotonic() - begun, 10)
        assert client.pid is not None
        self.assertFalse(is_running(client.pid))

    async def test_what_a_newer_node_tells_is_passed_on_or_ignored(self) -> None:
        newer = node("newer")
        events = newer.events()
        async with newer:
            heard: list[Event] = [await soon(anext(events)) for _ in range(3)]
        names = [event.name for event in heard if isinstance(event, OtherEvent)]
        self.assertEqual((type(heard[0]), names), (Ready, ["aurora"]))


class FailureTest(NodeTestCase):
    async def test_errors_are_typed(self) -> None:
        async with node() as client:
            with self.assertRaises(PeerNotFound) as caught:
                await client.send("nobody", "hello")
            self.assertEqual((caught.exception.retryable, caught.exception.elapsed_ms), (True, 12))
            with self.assertRaises(Refused) as refused:
                await odd(client, "fail", "refused")
            self.assertEqual((refused.exception.peer, refused.exception.elapsed_ms), (client.peer_id, 7))
            with self.assertRaises(QueueFull):
                await odd(client, "fail", "queue_full")
            with self.assertRaises(P2PError) as unknown:
                await odd(client, "fail", "moon_phase")
            self.assertEqual(unknown.exception.code, "moon_phase")

    async def test_a_node_that_dies_fails_everybody_who_waits(self) -> None:
        async with node() as client:
            events = client.events()
            waiting: list[Awaitable[object]] = [
                odd(client, "never answer"),
                anext(client.listen()),
                odd(client, "die"),
            ]
            for heard in await soon(asyncio.gather(*waiting, return_exceptions=True)):
                assert isinstance(heard, NodeExited), heard
                self.assertEqual(heard.returncode, 70)
                self.assertEqual(heard.stderr_lines, ("thread 'main' panicked: a test wants it",))
            with self.assertRaises(NodeExited):
                async for _ in events:
                    pass
            with self.assertRaises(NodeExited):
                await client.status()
            with self.assertRaises(NodeExited):
                await anext(client.listen())
            with self.assertRaises(NodeExited):
                await anext(client.events())

    async def test_a_call_that_is_never_answered_ends(self) -> None:
        with mock.patch.object(node_module, "ANSWER_MARGIN_SECONDS", 0.05):
            async with node() as client:
                with self.assertRaises(P2PTimeout):
                    await client.send("service", "", msg_type="never answer", timeout=0.05)
                await client.status()

    async def test_a_cancelled_call_leaves_the_node_usable(self) -> None:
        async with node() as client:
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(odd(client, "never answer"), 0.05)
            await client.status()

    async def test_timeouts_that_make_no_sense_are_refused(self) -> None:
        async with node() as client:
            for timeout in [0, -1, 3_601, float("inf"), float("nan")]:
                with self.assertRaises(ValueError):
                    await client.connect("service", timeout=timeout)

    async def test_a_node_is_used_in_its_own_event_loop(self) -> None:
        async with node() as client:
            with self.assertRaises(RuntimeError):
                await asyncio.to_thread(lambda: asyncio.run(run_status(client)))


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
        await self.assert_start_fails(P2PNode(mode="client", binary="/nowhere/p2p-node"), BinaryNotFound)

    async def test_a_file_that_is_no_program(self) -> None:
        path = self.write_program("no program")
        error = await self.assert_start_fails(P2PNode(mode="client", binary=path), BinaryNotFound)
        self.assertIn("Exec format error", error.why)

    async def test_programs_that_speak_something_else(self) -> None:
        for behaviour, why in [
            ("other-protocol", "it speaks version (9,) of p2p-stdio, not 1"),
            ("no-json", "not JSON: b'Usage: p2p-node <COMMAND>\\n'"),
            ("no-hello", "its first event is ready, not hello"),
        ]:
            error = await self.assert_start_fails(node(behaviour), IncompatibleNode)
            self.assertEqual(error.why, why)

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
            mock.patch.object(node_module, "DRAIN_SECONDS", 0.1),
            mock.patch.object(process_module, "TERMINATE_SECONDS", 0.1),
        ):
            await soon(client.close())
        assert client.pid is not None
        self.assertFalse(is_running(client.pid))

    async def test_close_goes_on_when_its_caller_is_cancelled(self) -> None:
        client = await node("stubborn").start()
        with (
            mock.patch.object(node_module, "DRAIN_SECONDS", 0.2),
            mock.patch.object(process_module, "TERMINATE_SECONDS", 0.2),
        ):
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(client.close(), 0.05)
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
        self.assertLess(time.monotonic() - begun, node_module.DRAIN_SECONDS)

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


class BackpressureTest(NodeTestCase):
    async def test_listening_goes_on_after_a_timeout(self) -> None:
        async with node() as client:
            messages = client.listen()
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(messages), 0.05)
            await odd(client, "flood", "1")
            self.assertEqual((await soon(anext(messages))).message.id, "m0")

    async def test_an_answer_comes_through_a_full_inbox_and_nothing_is_lost(self) -> None:
        count = 2 * node_module.INBOX_MESSAGES_MAX
        async with node() as client:
            await odd(client, "flood", str(count))
            await client.status()
            messages = client.listen()
            heard = [(await soon(anext(messages))).message.id for _ in range(count)]
        self.assertEqual(heard, [f"m{number}" for number in range(count)])

    async def test_a_node_whose_messages_nobody_takes_is_not_read(self) -> None:
        # More than inbox, queue and pipe hold together.
        count = 20_000
        with mock.patch.object(process_module, "UNREAD_BYTES_MAX", 100_000):
            async with node() as client:
                events = client.events()
                await odd(client, "pour", str(count))
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(self.wait_until_poured(events), 0.5)
                heard = 0
                async for received in client.listen():
                    self.assertEqual(received.message.id, f"m{heard}")
                    heard += 1
                    if heard == count:
                        break
                await soon(self.wait_until_poured(events))

    async def wait_until_poured(self, events: EventStream) -> None:
        async for event in events:
            if isinstance(event, OtherEvent):
                return

    async def test_a_handler_that_sends_does_not_stop_the_flow(self) -> None:
        count = 3_000
        async with node() as client:
            await odd(client, "pour", str(count))
            heard = 0
            async for _ in client.listen():
                heard += 1
                if heard % 10 == 0:
                    await soon(odd(client, "flood", "0"))
                if heard == count:
                    break

    async def test_what_the_node_does_not_read_is_bounded(self) -> None:
        with mock.patch.object(process_module, "UNWRITTEN_BYTES_MAX", 100_000):
            async with node() as client:
                assert client.pid is not None
                os.kill(client.pid, signal.SIGSTOP)
                # Linux keeps 64 KiB in the pipe, one message is being written, one waits.
                calls = [
                    asyncio.ensure_future(client.send("service", "x" * 60_000, msg_type="note"))
                    for _ in range(4)
                ]
                done, _ = await asyncio.wait(calls, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                os.kill(client.pid, signal.SIGCONT)
                self.assertEqual({type(call.exception()) for call in done}, {QueueFull})
                await soon(asyncio.gather(*calls, return_exceptions=True))
                await client.status()
