"""Writing files that others read."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, text: str) -> None:
    """Have a file hold a text, readable by its owner alone.

    A reader sees the old text or the new, never a part; and a file that holds the text already is not touched, because
    some daemons take any writing for a change (kube-proxy ends itself).
    """
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(path)
