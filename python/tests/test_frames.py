"""The frames: what the schema allows, cut into pieces of any size."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import support

from p2p_node import Message

try:
    from p2p_node._frames import FRAME_BYTES_MAX, FrameCodec, _varint
    from p2p_node._proto import message_pb2, stdio_pb2
except ImportError:
    raise unittest.SkipTest("protobuf is not installed") from None

HAS_COMPILER = importlib.util.find_spec("grpc_tools") is not None


class FramesTest(unittest.TestCase):
    def frame(self, event: stdio_pb2.Event) -> bytes:
        encoded = event.SerializeToString()
        return _varint(len(encoded)) + encoded

    def test_frames_are_understood_however_they_are_cut(self) -> None:
        chance = random.Random(1)
        frames: list[bytes] = []
        expected: list[object] = []
        sizes = [0, 1, 90, 127, 128, 300, 20_000, 262_144, 5_000_000, 16 * 1024 * 1024]
        for number in range(1, 300):
            frames.append(self.frame(stdio_pb2.Event(ok=stdio_pb2.Event.Ok(id=number))))
            expected.append(number)
            size = sizes[number % len(sizes)] if number < 20 else chance.randrange(2_000)
            message = Message.create(
                payload=chance.randbytes(size), metadata={"a": "b"} if number % 2 else {}
            )
            event = stdio_pb2.Event(message=stdio_pb2.Event.Received(peer="m2ka"))
            body = event.message.message
            body.id, body.type, body.payload = message.id, message.type, message.payload
            body.timestamp = message.timestamp
            body.metadata.update(message.metadata)
            frames.append(self.frame(event))
            expected.append(message)
        for seed, piece_max in enumerate([3_000, 300_000, 10_000_000]):
            self.assertEqual(support.told_in_pieces(b"".join(frames), "protobuf", seed, piece_max), expected)

    def test_what_a_newer_node_says_is_passed_over(self) -> None:
        ready = stdio_pb2.Event(bye=stdio_pb2.Event.Bye(reason="signal")).SerializeToString()
        unknown_field = ready[:1] + bytes([ready[1] + 4]) + ready[2:] + b"\xc2\x0c\x01x"
        unknown_event = b"\xc2\x0c\x06aurora"
        encoded = b"".join(_varint(len(one)) + one for one in (unknown_event, unknown_field, b"", ready))
        self.assertEqual(support.told_in_pieces(encoded, "protobuf", 0, 10), ["bye", "bye"])

    def test_what_is_no_frame_is_told(self) -> None:
        self.assertEqual(support.told_in_pieces(b"\x03\xff\xff\xff", "protobuf", 0, 9), ["malformed"])
        self.assertEqual(support.told_in_pieces(_varint(FRAME_BYTES_MAX + 1), "protobuf", 0, 9), ["garbage"])
        self.assertEqual(support.told_in_pieces(b"\xff" * 6, "protobuf", 0, 9)[:1], ["garbage"])

    def test_commands_are_what_the_schema_says(self) -> None:
        codec = FrameCodec()
        for size in (0, 1_000, 8 * 1024, 8 * 1024 + 1, 3_000_000):
            message = Message.create(payload=bytes(size), metadata={"a": "b"})
            for verb in ("send", "request", "reply", "broadcast"):
                with self.subTest(size=size, verb=verb):
                    to = "01ab" if verb == "reply" else ""
                    encoded = b"".join(codec.message_command(verb, 7, 1_000, "m2ka", to, message))
                    command = stdio_pb2.Command.FromString(encoded[len(_varint_of(encoded)) :])
                    self.assertEqual((command.id, command.timeout_ms), (7, 1_000))
                    self.assertEqual(command.WhichOneof("verb"), verb)
                    body = getattr(command, verb)
                    self.assertEqual(body.message.payload, message.payload)
                    self.assertEqual((body.message.id, dict(body.message.metadata)), (message.id, {"a": "b"}))
                    if verb != "broadcast":
                        self.assertEqual(body.peer, "m2ka")
                    if verb == "reply":
                        self.assertEqual(body.to, "01ab")

    def test_a_program_with_a_schema_of_its_own_does_not_collide(self) -> None:
        from google.protobuf import descriptor_pb2, descriptor_pool

        other = descriptor_pb2.FileDescriptorProto(name="message.proto", package="p2p_node")
        other.message_type.add(name="Message")
        descriptor_pool.DescriptorPool().Add(other)
        with self.assertRaises(KeyError):
            descriptor_pool.Default().FindFileByName("stdio.proto")

    @unittest.skipUnless(HAS_COMPILER, "grpcio-tools is not installed: it compiles the schema")
    def test_the_committed_schema_is_the_one_in_proto(self) -> None:
        script = support.PYTHON_FOLDER / "regenerate"
        committed = support.PYTHON_FOLDER / "p2p_node" / "_proto"
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, str(script), folder], check=True, env=support.offline())
            made = sorted(Path(folder).iterdir())
            self.assertEqual(len(made), 4)
            for file in made:
                self.assertEqual(file.read_text(), (committed / file.name).read_text(), file.name)
        self.assertEqual(message_pb2.DESCRIPTOR.package, "p2p_node")


def _varint_of(encoded: bytes) -> bytes:
    end = next(index for index, byte in enumerate(encoded) if byte < 128)
    return encoded[: end + 1]
