"""What docs/errors.md says of each code; a copy of that page is in the package."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_HEADING = re.compile(r"^#{2,3} (.+)\n", re.MULTILINE)
_HEAD_OF_TABLE = re.compile(r"^\| Reason \| (.*?) ?\|$", re.MULTILINE)
_ROW = re.compile(r'^\| (?:<a id="\w+"></a>)?`(\w+)` \| (.+) \|$', re.MULTILINE)
_COMMENT = re.compile(r"^<!-- .*? -->\n", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#]*)(?:#[^)]*)?\)")
_SENTENCE = re.compile(r".*?\.(?=\s|$)", re.DOTALL)


@dataclass(frozen=True)
class Explanation:
    """What a code means, and what to do about it."""

    code: str
    text: str
    """In Markdown. Links within the page are left out, and others name the page."""

    @property
    def summary(self) -> str:
        """Its first sentence, on a line."""
        found = _SENTENCE.match(self.text)
        return " ".join((found[0] if found else self.text).split()).rstrip(".")


@cache
def explanations() -> dict[str, Explanation]:
    """All by their codes, in the order of the page."""
    page = files("bus_operator").joinpath("errors.md").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(page)
    found = [
        Explanation(code, _LINK.sub(_without_link, text))
        for heading, body in zip(parts[::2], parts[1::2], strict=True)
        for code, text in _texts(heading, _COMMENT.sub("", body).strip()).items()
    ]
    return {explanation.code: explanation for explanation in found}


def _texts(heading: str, body: str) -> dict[str, str]:
    """Of a section: it is about one code, or has a table of them, or is the heading of what follows."""
    intro, *table = _HEAD_OF_TABLE.split(body)
    if table:
        column, rows = table
        sentences = {code: f"{column} {cell}".strip().rstrip(".") for code, cell in _ROW.findall(rows)}
        return {code: f"{sentence}.\n\n{intro.strip()}" for code, sentence in sentences.items()}
    return {heading: body} if body else {}


def _without_link(link: re.Match[str]) -> str:
    text, page = link.groups()
    return f"{text} (docs/{page})" if page else text
