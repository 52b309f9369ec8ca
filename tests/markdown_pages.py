"""The Markdown that users read, parsed as forges parse it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from hack.docs.pages import ROOT, written

_ID = re.compile(r'<a id="([^"]+)"')
_PUNCTUATION = re.compile(r"[^\w\- ]")


@dataclass(frozen=True)
class Page:
    """A file of the repository."""

    path: str
    tokens: tuple[Token, ...]
    """CommonMark with tables; those of running text are children of these."""

    @property
    def directory(self) -> Path:
        return (ROOT / self.path).parent

    def links(self) -> list[str]:
        """Targets of links and pictures."""
        inline = [child for token in self.tokens for child in token.children or ()]
        targets = [child.attrGet("href") or child.attrGet("src") for child in inline]
        return [str(target) for target in targets if target]

    def _html(self) -> Iterator[str]:
        for token in self.tokens:
            yield from (part.content for part in (token, *(token.children or ())) if part.type.startswith("html"))

    def headings(self) -> list[str]:
        """Texts of the headings."""
        return [
            "".join(child.content for child in self.tokens[number + 1].children or ())
            for number, token in enumerate(self.tokens)
            if token.type == "heading_open"
        ]

    def anchors(self) -> list[str]:
        """What `#` may be followed by: the headings as forges name them, and what HTML names."""
        seen: Counter[str] = Counter()
        names = [name for html in self._html() for name in _ID.findall(html)]
        for heading in self.headings():
            name = _PUNCTUATION.sub("", heading.lower()).replace(" ", "-")
            names.append(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return names


@cache
def parsed(path: str) -> Page:
    """A page by its path in the repository."""
    return Page(path, tuple(MarkdownIt("commonmark").enable("table").parse((ROOT / path).read_text())))


def pages() -> list[Page]:
    """All that somebody wrote."""
    return [parsed(path) for path in written()]
