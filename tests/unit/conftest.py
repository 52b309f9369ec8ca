"""What tests of the runtime without a server need: a broker in memory, and a backend at it."""

import pytest

from bus_runtime.testing import InMemoryBackend, InMemoryBroker


@pytest.fixture
def broker() -> InMemoryBroker:
    return InMemoryBroker()


@pytest.fixture
def backend(broker: InMemoryBroker) -> InMemoryBackend:
    return InMemoryBackend(broker)
