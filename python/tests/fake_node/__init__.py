"""A stand-in for the p2p-node program: speaks p2p-stdio/1, and meets other stand-ins on this machine.

A server waits at a Unix socket in $XDG_RUNTIME_DIR, a client without a ticket goes there. `FAKE_NODE` in the
environment makes it misbehave (`startup.BEHAVIOURS`), and so do messages of certain types (`commands.send`).

Inside, events and commands have the shape of `proto/stdio.proto`; `notation` writes and reads them.
"""
