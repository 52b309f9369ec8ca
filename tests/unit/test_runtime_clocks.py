"""The runtime depends on no clock that somebody can set."""

import ast
from pathlib import Path

import bus_runtime

#: What tells the time of day.
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def test_the_runtime_never_asks_for_the_time_of_day() -> None:
    asked = []
    for path in Path(bus_runtime.__file__).parent.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ".".join(ast.unparse(node).split(".")[-2:]) in WALL_CLOCKS:
                asked.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                asked += [f"{path.name}:{node.lineno}" for each in node.names if f"time.{each.name}" in WALL_CLOCKS]
    assert not asked
