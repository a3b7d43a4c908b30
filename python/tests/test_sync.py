"""The blocking form, with a stand-in for the program."""

from __future__ import annotations

import inspect
import threading

from support import FAKE_NODE, NodeTestCase, over_both_transports

import p2p_node
from p2p_node import Message, NodeClosed, PeerNotFound, sync


def shout(message: Message) -> str:
    return message.text().upper()


@over_both_transports
class SyncTest(NodeTestCase):
    def test_a_conversation_without_await(self) -> None:
        with sync.P2PServer(binary=FAKE_NODE) as server, sync.P2PClient(binary=FAKE_NODE) as client:
            server.wait_online()
            message = Message.create(msg_type="request", payload="hello")
            self.assertEqual(client.send_message(message).peer, server.peer_id)
            heard = next(server.listen(timeout=20))
            self.assertEqual((heard, heard.sender), (message, client.peer_id))
            server.reply(heard, "well")
            self.assertEqual([answer.text() for answer in client.listen(timeout=0.2)], ["well"])
            self.assertEqual(client.send_many("service", map(str, range(500))), 500)
            self.assertEqual((client.ping("service").peer, client.status().peers), (server.peer_id, 1))
            self.assertEqual(len(server.broadcast("all").sent), 1)
            with self.assertRaises(PeerNotFound):
                client.send("nobody", "hello")
            events = client.events(timeout=20)
            client.disconnect(server.peer_id)
            self.assertEqual(type(next(events)).__name__, "Disconnected")
        with self.assertRaises(NodeClosed):
            client.status()
        client.close()

    def test_a_server_answers_from_threads(self) -> None:
        with sync.P2PServer(binary=FAKE_NODE) as server, sync.P2PClient(binary=FAKE_NODE) as client:
            serving = threading.Thread(target=server.serve, args=(shout,))
            serving.start()
            self.assertEqual(client.request("service", "hello").text(), "HELLO")
            server.close()
            serving.join(20)
            self.assertFalse(serving.is_alive())

    async def test_it_works_in_a_running_loop(self) -> None:
        with sync.P2PNode(binary=FAKE_NODE) as node:
            self.assertEqual(node.peers(), ())

    def test_a_start_that_fails_leaves_no_thread(self) -> None:
        before = threading.active_count()
        with self.assertRaises(PeerNotFound):
            sync.P2PClient(binary=FAKE_NODE, service="a:v1", connect_timeout=0.1).start()
        self.assertEqual([t.name for t in threading.enumerate() if t.name == "p2p-node loop"], [])
        self.assertLessEqual(threading.active_count(), before + 2)


class SameInterfaceTest(NodeTestCase):
    def test_both_forms_take_the_same_options(self) -> None:
        for name in ("P2PNode", "P2PServer", "P2PClient"):
            ours, theirs = getattr(sync, name), getattr(p2p_node, name)
            self.assertEqual(inspect.signature(ours), inspect.signature(theirs), name)
            for parameter in inspect.signature(theirs).parameters.values():
                self.assertNotEqual(parameter.kind, inspect.Parameter.VAR_KEYWORD)

    def test_a_client_takes_all_options_of_a_node(self) -> None:
        node, client = (inspect.signature(kind).parameters for kind in (p2p_node.P2PNode, p2p_node.P2PClient))
        own = {"server", "connect_timeout"}
        self.assertEqual({**node}, {name: client[name] for name in client if name not in own})

    def test_both_forms_have_the_same_methods(self) -> None:
        for name in ("P2PNode", "P2PClient"):
            ours, theirs = (
                {
                    method: [*inspect.signature(value).parameters]
                    for method, value in inspect.getmembers(kind, inspect.isfunction)
                    if not method.startswith("_")
                }
                for kind in (getattr(sync, name), getattr(p2p_node, name))
            )
            # Their iterators end by themselves.
            ours["listen"].remove("timeout")
            ours["events"].remove("timeout")
            self.assertEqual(ours, theirs)
