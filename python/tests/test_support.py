"""The guard that keeps tests from reaching the internet."""

from __future__ import annotations

import os
import subprocess
import unittest

from support import NETWORK_VARIABLES, is_local


class GuardTest(unittest.TestCase):
    def test_only_loopback_is_local(self) -> None:
        for servers in ["none", "127.0.0.1:6881", "127.0.0.1:1,127.0.0.1:2", "[::1]:6881"]:
            self.assertTrue(is_local(servers), servers)
        for servers in ["", "192.0.2.1:6881", "127.0.0.1:1,192.0.2.1:2", "router.example:6881", "None"]:
            self.assertFalse(is_local(servers), servers)

    def test_nothing_is_started_without_it(self) -> None:
        offline: dict[str, str] = dict.fromkeys(NETWORK_VARIABLES, "none")
        for env in [
            {name: value for name, value in os.environ.items() if name not in NETWORK_VARIABLES},
            {**offline, "P2P_NODE_STUN": ""},
            {**offline, "P2P_NODE_DHT_BOOTSTRAP": "192.0.2.1:6881"},
        ]:
            with self.assertRaises(AssertionError):
                subprocess.run(["true"], env=env, check=True)
        subprocess.run(["/bin/true"], env=offline, check=True)
