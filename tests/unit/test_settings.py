"""The operator's settings out of its environment, as the chart sets it."""

import pytest

from bus_operator.errors import SpecError
from bus_operator.settings import Settings


def test_defaults() -> None:
    settings = Settings.from_environment({"HOME": "/root"})
    assert settings == Settings()
    assert (settings.resync_seconds, settings.workers, settings.log_level, settings.log_format) == (
        60,
        4,
        "INFO",
        "json",
    )
    assert settings.webhook_cert_dir is None


def test_values() -> None:
    settings = Settings.from_environment(
        {
            "BUS_OPERATOR_NAMESPACE": "bus-system",
            "BUS_SERVICE_ACCOUNT": "my-bus",
            "BUS_WEBHOOK_PORT": "9000",
            "BUS_RESYNC_SECONDS": "300",
            "BUS_LOG_LEVEL": "DEBUG",
            "BUS_RUNTIME_IMAGE": "registry.example/pgmq-bus:1.0",
            "BUS_RUNTIME_PULL_POLICY": "Always",
        }
    )
    assert (settings.operator_namespace, settings.webhook_port, settings.resync_seconds) == ("bus-system", 9000, 300)
    assert (settings.runtime_image, settings.runtime_pull_policy) == ("registry.example/pgmq-bus:1.0", "Always")
    # Named in messages to users, and by the chart.
    assert settings.secrets_role == "my-bus-secrets"


def test_an_empty_value_counts_as_absent() -> None:
    assert Settings.from_environment({"BUS_LOG_LEVEL": "", "BUS_WEBHOOK_CERT_DIR": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BUS_LOG_LEVEL", "LOUD", "Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("BUS_LOG_FORMAT", "xml", "Input should be 'text' or 'json'"),
        ("BUS_RESYNC_SECONDS", "0.5", "Input should be greater than or equal to 1"),
        ("BUS_RESYNC_SECONDS", "inf", "Input should be a finite number"),
        ("BUS_HEALTH_PORT", "65536", "Input should be less than or equal to 65535"),
        ("BUS_WORKERS", "many", "Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Settings.from_environment({variable: value})
    assert str(caught.value) == f"{variable}: {message}"
