"""What a program does that is faster than its user, and a user that is faster than its program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from unittest import mock

from stand_in import node, odd, soon
from support import (
    FAKE_NODE,
    WAIT_SECONDS,
    NodeTestCase,
    over_both_transports,
)

from p2p_node import (
    Message,
    P2PClient,
    P2PServer,
    P2PTimeout,
    Refused,
)
from p2p_node import _inbox as inbox_module
from p2p_node import _process as process_module
from p2p_node._inbox import CREDIT_MESSAGES


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
