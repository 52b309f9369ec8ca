"""The pictures of busctl in a terminal: fit to be shown anywhere, and the way they are made works."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_pages import parsed

from bus_operator.cli import peers, status, top
from bus_operator.cli.output import Column
from hack.docs.pages import ROOT
from hack.pictures.__main__ import BUSCTL, PICTURES
from hack.pictures.terminal import draw, show

MOST_BYTES = 60_000
SVG = "{http://www.w3.org/2000/svg}"


def words(svg: str) -> str:
    """What is written in it."""
    return "\n".join("".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_shows_nothing_of_the_machine(name: str) -> None:
    svg = (ROOT / "docs" / "images" / f"busctl-{name}.svg").read_text()
    assert len(svg.encode()) < MOST_BYTES
    # No fonts or whatever else from elsewhere.
    assert set(re.findall(r"https?://[^\"') ]+", svg)) == {"http://www.w3.org/2000/svg"}
    written = words(svg).replace("\N{NO-BREAK SPACE}", " ")
    assert f"busctl {name}" in written
    for secret in ("password", "postgresql://", os.uname().nodename, str(Path.home()), str(ROOT), "/tmp"):
        assert secret not in written
    assert "Traceback" not in written


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_in_the_page_with_words_for_those_who_do_not_see_it(name: str) -> None:
    inline = [child for token in parsed("docs/busctl.md").tokens for child in token.children or ()]
    (picture,) = (child for child in inline if child.attrGet("src") == f"images/busctl-{name}.svg")
    assert len(picture.content) > 30


def headers(name: str) -> list[list[str]]:
    """The lines of a picture that are headers of tables: all of it in capitals, and each title a text of its own."""
    lines: dict[str | None, list[str]] = {}
    svg = (ROOT / "docs" / "images" / f"busctl-{name}.svg").read_text()
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        word = "".join(text.itertext()).replace("\N{NO-BREAK SPACE}", " ").strip()
        lines.setdefault(text.get("y"), []).extend([word] if word else [])
    return [
        line for line in lines.values() if len(line) > 1 and all(word.removesuffix("/s").isupper() for word in line)
    ]


def titles(columns: Iterable[Column]) -> list[str]:
    return [column.title for column in columns if not column.wide]


def test_columns_are_those_that_are_printed_now() -> None:
    """Where this fails, `make pictures` draws them anew."""
    channel = Column("CHANNEL")
    assert headers("status") == [titles([channel, *status._COLUMNS]), titles(peers.COLUMNS)]
    assert headers("top") == [titles(top._COLUMNS)]


def test_how_they_are_made() -> None:
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color"}
    svg = draw("help", [("busctl --help", show([str(BUSCTL), "--help"], environment))])
    assert "Usage: busctl" in words(svg).replace("\N{NO-BREAK SPACE}", " ")
    coloured = "import time\nprint('\\x1b[H\\x1b[32mgreen\\x1b[0m\\x1b[Hrest', flush=True)\ntime.sleep(60)"
    shown = show([sys.executable, "-c", coloured], environment, seconds=2)
    assert shown == "\x1b[32mgreen\x1b[0m"
    assert "#7ed385" in draw("colours", [("", shown)])
