"""What a user is told when the program, or what is asked of it, fails."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from unittest import mock

from stand_in import node, odd, soon
from support import (
    NodeTestCase,
    over_both_transports,
)

from p2p_node import (
    NodeExited,
    NodeStatus,
    P2PError,
    P2PNode,
    P2PTimeout,
    PeerNotFound,
    QueueFull,
    Refused,
)
from p2p_node import _calls as calls_module
from p2p_node import _process as process_module
from p2p_node._calls import MESSAGES_AT_ONCE
from p2p_node._node import DRAIN_SECONDS


def exit_code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def run_status(node: P2PNode) -> NodeStatus:
    return await node.status()


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
