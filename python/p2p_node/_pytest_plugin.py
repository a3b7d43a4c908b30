"""A pytest plugin: an offline network for tests of programs that use this package.

It is there as soon as the package is installed. A test asks for a fixture:

    async def test_my_service(p2p_network):
        async with p2p_network.server(service="a:v1") as server:
            await server.wait_online()
            async with p2p_network.client(service="a:v1") as client:
                ...

`p2p_testnet` is the network, one for all tests of a run; its `environment` makes programs use it.
`p2p_network` makes nodes on it, which have files and an identity of their own. Nothing leaves this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .testing import Network, Testnet

__all__ = ["p2p_network", "p2p_testnet"]


@pytest.fixture(scope="session")
def p2p_testnet() -> Iterator[Testnet]:
    """A DHT and STUN servers on loopback."""
    with Testnet() as testnet:
        yield testnet


@pytest.fixture
def p2p_network(p2p_testnet: Testnet, tmp_path: Path) -> Network:
    """Makes nodes on `p2p_testnet`."""
    return Network(p2p_testnet.environment, tmp_path)
