"""What a message holds, and how it looks on the way to the node."""

from __future__ import annotations

import json
import time
import unittest

import support as support  # It says where p2p_node is.

from p2p_node import Message, MessageTooLarge
from p2p_node._json import JSON, Fields
from p2p_node._message import PAYLOAD_BYTES_MAX, message_from, to_wire


class CreateTest(unittest.TestCase):
    def test_the_asked_form_makes_a_message(self) -> None:
        before = time.time_ns() // 1_000_000
        message = Message.create(msg_type="request", payload="hello world", metadata={"key": "value"})
        expected = Message(message.id, "request", b"hello world", message.timestamp, {"key": "value"})
        self.assertEqual(message, expected)
        self.assertEqual(len(message.id), 32)
        self.assertTrue(before <= message.timestamp <= before + 60_000)

    def test_the_type_follows_the_payload(self) -> None:
        payloads: list[tuple[JSON | bytes | bytearray, str, bytes]] = [
            ("grüß", "text", "grüß".encode()),
            (b"\xff\x00", "bytes", b"\xff\x00"),
            (bytearray(b"ab"), "bytes", b"ab"),
            ({"a": [1, 2.5, None, True]}, "json", b'{"a":[1,2.5,null,true]}'),
            (12345678901234567890, "json", b"12345678901234567890"),
            (None, "json", b"null"),
        ]
        for payload, kind, encoded in payloads:
            with self.subTest(payload=payload):
                message = Message.create(payload=payload)
                self.assertEqual((message.type, message.payload), (kind, encoded))

    def test_a_payload_is_read_as_text_or_json(self) -> None:
        self.assertEqual(Message.create(payload="grüß").text(), "grüß")
        self.assertEqual(Message.create(payload={"n": [1]}).json(), {"n": [1]})
        with self.assertRaises(UnicodeDecodeError):
            Message.create(payload=b"\xff").text()
        with self.assertRaises(ValueError):
            Message.create(payload="{").json()

    def test_two_messages_have_different_ids(self) -> None:
        self.assertNotEqual(Message.create().id, Message.create().id)

    def test_what_is_no_json_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            Message.create(payload=float("nan"))

    def test_a_message_can_be_a_key(self) -> None:
        message = Message.create(metadata={"a": "b"})
        self.assertEqual({message: 1}[message], 1)

    def test_a_message_keeps_its_own_metadata(self) -> None:
        metadata = {"a": "b"}
        message = Message.create(metadata=metadata)
        metadata["a"] = "c"
        self.assertEqual(message.metadata, {"a": "b"})


class WireTest(unittest.TestCase):
    def test_every_payload_survives_the_way_there_and_back(self) -> None:
        for payload in [
            b"",
            b"line\nline\r\n",
            "\N{SNOWMAN}\u2028".encode(),
            bytes(range(256)),
            b"\0" * 1_000,
        ]:
            with self.subTest(payload=payload):
                message = Message.create(payload=payload, metadata={"a": "\n", "": ""})
                line = json.dumps({"peer": "m2ka", "message": to_wire(message)}).encode()
                self.assertNotIn(b"\n", line)
                heard = message_from(Fields.parse(line))
                self.assertEqual((heard, heard.sender), (message, "m2ka"))

    def test_the_largest_message_fits_into_a_line_of_24_mib(self) -> None:
        for byte in [b"x", b"\n", b'"', b"\x01", b"\xff"]:
            with self.subTest(byte=byte):
                message = Message.create(payload=byte * PAYLOAD_BYTES_MAX)
                line = json.dumps(to_wire(message), ensure_ascii=False).encode()
                self.assertLess(len(line), 24 * 1024 * 1024)

    def test_a_larger_one_is_refused(self) -> None:
        with self.assertRaises(MessageTooLarge) as caught:
            to_wire(Message.create(payload=b"x" * (PAYLOAD_BYTES_MAX + 1)))
        self.assertEqual(caught.exception.code, "message_too_large")
