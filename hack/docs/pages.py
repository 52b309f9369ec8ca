"""Which file of the repository becomes which page of the site, and how links between them are turned.

The Markdown is written for whoever reads it in the repository: its links lead to files there. On the site the same
links lead to pages: what is no page of its own (a source file, a directory) gets one that shows it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "charts/pgmq-bus/README.md": "chart.md",
    "bench/results.md": "bench/results.md",
    "bench/operator.md": "bench/operator.md",
}
"""Markdown files that are pages and not in docs/."""

REFERENCE = {
    "crds/buschannels.yaml": "reference/buschannel.md",
    "crds/busdatabases.yaml": "reference/busdatabase.md",
    "charts/pgmq-bus/values.yaml": "reference/values.md",
    "operator/bus_operator/cli": "reference/busctl.md",
    "bus_runtime": "reference/bus_runtime.md",
}
"""What is described by a generated page. A link to it leads there."""

_FENCE = re.compile(r"^\s*(```|~~~)")
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:")


def written() -> list[str]:
    """The repository's paths of all pages that somebody wrote."""
    return [*OUTSIDE, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


def site_path(path: str) -> str:
    """The site's file that shows a path of the repository."""
    if path == "docs/decisions":
        return "decisions/index.md"
    if found := OUTSIDE.get(path) or REFERENCE.get(path):
        return found
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.md"


def linked(path: str) -> set[str]:
    """The repository's paths that a page links to."""
    found = (_resolved(path, target) for _, target in _targets((ROOT / path).read_text()))
    return {target for target, _ in filter(None, found)}


def turned(path: str, markdown: str) -> str:
    """The page's text with links that hold on the site."""
    here = posixpath.dirname(site_path(path))
    lines = markdown.splitlines()
    for number, target in _targets(markdown):
        if (resolved := _resolved(path, target)) is not None:
            there, anchor = resolved
            lines[number] = lines[number].replace(
                f"]({target})", f"]({posixpath.relpath(site_path(there), here)}{anchor})"
            )
    return "\n".join(lines) + "\n"


def _targets(markdown: str) -> Iterator[tuple[int, str]]:
    """Line and target of each link that is in no code block."""
    fenced = False
    for number, line in enumerate(markdown.splitlines()):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            for target in set(_LINK.findall(line)):
                yield number, target


def _resolved(path: str, target: str) -> tuple[str, str] | None:
    """The path that a link leads to, and `#anchor` or nothing; None for links elsewhere, and within the page."""
    if target.startswith("#") or _SCHEME.match(target):
        return None
    name, hash_, anchor = target.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name)), hash_ + anchor
