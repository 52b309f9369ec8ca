"""The code blocks of README and docs, so that tests can run them.

The language of a block says how it is tried: `sh`, `yaml`, `python`, `sql`, `ini`, `mermaid`; `text` is what a program
prints. What a test must know besides stands in a comment right above the block, which no reader sees:

    <!-- snippet: part of a Pod -->       YAML that is not whole: what of
    <!-- snippet: values -->              values of the chart
    <!-- snippet: file worker.py -->      other snippets of the page use it under this name
    <!-- snippet: as a ROLE -->           SQL that not a superuser executes
    <!-- snippet: not run: REASON -->     it is parsed only
"""

import re
import shlex
from dataclasses import dataclass
from typing import Any

import yaml
from markdown_pages import Page, pages

_NOTE = re.compile(r"<!-- snippet: (.+?) -->")
_CONTINUED = re.compile(r"\\\n\s*")
_SEPARATORS = {"|", "||", "&&", ";", ";;", "&", "(", ")"}
_KEYWORDS = {"case", "do", "done", "else", "esac", "fi", "for", "if", "in", "then", "until", "while", "$?"}
_PATTERN = re.compile(r"^([0-9]+|\*)$")
_ASSIGNMENT = re.compile(r"^[A-Z_]+=")
_COMMAND_IN_TEXT = re.compile(r"^(kubectl|helm|busctl|make) [a-z]")


@dataclass(frozen=True)
class Snippet:
    """A code block."""

    page: str
    line: int
    language: str
    text: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name that the page gives it."""
        return self.note.removeprefix("file ") if self.note.startswith("file ") else None

    @property
    def part_of(self) -> str | None:
        """The kind that it is a part of."""
        return self.note.removeprefix("part of a ") if self.note.startswith("part of a ") else None

    @property
    def is_run(self) -> bool:
        """Whether it may be executed where that is possible."""
        return not self.note.startswith("not run: ")

    def documents(self) -> list[dict[str, Any]]:
        """What is in its YAML."""
        return [document for document in yaml.safe_load_all(self.text) if document is not None]


def snippets(*languages: str) -> list[Snippet]:
    """All of these languages, in the order of pages; of every language if none is named."""
    found = [snippet for page in pages() for snippet in _of(page)]
    return [snippet for snippet in found if not languages or snippet.language in languages]


def _of(page: Page) -> list[Snippet]:
    found = []
    note = ""
    for token in page.tokens:
        if token.type == "html_block" and (match := _NOTE.fullmatch(token.content.strip())):
            note = match[1]
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            found.append(Snippet(page.path, token.map[0] + 1, token.info.strip(), token.content, note))
            note = ""
        elif note:
            raise AssertionError(f"{page.path}: <!-- snippet: {note} --> stands above no code block")
    assert not note, f"{page.path}: <!-- snippet: {note} --> stands above no code block"
    return found


def commands_in_text() -> list[Snippet]:
    """Commands that stand in the middle of a sentence."""
    found = []
    for page in pages():
        for token in page.tokens:
            for child in token.children or ():
                if child.type == "code_inline" and _COMMAND_IN_TEXT.match(child.content):
                    assert token.map is not None
                    found.append(Snippet(page.path, token.map[0] + 1, "sh", child.content))
    return found


def commands(text: str) -> list[list[str]]:
    """The single commands of a piece of shell, as words, without assignments and redirections."""
    found: list[list[str]] = []
    for line in _CONTINUED.sub(" ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _SEPARATORS:
                if words := _stripped(words):
                    found.append(words)
                words = []
            else:
                words.append(word)
    return found


def _stripped(words: list[str]) -> list[str]:
    while words and (words[0] in _KEYWORDS or _ASSIGNMENT.match(words[0]) or _PATTERN.match(words[0])):
        words = words[1:]
    for number, word in enumerate(words):
        if word[0] in "<>":
            return words[:number]
    return words
