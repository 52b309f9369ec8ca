"""The example of a hand-off between pipecat's workers, by the command of its page."""

import re
import shutil
from pathlib import Path

import pipecat_example
import pytest
from busctl_run import busctl_run
from snippets import commands, snippets


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Where the page's command is typed."""
    shutil.copytree(pipecat_example.FOLDER, tmp_path / "examples" / "pipecat")
    return tmp_path


def test_a_call_is_handed_over_and_back(checkout: Path) -> None:
    """Three processes of pipecat's workers, as installed, on one channel. Nobody complains."""
    (command,) = [
        words
        for snippet in snippets("sh")
        if snippet.page == "docs/how-to/pipecat.md"
        for words in commands(snippet.text)
        if words[:2] == ["busctl", "dev"]
    ]
    with busctl_run(checkout, *command[1:]) as run:
        assert run.wait(240) == 0, run.output
    printed = {
        name: re.findall(rf"^{name} +│ (?!started: |ended)(.+?) *$", run.output, re.MULTILINE)
        for name in pipecat_example.WORKERS
    }
    pipecat_example.check(printed)
    # The log says in which order the turn passed on.
    turns = re.findall(r"#\d+ BusActivateWorkerMessage (\w+ → \w+)", run.output)
    assert turns == ["call → greeter", "greeter → booking", "booking → greeter"]
    assert not re.search("WARNING|ERROR", run.output), run.output
