#!/usr/bin/env python3
"""Two nodes in one program, without internet and without `await`, as in the cells of a notebook."""

# %% A network of our own; without it, nodes use the public DHT.
import os

from p2p_node import Message, sync
from p2p_node.testing import Testnet

testnet = Testnet()
os.environ.update(testnet.environment)

# %% A server, and a client that finds it by name.
server = sync.P2PServer(service="notebook:v1", ephemeral=True).start()
server.wait_online()
client = sync.P2PClient(service="notebook:v1").start()
print(client.server.path.kind)

# %% A message there.
message = Message.create(msg_type="request", payload={"question": 6 * 7}, metadata={"cell": "3"})
print(client.send_message(message).state)

# %% And one back.
question = next(server.listen(timeout=10))
server.reply(question, "42")
answer = next(client.listen(timeout=10))
print(answer.text(), answer.metadata["in-reply-to"] == message.id)

# %% Nodes end with the program, or before.
client.close()
server.close()
testnet.close()
