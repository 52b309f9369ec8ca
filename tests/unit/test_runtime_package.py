"""What the package promises as a whole."""

import asyncio
import logging
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import asyncpg
import pytest

import bus_runtime
from bus_runtime.backoff import Backoff, OutageLog
from bus_runtime.connection import Database
from bus_runtime.direct import queue_prefix
from bus_runtime.driver import connect_error, statement_error
from bus_runtime.errors import (
    AccessDeniedError,
    AuthenticationError,
    BackendError,
    ConnectionLostError,
    RejectedError,
    TransientError,
    UnavailableError,
)

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert bus_runtime.__version__ == project["version"]


def test_everything_public_exists_and_is_documented() -> None:
    for name in bus_runtime.__all__:
        assert getattr(bus_runtime, name).__doc__ if name != "__version__" else bus_runtime.__version__, name
    assert (Path(bus_runtime.__file__).parent / "py.typed").exists()


def test_importing_loads_nothing_of_kubernetes_pipecat_or_pgmq_and_no_cryptography() -> None:
    code = (
        "import sys, bus_runtime, bus_runtime.testing; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"kopf", "kubernetes", "pipecat", "bus_operator", "pgmq", "loguru", "aiohttp", "cryptography"} & set(
        loaded.split()
    )


@pytest.mark.parametrize(
    ("channel", "prefix"),
    [
        ("orders", "orders"),
        ("shop.orders/eu:1", "shop_orders_eu_1"),
        ("7up", "q_7up"),
        ("x" * 40, "x" * 30),
        ("7" * 40, "q_" + "7" * 28),
        ("käse", "k_se"),
        ("", "pipecat_bus"),
    ],
)
def test_queue_prefixes_of_the_direct_backend(channel: str, prefix: str) -> None:
    assert queue_prefix(channel) == prefix


def server_error(sqlstate: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": sqlstate, "M": f"error {sqlstate}", "S": "ERROR"})


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (server_error("42501"), AccessDeniedError),
        (server_error("54000"), RejectedError),
        (server_error("22023"), RejectedError),
        (server_error("22P05"), RejectedError),
        (server_error("55P03"), TransientError),
        (server_error("40001"), TransientError),
        (server_error("40P01"), TransientError),
        (server_error("57014"), TransientError),
        (server_error("53100"), TransientError),
        (server_error("25006"), TransientError),
        (server_error("40003"), ConnectionLostError),
        (server_error("57P01"), ConnectionLostError),
        (server_error("57P02"), ConnectionLostError),
        (server_error("08006"), ConnectionLostError),
        (server_error("42883"), BackendError),
        (server_error("XX000"), BackendError),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), ConnectionLostError),
        (asyncpg.InterfaceError("connection is closed"), UnavailableError),
        (OSError("broken pipe"), ConnectionLostError),
        (TimeoutError(), ConnectionLostError),
    ],
    ids=lambda value: getattr(value, "sqlstate", None) or getattr(value, "__name__", type(value).__name__),
)
def test_errors_of_statements(exc: BaseException, expected: type) -> None:
    error = statement_error(exc)
    assert type(error) is expected
    assert error.retryable == (expected in (TransientError, UnavailableError))
    assert str(error)


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (server_error("28P01"), AuthenticationError),
        (server_error("28000"), AuthenticationError),
        (server_error("42501"), AuthenticationError),
        (server_error("53300"), UnavailableError),
        (server_error("57P03"), UnavailableError),
        (server_error("3D000"), UnavailableError),
        (ConnectionRefusedError("refused"), UnavailableError),
        (TimeoutError(), UnavailableError),
    ],
    ids=lambda value: getattr(value, "sqlstate", None) or getattr(value, "__name__", type(value).__name__),
)
def test_errors_of_connecting(exc: BaseException, expected: type) -> None:
    error = connect_error(exc)
    assert type(error) is expected
    assert error.retryable


def test_a_database_needs_exactly_one_source() -> None:
    with pytest.raises(ValueError, match="not both"):
        Database()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with asyncpg.create_pool("postgresql://nobody:x@127.0.0.1:1/none", min_size=0, max_size=1) as pool:
        with pytest.raises(UnavailableError, match=r"pool's server cannot be reached: .* \[ConnectionFailed\]$"):
            await asyncio.wait_for(Database(pool=pool).fetch("select 1"), 20)


def test_backoff_doubles_to_its_bound_with_jitter() -> None:
    backoff = Backoff(initial=0.1, maximum=1.0)
    delays = [backoff.next_delay() for _ in range(8)]
    for delay, ceiling in zip(delays, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0], strict=True):
        assert ceiling / 2 <= delay <= ceiling
    backoff.reset()
    assert backoff.next_delay() <= 0.1


def test_an_outage_is_one_warning_per_kind_of_error_and_one_recovery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = OutageLog(logging.getLogger("bus_runtime.test"), "reading")
    assert not log.recovered()
    for error in (OSError("down"), OSError("still down"), ValueError("odd"), OSError("down"), ValueError("odd")):
        log.failed(error)
    assert log.recovered()
    assert not log.recovered()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING", "INFO"]
    assert re.search(r"reading: OSError: down", caplog.text)
