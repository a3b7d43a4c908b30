"""Messages between programs behind NATs, directly: the p2p-node program, driven from asyncio.

    server = P2PServer(service="myapi:v1")
    await server.start()
    async for received in server.listen():
        print(received.peer, received.message.text())

    client = P2PClient(service="myapi:v1")
    await client.start()
    await client.send_message(Message.create(msg_type="request", payload="hello"))

`async with` starts and closes both. Every failure is a `P2PError` that says why, and what to do.
"""

import logging

from ._binary import BINARY_VARIABLE, find_binary
from ._client import P2PClient
from ._errors import (
    BinaryNotFound,
    ConfigError,
    DeliveryUnknown,
    IncompatibleNode,
    InvalidCall,
    MessageTooLarge,
    NetworkUnavailable,
    NodeClosed,
    NodeExited,
    NotReady,
    P2PError,
    P2PTimeout,
    PeerIdentityMismatch,
    PeerNotFound,
    PeerUnreachable,
    QueueFull,
    Refused,
)
from ._events import (
    Bye,
    Connected,
    Connecting,
    Connection,
    Disconnected,
    Event,
    Failed,
    NodeStatus,
    Online,
    OtherEvent,
    Path,
    PathChanged,
    PeerStatus,
    Progress,
    Ready,
    Receipt,
    Warned,
)
from ._json import JSON
from ._message import Message, Payload, Received
from ._node import EventStream, MessageStream, P2PNode
from ._server import P2PServer

__all__ = [
    "BINARY_VARIABLE",
    "JSON",
    "BinaryNotFound",
    "Bye",
    "ConfigError",
    "Connected",
    "Connecting",
    "Connection",
    "DeliveryUnknown",
    "Disconnected",
    "Event",
    "EventStream",
    "Failed",
    "IncompatibleNode",
    "InvalidCall",
    "Message",
    "MessageStream",
    "MessageTooLarge",
    "NetworkUnavailable",
    "NodeClosed",
    "NodeExited",
    "NodeStatus",
    "NotReady",
    "Online",
    "OtherEvent",
    "P2PClient",
    "P2PError",
    "P2PNode",
    "P2PServer",
    "P2PTimeout",
    "Path",
    "PathChanged",
    "Payload",
    "PeerIdentityMismatch",
    "PeerNotFound",
    "PeerStatus",
    "PeerUnreachable",
    "Progress",
    "QueueFull",
    "Ready",
    "Receipt",
    "Received",
    "Refused",
    "Warned",
    "find_binary",
]

# Silent unless the program that uses this package wants to hear.
logging.getLogger("p2p_node").addHandler(logging.NullHandler())
