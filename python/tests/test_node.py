"""A node as its user sees it, with a stand-in for the program."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from stand_in import node, odd, soon
from support import (
    FAKE_NODE,
    NodeTestCase,
    is_running,
    over_both_transports,
)

from p2p_node import (
    Bye,
    Connected,
    Delivered,
    Message,
    NodeExited,
    NotReady,
    Online,
    OtherEvent,
    P2PClient,
    P2PNode,
    P2PServer,
    PeerNotFound,
    PeerUnreachable,
    Progress,
    Ready,
)


async def shout(message: Message) -> str:
    return message.text().upper()


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
                self.assertEqual((peer.connected_ms, peer.path_ms, peer.loss_percent), (5, 4, 0.0))
                (caller,) = await server.peers()
                self.assertIsNone(caller.loss_percent, "nothing was sent to it, which is not the same as 0")
                self.assertEqual((await client.status()).peers, 1)
                await client.disconnect(server.peer_id)

    async def test_a_step_of_a_dial_says_what_is_tried_and_why(self) -> None:
        async with P2PServer(binary=FAKE_NODE), P2PNode(binary=FAKE_NODE) as node:
            events = node.events()
            await node.send("service", "hello")
            steps: list[Progress] = []
            while len(steps) < 2:
                event = await soon(anext(events))
                steps += [event] if isinstance(event, Progress) else []
        self.assertEqual(
            [(step.strategy, step.why) for step in steps], [(None, None), ("direct", "it is near")]
        )

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
            self.assertEqual((netcheck.ports.allocation, netcheck.ports.step), ("block", None))
            self.assertEqual([server.rtt_ms for server in netcheck.servers], [20.5, None])
            self.assertEqual(netcheck.pairs, ())

    async def test_the_way_to_a_peer_is_judged_without_a_dial(self) -> None:
        async with node() as client:
            netcheck = await client.netcheck("y" * 52, lifetime=30)
            (pair,) = netcheck.pairs
            self.assertEqual((pair.peer, pair.outlook, pair.record_age_ms), ("y" * 52, "impossible", None))
            self.assertEqual([way.method for way in pair.ways], ["no direct way"])
            self.assertEqual(netcheck.lifetime.less_than_ms, 30_000)
            self.assertIsNone(netcheck.lifetime.at_least_ms)

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
