"""`busctl dev` as the pages have it typed, with their files, and what they have typed beside it.

The page for users of pipecat is followed by test_pipecat.py.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from busctl_run import BUSCTL, busctl_run
from snippets import commands, snippets

PAGES = ("README.md", "docs/dev.md", "docs/quickstart.md")

ORDER = ("to bill: A-1", "#1 OrderPlaced shop → all")
HEARD = {"README.md": ("hello from ", " Hello ")}
"""What a page's subscriber makes of a message, and how that is shown, where it is not an order."""


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(page: str, tmp_path: Path) -> Path:
    """With the files of the page, and the worker that the page on developing takes for granted."""
    for snippet in snippets():
        if snippet.file is not None and snippet.page in ("docs/runtime.md", page):
            (tmp_path / snippet.file).write_text(snippet.text)
    return tmp_path


def dev(page: str) -> list[str]:
    """What is typed after `busctl`."""
    (found,) = (
        words
        for snippet in snippets("sh")
        if snippet.page == page
        for words in commands(snippet.text)
        if words[:2] == ["busctl", "dev"]
    )
    return found[1:]


def test_a_message_arrives(page: str, folder: Path) -> None:
    """It is shown, and so is what the subscriber makes of it; Ctrl-C ends both without complaints."""
    with busctl_run(folder, *dev(page)) as run:
        for text in HEARD.get(page, ORDER):
            while text not in run.output:
                run.until(text)
        run.signal(signal.SIGINT)
        assert run.wait() == 0, run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize("page", ["docs/dev.md"], indirect=True)
def test_what_is_typed_beside_it(page: str, folder: Path) -> None:
    """In another terminal in the same folder."""
    lines = [line for snippet in snippets("sh") if snippet.page == page for line in snippet.text.splitlines()]
    publish, tail, peers = (line for line in lines if ".busctl/" in line)
    with busctl_run(folder, *dev(page)) as run:
        run.until("to bill: A-")
        with busctl_run(folder, *commands(tail)[0][1:]) as following:
            following.until("following default.orders")
            assert shell(publish, folder).strip().isdecimal()
            following.until('"reason":"enough"')
        run.until("BusEndMessage busctl → all")
        assert shell(peers, folder).startswith("POD")


def shell(line: str, folder: Path) -> str:
    """What a line of shell prints to standard output."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "BUSCTL_DATABASE")}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder, env=inherited | {"PATH": f"{BUSCTL.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
