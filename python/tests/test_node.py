"""A node as its user sees it, with a stand-in for the program."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from support import (
    FAKE_NODE,
    WAIT_SECONDS,
    NodeTestCase,
    is_running,
    over_both_transports,
    wait_until_gone,
)

from p2p_node import (
    BinaryNotFound,
    Bye,
    ConfigError,
    Connected,
    Delivered,
    IncompatibleNode,
    Message,
    NodeClosed,
    NodeExited,
    NodeStatus,
    NotReady,
    Online,
    OtherEvent,
    P2PClient,
    P2PError,
    P2PNode,
    P2PServer,
    P2PTimeout,
    PeerNotFound,
    PeerUnreachable,
    QueueFull,
    Ready,
    Refused,
)
from p2p_node import _calls as calls_module
from p2p_node import _inbox as inbox_module
from p2p_node import _process as process_module
from p2p_node._calls import MESSAGES_AT_ONCE
from p2p_node._inbox import CREDIT_MESSAGES
from p2p_node._node import DRAIN_SECONDS

_T = TypeVar("_T")


async def soon(awaitable: Awaitable[_T]) -> _T:
    """The outcome, which is due within moments."""
    return await asyncio.wait_for(awaitable, WAIT_SECONDS)


def node(behaviour: str = "", start_timeout: float = WAIT_SECONDS) -> P2PNode:
    environment = {"FAKE_NODE": behaviour}
    return P2PNode(binary=FAKE_NODE, env=environment, start_timeout=start_timeout)


async def odd(node: P2PNode, kind: str, payload: str = "") -> None:
    """Sends a message that makes the stand-in do something."""
    await node.send("service", payload, msg_type=kind)


def exit_code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def shout(message: Message) -> str:
    return message.text().upper()


async def run_status(node: P2PNode) -> NodeStatus:
    return await node.status()


@over_both_transports
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
        self.assertEqual((heard, heard.sender), (message, client.peer_id))

        answer = Message.create(msg_type="response", payload={"ok": True})
        await server.send_message(client.peer_id, answer)
        heard = await soon(anext(client.listen()))
        self.assertEqual((heard, heard.sender), (answer, server.peer_id))

        await client.send_message(server.peer_id, message)
        await client.close()
        await server.close()

    async def test_large_and_odd_payloads_arrive_as_they_are_in_order(self) -> None:
        payloads = [b"two\nlines", "\N{SNOWMAN}".encode(), bytes(range(256)) * 8_192, b""]
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            await asyncio.gather(*(client.send("service", payload) for payload in payloads))
            heard = [(await soon(anext(server.listen()))).payload for _ in payloads]
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
            await newer.status()
        heard = [event async for event in events]
        self.assertEqual((type(heard[0]), type(heard[-1])), (Ready, Bye))
        names = [event.name for event in heard if isinstance(event, OtherEvent)]
        # A frame of a newer node does not say what it is called.
        self.assertEqual(names, ["aurora"] if self.transport == "json" else [])

    async def test_only_the_asked_for_events_are_told(self) -> None:
        client = node()
        online = client.events("online", "bye")
        async with client:
            pass
        self.assertEqual([type(event) async for event in online], [Online, Bye])
        with self.assertRaises(ValueError):
            client.events("onlin")

    async def test_a_message_without_a_peer_goes_to_the_server(self) -> None:
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            receipt = await client.send_message(Message.create(payload="hello"))
            self.assertEqual((receipt.peer, receipt.state), (server.peer_id, "delivered"))
            with self.assertRaises(TypeError):
                await client.send_message("service")  # type: ignore[call-overload]

    async def test_a_request_gets_its_answer_and_nobody_else_does(self) -> None:
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            serving = asyncio.ensure_future(server.serve(shout))
            texts = [f"number {number}" for number in range(100)]
            answers = await soon(asyncio.gather(*(client.request("service", text) for text in texts)))
            self.assertEqual([answer.text() for answer in answers], [text.upper() for text in texts])
            self.assertEqual(answers[0].sender, server.peer_id)
            # It is no message like any other.
            await server.send(client.peer_id, "last")
            self.assertEqual((await soon(anext(client.listen()))).text(), "last")
            await server.close()
            await soon(serving)

    async def test_a_handler_that_fails_does_not_end_the_service(self) -> None:
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            serving = asyncio.ensure_future(server.serve(shout, concurrency=1))
            with self.assertLogs("p2p_node", "ERROR"):
                await client.send("service", b"\xff")
                self.assertEqual((await soon(client.request("service", "hello"))).text(), "HELLO")
            serving.cancel()
            await asyncio.wait({serving})
            with self.assertRaises(ValueError):
                await server.serve(shout, concurrency=0)

    async def test_only_what_has_arrived_can_be_replied_to(self) -> None:
        async with node() as client:
            with self.assertRaises(ValueError):
                await client.reply(Message.create(), "hello")
            with self.assertRaises(TypeError):
                await client.request("service", Message.create(), msg_type="other")

    async def test_a_broadcast_tells_who_has_it(self) -> None:
        server, one, other = (
            P2PServer(binary=FAKE_NODE),
            P2PClient(binary=FAKE_NODE),
            P2PClient(binary=FAKE_NODE),
        )
        async with server, one, other:
            result = await server.broadcast("hello all", msg_type="one fails")
            sent = {receipt.peer for receipt in result.sent}
            self.assertEqual(sent, {one.peer_id, other.peer_id})
            (failed,) = result.failed
            self.assertIsInstance(failed, PeerUnreachable)
            self.assertEqual(failed.peer, "y" * 52)
            for client in (one, other):
                self.assertEqual((await soon(anext(client.listen()))).text(), "hello all")

    async def test_peers_and_the_network_are_asked(self) -> None:
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            pong = await client.ping(server.peer_id)
            self.assertEqual((pong.peer, pong.rtt_ms, pong.path.kind), (server.peer_id, 0.25, "loopback"))
            netcheck = await client.netcheck()
            self.assertEqual((netcheck.udp, netcheck.mapping), (True, "endpoint-independent"))

    async def test_a_queued_message_is_told_of_when_it_arrives(self) -> None:
        async with node() as client:
            events = client.events("delivered")
            receipt = await client.send("service", "later", msg_type="queue")
            self.assertEqual(receipt.state, "queued")
            delivered = await soon(anext(events))
            assert isinstance(delivered, Delivered)
            self.assertEqual(delivered.receipt.message_id, receipt.message_id)

    async def test_a_server_waits_until_it_can_be_found(self) -> None:
        async with P2PServer(binary=FAKE_NODE) as server:
            await soon(server.wait_online())
        async with node() as client:
            with self.assertRaises(NotReady):
                await client.wait_online()

    async def test_several_nodes_live_in_one_loop(self) -> None:
        nodes = [node() for _ in range(4)]
        await asyncio.gather(*(one.start() for one in nodes))
        self.assertEqual(len({one.peer_id for one in nodes}), 4)
        await asyncio.gather(*(one.close() for one in nodes))


@over_both_transports
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
        with mock.patch.object(calls_module, "ANSWER_MARGIN_SECONDS", 0.05):
            async with node() as client:
                with self.assertRaises(P2PTimeout):
                    await client.send("service", "", msg_type="never answer", timeout=0.05)
                await client.status()

    async def test_a_cancelled_call_is_cancelled_at_the_node(self) -> None:
        async with node() as client:
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(odd(client, "never answer"), 0.05)
            self.assertIn("cancelled [1]", (await client.status()).nat)

    async def test_a_call_that_never_had_its_turn_ends_in_time(self) -> None:
        async with node() as client:
            calls = [asyncio.ensure_future(odd(client, "never answer")) for _ in range(MESSAGES_AT_ONCE)]
            await asyncio.sleep(0)
            with self.assertRaises(P2PTimeout) as caught:
                await client.send("service", "late", timeout=0.1)
            self.assertIn("messages waited", caught.exception.why)
            cancelled = asyncio.ensure_future(odd(client, "note"))
            await asyncio.sleep(0)
            for call in [*calls, cancelled]:
                call.cancel()
            await asyncio.wait([*calls, cancelled])
            # Their places are free again.
            await soon(odd(client, "note"))

    async def test_garbage_on_stdout(self) -> None:
        async with node() as client:
            if self.transport == "json":
                with self.assertLogs("p2p_node", "WARNING"):
                    await odd(client, "garble")
                await client.status()
            else:
                # Nobody knows where the next frame begins.
                with self.assertLogs("p2p_node", "WARNING"), self.assertRaises(NodeExited):
                    # Its answer may be read before the garbage is.
                    await odd(client, "garble")
                    await client.status()

    async def test_a_node_that_closes_its_stdout_is_ended(self) -> None:
        with mock.patch.object(process_module, "SILENT_SECONDS", 0.05):
            async with node() as client:
                with self.assertRaises(NodeExited):
                    await soon(odd(client, "close stdout"))

    async def test_a_fork_cannot_use_the_node(self) -> None:
        async with node() as client:
            child = os.fork()
            if child == 0:
                # Nothing of the test may run on in here.
                code = 1
                try:
                    client.listen()._mailbox._check_use()  # type: ignore[misc]
                except RuntimeError as error:
                    code = 0 if "fork" in str(error) else 2
                finally:
                    os._exit(code)
            self.assertEqual(exit_code_of(child), 0)
            # The parent's pipes are whole.
            await client.status()

    async def test_a_fork_does_not_keep_the_node_alive(self) -> None:
        async with node() as client:
            readable, writable = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(writable)
                os.read(readable, 1)
                os._exit(0)
            begun = time.monotonic()
            await client.close()
            self.assertLess(time.monotonic() - begun, DRAIN_SECONDS)
            os.close(writable)
            os.close(readable)
            exit_code_of(child)

    async def test_timeouts_that_make_no_sense_are_refused(self) -> None:
        async with node() as client:
            for timeout in [0, -1, 3_601, float("inf"), float("nan")]:
                with self.assertRaises(ValueError):
                    await client.connect("service", timeout=timeout)

    async def test_a_node_is_used_in_its_own_event_loop(self) -> None:
        async with node() as client:
            with self.assertRaises(RuntimeError):
                await asyncio.to_thread(lambda: asyncio.run(run_status(client)))


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


@over_both_transports
class BackpressureTest(NodeTestCase):
    async def test_listening_goes_on_after_a_timeout(self) -> None:
        async with node() as client:
            messages = client.listen()
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(messages), 0.05)
            await odd(client, "flood", "1")
            self.assertEqual((await soon(anext(messages))).id, "m0")

    async def test_what_nobody_takes_is_bounded_and_nothing_is_lost(self) -> None:
        count = 3 * CREDIT_MESSAGES
        async with node() as client:
            await odd(client, "flood", str(count))
            # Answers come past the messages that wait.
            while not (await client.status()).nat.endswith("credit 0"):
                pass
            self.assertEqual(len(client._session.inbox), CREDIT_MESSAGES)
            messages = client.listen()
            heard = [(await soon(anext(messages))).id for _ in range(count)]
        self.assertEqual(heard, [f"m{number}" for number in range(count)])

    async def test_large_messages_that_nobody_takes_are_bounded_by_their_bytes(self) -> None:
        count = 60
        with mock.patch.multiple(inbox_module, PAUSE_BYTES=5_000_000, RESUME_BYTES=2_000_000):
            async with node() as client:
                await odd(client, "pour large", str(count))
                heard = 0
                async for message in client.listen():
                    # What is in the pipe when the node is told to pause, and in its buffers, still comes.
                    self.assertLess(len(client._session.inbox), 20)
                    self.assertEqual(message.id, f"m{heard}")
                    heard += 1
                    await client.status()
                    if heard == count:
                        break

    async def test_a_handler_that_sends_never_stands_still(self) -> None:
        count = 20_000
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            waiting = 0

            async def echo() -> None:
                nonlocal waiting
                heard = 0
                async for message in server.listen():
                    waiting = max(waiting, len(server._session.inbox))
                    heard += 1
                    if heard % 10 == 0:
                        await server.send(client.peer_id, message.payload)
                    if heard == count:
                        return

            async def listen() -> list[str]:
                messages = client.listen()
                return [(await anext(messages)).text() for _ in range(count // 10)]

            echoing, listening = asyncio.ensure_future(echo()), asyncio.ensure_future(listen())
            sent = await client.send_many("service", (str(number) for number in range(count)))
            await asyncio.wait_for(echoing, 3 * WAIT_SECONDS)
            self.assertEqual(sent, count)
            self.assertEqual(await soon(listening), [str(number) for number in range(9, count, 10)])
            self.assertLessEqual(waiting, CREDIT_MESSAGES)

    async def test_thousands_sent_at_once_wait_for_their_turn_and_keep_their_order(self) -> None:
        count = 3_000
        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            messages = server.listen()
            sending = asyncio.gather(*(client.send("service", str(number)) for number in range(count)))
            heard = [int((await soon(anext(messages))).payload) for _ in range(count)]
            await sending
        self.assertEqual(heard, list(range(count)))

    async def test_many_messages_in_one_call(self) -> None:
        async def slowly() -> AsyncIterator[Message]:
            for number in range(10):
                await asyncio.sleep(0)
                yield Message.create(payload=number)

        async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
            self.assertEqual(await client.send_many("service", []), 0)
            self.assertEqual(await client.send_many("service", slowly()), 10)
            messages = server.listen()
            self.assertEqual([(await anext(messages)).json() for _ in range(10)], list(range(10)))

    async def test_many_messages_stop_at_the_first_failure(self) -> None:
        taken = 0

        def messages() -> Iterator[Message]:
            nonlocal taken
            for taken in range(100_000):
                yield Message.create(msg_type="fail" if taken == 10 else "note", payload="refused")

        async with node() as client:
            with self.assertRaises(Refused):
                await client.send_many("service", messages())
            self.assertLess(taken, 10_000)
            self.assertEqual(await client.send_many("service", [Message.create(msg_type="note")]), 1)
            # Cancelled, it gives up what is under way.
            never = Message.create(msg_type="never answer")
            sending = asyncio.ensure_future(client.send_many("service", [never]))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})
            self.assertNotIn("cancelled []", (await client.status()).nat)

    async def test_a_node_that_reads_nothing_holds_no_more_than_a_windows_worth(self) -> None:
        async with node("reads-nothing") as client:
            payload = bytes(1_000_000)
            calls = [asyncio.ensure_future(client.send("service", payload, timeout=0.5)) for _ in range(100)]
            outcomes = await soon(asyncio.gather(*calls, return_exceptions=True))
            self.assertEqual({type(outcome) for outcome in outcomes}, {P2PTimeout})
            with mock.patch.object(process_module, "TERMINATE_SECONDS", 5):
                await client.close(drain=0)


class OtherLoopsTest(NodeTestCase):
    """Event loops that cannot watch pipes, as on Windows: threads do it."""

    def test_nodes_work_in_loops_that_cannot_watch_pipes(self) -> None:
        class Loop(asyncio.SelectorEventLoop):
            def add_reader(  # type: ignore[override]
                self, fd: Any, callback: Callable[..., Any], *args: Any
            ) -> None:
                raise NotImplementedError

        async def talk() -> None:
            async with P2PServer(binary=FAKE_NODE) as server, P2PClient(binary=FAKE_NODE) as client:
                large = bytes(range(256)) * 10_000
                await client.send("service", large)
                self.assertEqual((await soon(anext(server.listen()))).payload, large)
                sending = asyncio.ensure_future(client.send_many("service", map(str, range(2_000))))
                messages = server.listen()
                heard = [int((await soon(anext(messages))).text()) for _ in range(2_000)]
                self.assertEqual(heard, list(range(2_000)))
                await sending
            with self.assertRaises(NodeExited):
                async with node() as dying:
                    await odd(dying, "die")

        loop = Loop()
        try:
            loop.run_until_complete(talk())
        finally:
            loop.close()
