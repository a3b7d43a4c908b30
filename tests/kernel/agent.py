"""A host's hands: binds, sends and reports what arrives, as told in JSON lines on stdin.

    {"cmd": "bind", "port": 4000}                                        -> {"event": "bound", …}
    {"cmd": "send", "port": 4000, "to": ["198.51.100.10", 7], "text": "hello"}  -> {"event": "sent"}

Every datagram becomes {"event": "datagram", "port": 4000, "from": [host, port], "text": "…"}.
"""

import json
import selectors
import socket
import sys


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def main() -> None:
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin.buffer.raw, selectors.EVENT_READ)
    sockets: dict[int, socket.socket] = {}
    unread = b""
    while True:
        for key, _ in waiting.select():
            if isinstance(key.fileobj, socket.socket):
                text, source = key.fileobj.recvfrom(65536)
                say("datagram", port=key.data, **{"from": source}, text=text.decode())
                continue
            read = sys.stdin.buffer.raw.read(65536)
            if not read:
                return
            *lines, unread = (unread + read).split(b"\n")
            for command in map(json.loads, lines):
                port = command["port"]
                if command["cmd"] == "bind":
                    sockets[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    sockets[port].bind(("0.0.0.0", port))
                    waiting.register(sockets[port], selectors.EVENT_READ, port)
                    say("bound", port=port)
                else:
                    sockets[port].sendto(command["text"].encode(), tuple(command["to"]))
                    say("sent")


main()
