"""Pages that show a file or a directory of the repository which some page links to."""

import posixpath

from hack.docs.pages import ROOT, site_path

_LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".json": "json", ".js": "javascript", ".sh": "bash"}
_NOT_SEARCHED = "---\nsearch: {exclude: true}\n---\n"


def files(path: str) -> list[str]:
    """What is in a directory, all the way down; of a file, itself."""
    found = [ROOT / path] if (ROOT / path).is_file() else (ROOT / path).rglob("*")
    return sorted(str(name.relative_to(ROOT)) for name in found if name.is_file() and "__pycache__" not in name.parts)


def file_page(path: str) -> str:
    """The file's text."""
    text = (ROOT / path).read_text()
    fence = "````" if "```" in text else "```"
    language = _LANGUAGES.get(posixpath.splitext(path)[1], "text")
    return f"{_NOT_SEARCHED}# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def directory_page(path: str) -> str:
    """Links to the files in it."""
    here = posixpath.dirname(site_path(path))
    lines = [f"- [{posixpath.relpath(name, path)}]({posixpath.relpath(site_path(name), here)})" for name in files(path)]
    return "\n".join([f"{_NOT_SEARCHED}# {path}", "", *lines]) + "\n"


def decisions_page() -> str:
    """The index of docs/decisions/, by the first lines of its files."""
    lines = [
        f"- [{path.read_text().splitlines()[0].removeprefix('# ')}]({path.name})"
        for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))
    ]
    return "\n".join(["# Decisions", "", "Why it is so, with what was measured.", "", *lines]) + "\n"
