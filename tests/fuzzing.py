"""How much the fuzz tests try: `FUZZ_PROFILE` says it, for all of them alike.

quick, the default: the same examples in every run, so that a change fails for what it changed and for nothing else.
nightly: `NIGHTLY_FACTOR` times as many and new ones each time. The seed is in the head of pytest's output;
`--hypothesis-seed=SEED` repeats the run, and each failing example prints how to repeat just that.
"""

import os
import secrets

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

PROFILE = os.environ.get("FUZZ_PROFILE", "quick")
NIGHTLY_FACTOR = 50
NIGHTLY_TIMEOUT = 3600
"""Seconds for each test, instead of what is enough for a quick one."""

# A slow machine is no failure, and neither is a fixture that a test does not change. Failing examples are printed
# rather than kept in a directory: what they show belongs into a test of its own.
_COMMON = settings(
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", _COMMON, derandomize=True)
settings.register_profile("nightly", _COMMON, derandomize=False)


def examples(quick: int) -> settings:
    """So many examples in the quick profile, and accordingly more in the nightly one."""
    return settings(max_examples=quick * (NIGHTLY_FACTOR if PROFILE == "nightly" else 1))


def configure(config: pytest.Config) -> None:
    """Before any test is imported. The processes of pytest-xdist are given the same options, so the same seed."""
    settings.load_profile(PROFILE)
    if PROFILE != "nightly":
        _leave_out_constants()
        return
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = secrets.randbits(32)
    if config.option.timeout is None:
        config.option.timeout = NIGHTLY_TIMEOUT


def _leave_out_constants() -> None:
    """Hypothesis also tries constants of the modules that are loaded: other tests in the same run would change what is
    tried. There is no setting for it."""
    assert callable(providers._get_local_constants)
    providers._get_local_constants = lambda: providers._local_constants


def header(config: pytest.Config) -> str:
    """For the head of pytest's output."""
    seed = config.option.hypothesis_seed
    return f"fuzzing: {PROFILE}" + ("" if seed is None else f", repeat with --hypothesis-seed={seed}")


def summary(reporter: pytest.TerminalReporter) -> None:
    """Says at the end how much was tried: tests record it as the property `fuzzed`."""
    for report in reporter.getreports("passed"):
        for name, told in report.user_properties:
            if name == "fuzzed":
                reporter.write_line(f"fuzzed: {told}")
