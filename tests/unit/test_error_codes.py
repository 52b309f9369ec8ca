"""Every code that a user can meet is in docs/errors.md, and nothing else: found by reading the source."""

import importlib
import inspect
import pickle
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest
from error_codes import Codes, of_probe

import bus_operator
import bus_runtime
from bus_operator import sql
from bus_operator.database import translate
from bus_operator.errors import BusError as OperatorError
from bus_operator.explanations import explanations
from bus_runtime import errors as runtime_errors
from bus_runtime.binding import Binding
from bus_runtime.driver import connect_error
from bus_runtime.errors import BusError as RuntimeError_

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()

BOOTSTRAP = Path(__file__).parents[2] / "hack" / "runtime_bundle" / "bootstrap.py"


def modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def own(module: ModuleType) -> Iterator[type]:
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield value


def test_what_the_walk_understands() -> None:
    found = Codes(
        ModuleType("example"),
        "f(reason='A' if x else 'B'); g(code=self.code); Condition.false('Ready', 'C', m); other.true(1, 'no')\n"
        "Condition('Ready', 'False', 'D', m); it.get('reason', 'E'); f(reason=PLACES[3])\n"
        "class V:\n    def reason(self):\n        return 'F'",
    )
    assert found.found == {"A", "B", "C", "D", "E", "F"}
    assert found.unclear == ["example:2: what is PLACES[3]?"]


@pytest.fixture(scope="module")
def codes() -> set[str]:
    """All that the source has."""
    found: set[str] = {value for name, value in vars(runtime_errors).items() if name.isupper()}
    unclear: list[str] = []
    for package in (bus_operator, bus_runtime):
        for module in modules(package):
            walked = Codes(module, Path(str(module.__file__)).read_text())
            found |= walked.found
            unclear += walked.unclear
            for kind in own(module):
                if issubclass(kind, OperatorError):
                    found.add(kind.reason)
                elif issubclass(kind, RuntimeError_):
                    found.add(kind.code)
    # It stands in for bus_runtime, and is no module of a package.
    bootstrap = Codes(ModuleType("bootstrap"), BOOTSTRAP.read_text())
    found |= bootstrap.found
    unclear += bootstrap.unclear
    assert not unclear
    # What nobody is given: the test above sees to it.
    return found - {OperatorError.reason, RuntimeError_.code}


def sections() -> list[str]:
    """The codes on the page, those of proofs aside."""
    return [*re.findall(r"^### (\S+)$", PAGE, re.M), *re.findall(r"^\| `([A-Z]\w+)` \|", PAGE, re.M)]


def test_every_code_has_one_section(codes: set[str]) -> None:
    twice = [code for code, times in Counter(sections()).items() if times > 1]
    assert not twice
    proofs = {of_probe(name) for name, _, _ in sql.denied_probes()}
    missing, left_over = codes - proofs - set(sections()), set(sections()) - codes - {"May"}
    assert (sorted(missing), sorted(left_over)) == ([], [])
    assert len(codes) > 100


def test_busctl_explains_each_code() -> None:
    proofs = {of_probe(name) for name, _, _ in sql.denied_probes()}
    assert sorted(explanations()) == sorted((set(sections()) | proofs) - {"May"})


def test_codes_are_camel_case(codes: set[str]) -> None:
    assert [code for code in codes if not re.fullmatch(r"([A-Z][a-z0-9]+)+", code)] == []


def test_each_proof_that_fails_has_a_line() -> None:
    lines = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| (.*) \|$', PAGE, re.M)
    assert lines == [(of_probe(name).lower(), of_probe(name), title) for name, title, _ in sql.denied_probes()]


def test_an_error_of_the_runtime_ends_with_its_code_and_never_has_it_twice() -> None:
    cause = runtime_errors.UnavailableError("db:5432/app cannot be reached", code="ConnectionsExhausted")
    assert str(cause) == "db:5432/app cannot be reached [ConnectionsExhausted]"
    error = runtime_errors.PublishError(runtime_errors.reason_of(cause), code=cause.code)
    assert str(error) == "db:5432/app cannot be reached [ConnectionsExhausted]"


WHERE = "db:5432/app"
BINDING = Binding("orders", Path(), "shop.orders", f"postgresql://u:p@{WHERE}")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError("refused"), "db:5432/app cannot be reached: refused. Is the server up, and does a"),
        (TimeoutError(), "db:5432/app cannot be reached: it does not answer. Is the server up, and does a"),
        (asyncpg.CannotConnectNowError("the system is starting up"), "starting up. It is being started or stopped:"),
        (asyncpg.InvalidCatalogNameError('database "x" does not exist'), 'db:5432/app: database "x" does not exist'),
        (asyncpg.TooManyConnectionsError("too many"), "db:5432/app has no connection left: too many. "),
        (asyncpg.InvalidPasswordError("it failed"), "'s credential: it failed. "),
        (asyncpg.InvalidAuthorizationSpecificationError("rejects it"), "'s credential: rejects it. "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_same_failure_has_the_same_code_and_words_on_both_sides(error: Exception, words: str) -> None:
    """Of an administrator's credential and of a binding's; they are looked at in different places."""
    with pytest.raises(OperatorError) as operators, translate(WHERE):
        raise error
    runtimes = connect_error(error, BINDING)
    assert operators.value.reason == runtimes.code
    assert words in str(operators.value)
    assert words in runtimes.message
    if "credential" not in words and "connection left" not in words:
        assert str(operators.value) == runtimes.message


def test_errors_of_the_runtime_survive_pickling() -> None:
    error = runtime_errors.RejectedError("too large", sqlstate="54000", code="MessageTooLarge")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.sqlstate, again.code) == (str(error), "54000", "MessageTooLarge")
