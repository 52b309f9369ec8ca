"""What `python -m chaos.operators` writes about the runs that it starts."""

import subprocess
from pathlib import Path

import orjson
import pytest
from chaos import operators, results
from chaos.results import Broken, Killed

FOUND = [
    Killed("PostgreSQL 18", "a channel is created", 49, 3, 49, 49),
    Killed("PostgreSQL 15", "a channel is created", 47, 3, 20, 20),
    Killed("PostgreSQL 18", "a channel is deleted", 9, 1, 9, 7),
    Killed(results.PROCESS, "a channel is created", 12, 12, 4, 4),
    Broken("the API server killed", 0.07, 1.4),
    Broken("etcd killed", 0.5, None),
    Broken("a watch expired", 0.5, 10.1),
]
PAGE = "".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in ("statements", "processes", "kubernetes"))


def test_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    operators.write_tables(page, FOUND, seed=7)
    assert (
        page.read_text()
        == """\
<!-- statements:begin -->
Seed 7: killed before 78 of 105 steps, and 76 times the end was the same.

| what the operator does | PostgreSQL 15 | PostgreSQL 18 |
| --- | ---: | ---: |
| a channel is created | 20 of 47 | 49 of 49 |
| a channel is deleted |  | **9 of 9, 2 otherwise** |
<!-- statements:end -->
<!-- processes:begin -->
Seed 7: killed before 4 of 12 steps, and 4 times the end was the same.

| what the operator does | process |
| --- | ---: |
| a channel is created | 4 of 12 |
<!-- processes:end -->
<!-- kubernetes:begin -->
| what breaks | longest time without a message | the operator has done its work |
| --- | ---: | ---: |
| the API server killed | 0.07 s | after 1.4 s |
| etcd killed | 0.50 s | **never** |
| a watch expired | 0.50 s | **after 10.1 s** |
<!-- kubernetes:end -->
"""
    )


def test_what_is_known_is_written_as_json() -> None:
    written = orjson.loads(operators.to_json(FOUND, seed=7))
    assert written["seed"] == 7
    assert [item["killed"] for item in written["killed"]] == [49, 20, 9, 4]
    assert [item["recovery"] for item in written["broken"]] == [1.4, None, 10.1]


@pytest.mark.parametrize(
    ("passed", "result", "good"),
    [
        (True, FOUND[0], True),
        (False, FOUND[0], False),
        (True, FOUND[2], False),
        (True, FOUND[5], False),
        (True, FOUND[6], False),
    ],
)
def test_all_has_to_be_well(passed: bool, result: results.Result, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[bytes]:
        assert (env["KILL_SECONDS"], env["CHAOS_SEED"]) == ("8.0", "7")
        monkeypatch.setattr(results, "_FILE", env["CHAOS_RESULTS"])
        results.note(result)
        return subprocess.CompletedProcess(command, 0 if passed else 1)

    monkeypatch.setattr(operators.subprocess, "run", run)
    assert operators.run(8.0, 7) == ([result] * len(operators.SUITES), good)
