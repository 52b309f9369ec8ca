"""How checks depend on each other, and what is made of what they find."""

from collections.abc import Iterator

from bus_operator.doctor.findings import Checks, Examined, Finding, UnseenError

CHECKS: Checks[set[str]] = Checks()


@CHECKS.check("connection")
def _connection(broken: set[str]) -> Iterator[Finding]:
    if "connection" in broken:
        yield Finding("ConnectionFailed", "it is down")


@CHECKS.check("rights", "connection")
def _rights(broken: set[str]) -> Iterator[Finding]:
    if "rights" in broken:
        raise UnseenError("you may not read the Secret", out_of_reach=True)
    if "new" in broken:
        raise UnseenError("there is nothing yet")
    yield Finding("VersionSkew", "it could be better", advice=True)


@CHECKS.check("schema", "rights")
def _schema(broken: set[str]) -> Iterator[Finding]:
    yield from ()


@CHECKS.check("pods")
def _pods(broken: set[str]) -> Iterator[Finding]:
    yield from ()


def states(*broken: str) -> list[str]:
    return [outcome.state for outcome in CHECKS.examine(set(broken))]


def test_what_needs_something_broken_is_not_looked_at() -> None:
    assert states() == ["ok", "advice", "ok", "ok"]
    assert states("connection") == ["failed", "skipped", "skipped", "ok"]
    assert states("rights") == ["ok", "skipped", "skipped", "ok"]
    reasons = [outcome.unseen for outcome in CHECKS.examine({"connection"})]
    assert reasons == [None, "because of connection", "because of rights", None]
    assert CHECKS.examine({"rights"})[1].unseen == "you may not read the Secret"


def test_what_elsewhere_could_be_looked_at_is_counted() -> None:
    """Not what waits for something, nor what depends on a finding."""
    counted = [
        Examined("Database", "shop/main", CHECKS.examine({broken})).out_of_reach
        for broken in ("connection", "rights", "new")
    ]
    assert counted == [0, 2, 0]


def test_an_object_is_as_bad_as_the_worst_of_its_checks() -> None:
    assert Examined("Database", "shop/main", CHECKS.examine(set())).state == "advice"
    assert Examined("Database", "shop/main", CHECKS.examine({"rights"})).state == "skipped"
    found = Examined("Database", "shop/main", CHECKS.examine({"connection"})).as_json
    assert (found["namespace"], found["name"], found["state"]) == ("shop", "main", "failed")
    assert found["checks"][0]["findings"] == [
        {
            "code": "ConnectionFailed",
            "message": "it is down",
            "advice": False,
            "explain": "busctl explain ConnectionFailed",
        }
    ]
