"""The package with p2p-node itself, on a DHT and STUN servers of its own on loopback."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from unittest import mock

from support import WAIT_SECONDS, NodeTestCase, over_both_transports, real_binary

from p2p_node import (
    ConfigError,
    Delivered,
    InvalidCall,
    Message,
    NoReply,
    P2PClient,
    P2PNode,
    P2PServer,
    PeerNotFound,
    Refused,
)
from p2p_node._inbox import CREDIT_MESSAGES
from p2p_node.testing import Testnet

SERVICE = "myapi:v1"


@over_both_transports
class TestnetTest(NodeTestCase):
    binary: Path
    testnet: Testnet

    @classmethod
    def setUpClass(cls) -> None:
        cls.binary = real_binary()
        cls.testnet = Testnet(binary=cls.binary)
        cls.addClassCleanup(cls.testnet.close)

    def setUp(self) -> None:
        super().setUp()
        environment = mock.patch.dict(
            os.environ, {**self.testnet.environment, "P2P_NODE_BIN": str(self.binary)}
        )
        environment.start()
        self.addCleanup(environment.stop)
        # Another runtime directory than the server's, as on another machine: only the DHT leads to it.
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        self.elsewhere = {"XDG_RUNTIME_DIR": str(elsewhere)}

    def client(self, server: str | None = None, secret: Path | None = None) -> P2PClient:
        return P2PClient(
            server,
            service=SERVICE if server is None else None,
            service_secret_file=secret,
            ephemeral=True,
            env=self.elsewhere,
            connect_timeout=WAIT_SECONDS,
        )

    async def go_online(self, server: P2PServer) -> P2PServer:
        """Starts `server` and waits until it can be found."""
        await server.start()
        self.addAsyncCleanup(server.close)
        await server.wait_online(timeout=WAIT_SECONDS)
        return server

    async def talk(self, server: P2PServer, client: P2PClient) -> None:
        """A message each way."""
        question = Message.create(msg_type="request", payload={"n": 1}, metadata={"key": "value"})
        receipt = await client.send_message(question)
        self.assertEqual((receipt.message_id, receipt.peer), (question.id, server.peer_id))
        heard = await hear(server)
        self.assertEqual((heard, heard.sender), (question, client.peer_id))
        answer = Message.create(payload=b"\xff\x00\n")
        await server.send_message(client.peer_id, answer)
        heard = await hear(client)
        self.assertEqual((heard, heard.sender), (answer, server.peer_id))

    async def test_a_client_finds_a_service(self) -> None:
        server = await self.go_online(P2PServer(service=SERVICE, ephemeral=True))
        self.assertEqual((server.ready.service, server.ready.admission), (SERVICE, "anyone"))
        async with self.client() as client:
            await self.talk(server, client)
            (peer,) = await client.peers()
            self.assertEqual((peer.connection.peer, peer.messages_sent), (server.peer_id, 1))
            self.assertLessEqual(peer.path_ms, peer.connected_ms)
            # A busy machine may lose a datagram on loopback, too.
            assert peer.loss_percent is not None and 0 <= peer.loss_percent <= 100, peer
            status = await server.status()
            self.assertEqual((status.peer_id, status.online, status.peers), (server.peer_id, True, 1))
            await client.disconnect(server.peer_id)
            self.assertEqual(await client.peers(), ())

    async def test_a_ticket_leads_to_its_server(self) -> None:
        server = await self.go_online(P2PServer(ephemeral=True))
        async with self.client(server.ticket) as client:
            await self.talk(server, client)

    async def test_a_peer_id_leads_to_its_server(self) -> None:
        server = await self.go_online(P2PServer(service=SERVICE, ephemeral=True))
        async with self.client(server.peer_id) as client:
            await self.talk(server, client)

    async def test_only_who_knows_the_secret_finds_the_service(self) -> None:
        secret, other = self.folder / "secret", self.folder / "other"
        for file in (secret, other):
            file.write_text(secrets.token_hex(16))
            file.chmod(0o600)
        server = await self.go_online(P2PServer(service=SERVICE, service_secret_file=secret, ephemeral=True))
        self.assertEqual(server.ready.admission, "secret")
        async with self.client(secret=secret) as client:
            await self.talk(server, client)
            stranger = P2PNode(
                service=SERVICE,
                service_secret_file=other,
                ephemeral=True,
                env=self.elsewhere,
            )
            async with stranger:
                with self.assertRaises(PeerNotFound) as caught:
                    await stranger.connect("service", timeout=4)
                self.assertTrue(caught.exception.why and caught.exception.hint, caught.exception)

    async def test_who_is_not_on_the_list_is_refused(self) -> None:
        friend = P2PNode(ephemeral=True)
        async with friend:
            listed = friend.peer_id
        server = await self.go_online(P2PServer(service=SERVICE, allow=[listed], ephemeral=True))
        with self.assertRaises(Refused):
            await self.client().start()
        self.assertEqual(await server.peers(), ())

    async def test_large_messages_and_many_messages_arrive_in_order(self) -> None:
        payloads = [secrets.token_bytes(size) for size in (0, 1, 100_000, 8 * 1024 * 1024)]
        payloads += [str(number).encode() for number in range(100)]
        server = await self.go_online(P2PServer(service=SERVICE, ephemeral=True))
        async with self.client() as client:
            sending = asyncio.gather(*(client.send("service", payload) for payload in payloads))
            heard = [(await hear(server)).payload for _ in payloads]
            await sending
        self.assertEqual(heard, payloads)

    async def test_requests_broadcasts_and_questions(self) -> None:
        server = await self.go_online(P2PServer(service=SERVICE, ephemeral=True))
        async with self.client() as client:
            serving = asyncio.ensure_future(server.serve(shout))
            answer = await client.request("service", "hello", timeout=WAIT_SECONDS)
            self.assertEqual((answer.text(), answer.sender), ("HELLO", server.peer_id))
            with self.assertRaises(NoReply):
                await client.request("service", b"quiet", timeout=0.5)
            result = await server.broadcast("to all")
            self.assertEqual([receipt.peer for receipt in result.sent], [client.peer_id])
            self.assertEqual((await hear(client)).text(), "to all")
            pong = await client.ping(server.peer_id)
            self.assertEqual((pong.peer, pong.path.kind), (server.peer_id, client.server.path.kind))
            netcheck = await client.netcheck()
            self.assertTrue(netcheck.udp, netcheck)
            serving.cancel()

    async def test_a_slow_listener_slows_the_sender_and_nothing_is_lost(self) -> None:
        count = 6_000
        server = await self.go_online(P2PServer(service=SERVICE, ephemeral=True))
        async with self.client() as client:
            payloads = (str(number).encode() + bytes(4_000) for number in range(count))
            sending = asyncio.ensure_future(client.send_many("service", payloads))
            # Nobody listens: what is under way fills up and stays there.
            await asyncio.wait({sending}, timeout=1)
            self.assertFalse(sending.done())
            self.assertLessEqual(len(server._session.inbox), CREDIT_MESSAGES)
            messages = server.listen()
            for number in range(count):
                message = await asyncio.wait_for(anext(messages), WAIT_SECONDS)
                self.assertEqual(int(message.payload.rstrip(b"\0")), number)
            self.assertEqual(await sending, count)

    async def test_what_makes_no_sense_is_refused(self) -> None:
        async with P2PNode(ephemeral=True) as node:
            for peer, code in [("p2p1damaged", "invalid_ticket"), ("nobody", "invalid_argument")]:
                with self.assertRaises(InvalidCall) as caught:
                    await node.connect(peer)
                self.assertEqual(caught.exception.code, code)
            with self.assertRaises(InvalidCall) as caught:
                await node.connect(node.peer_id)
            self.assertEqual(caught.exception.code, "self_connect")

    async def test_what_an_outbox_holds_arrives_when_the_peer_is_there(self) -> None:
        key = self.folder / "server.key"
        async with P2PServer(identity=key, env=self.elsewhere) as server:
            ticket = server.ticket
        client = P2PNode(outbox=self.folder / "outbox", env=self.elsewhere)
        async with client:
            queued = await client.send(ticket, "later", timeout=0.5)
            self.assertEqual(queued.state, "queued")
            delivered = client.events("delivered")
            async with P2PServer(identity=key, env=self.elsewhere) as server:
                self.assertEqual((await hear(server)).text(), "later")
                event = await asyncio.wait_for(anext(delivered), WAIT_SECONDS)
                assert isinstance(event, Delivered)
                self.assertEqual(event.receipt.message_id, queued.message_id)

    async def test_two_nodes_do_not_share_an_identity(self) -> None:
        identity = self.folder / "identity.key"
        async with P2PServer(identity=identity):
            with self.assertRaises(ConfigError) as caught:
                await P2PServer(identity=identity).start()
        self.assertEqual(caught.exception.code, "key_in_use")

    async def test_a_wrong_flag_is_explained(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            await P2PNode(arguments=["--no-such-flag"]).start()
        self.assertIn("--no-such-flag", caught.exception.why)


async def shout(message: Message) -> str | None:
    return message.text().upper() if message.type == "text" else None


async def hear(node: P2PNode) -> Message:
    return await asyncio.wait_for(anext(node.listen()), WAIT_SECONDS)
