"""Messages between programs behind NATs, directly: the p2p-node program, driven from asyncio.

    server = P2PServer(service="myapi:v1")
    await server.start()
    async for message in server.listen():
        print(message.sender, message.text())

    client = P2PClient(service="myapi:v1")
    await client.start()
    await client.send_message(Message.create(msg_type="request", payload="hello"))

`async with` starts and closes both. Every failure is a `P2PError` that says why, and what to do.
"""

import logging

from ._binary import BINARY_VARIABLE, find_binary
from ._client import P2PClient
from ._codec import Transport
from ._errors import (
    BinaryNotFound,
    Cancelled,
    ConfigError,
    DeliveryUnknown,
    IncompatibleNode,
    InvalidCall,
    MessageTooLarge,
    NetworkUnavailable,
    NodeClosed,
    NodeExited,
    NoReply,
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
    Delivered,
    Disconnected,
    Event,
    Failed,
    Online,
    OtherEvent,
    PathChanged,
    Progress,
    Ready,
    Warned,
)
from ._json import JSON
from ._message import Message, Payload
from ._node import Content, EventStream, Handler, MessageStream, P2PNode
from ._records import (
    Broadcast,
    Connection,
    MappingLifetime,
    NatPorts,
    NetCheck,
    NodeStatus,
    PairCheck,
    Path,
    PeerStatus,
    Pong,
    Receipt,
    StunServer,
    Way,
)
from ._server import P2PServer

__all__ = [
    "BINARY_VARIABLE",
    "JSON",
    "BinaryNotFound",
    "Broadcast",
    "Bye",
    "Cancelled",
    "ConfigError",
    "Connected",
    "Connecting",
    "Connection",
    "Content",
    "Delivered",
    "DeliveryUnknown",
    "Disconnected",
    "Event",
    "EventStream",
    "Failed",
    "Handler",
    "IncompatibleNode",
    "InvalidCall",
    "MappingLifetime",
    "Message",
    "MessageStream",
    "MessageTooLarge",
    "NatPorts",
    "NetCheck",
    "NetworkUnavailable",
    "NoReply",
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
    "PairCheck",
    "Path",
    "PathChanged",
    "Payload",
    "PeerIdentityMismatch",
    "PeerNotFound",
    "PeerStatus",
    "PeerUnreachable",
    "Pong",
    "Progress",
    "QueueFull",
    "Ready",
    "Receipt",
    "Refused",
    "StunServer",
    "Transport",
    "Warned",
    "Way",
    "find_binary",
]

# Silent unless the program that uses this package wants to hear.
logging.getLogger("p2p_node").addHandler(logging.NullHandler())
