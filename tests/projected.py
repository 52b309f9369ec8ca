"""A Secret as the kubelet brings it into a pod, and keeps it there."""

import random
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import urllib3
from control_plane import ApiError

Files = Mapping[str, str]


def project(directory: Path, files: Files) -> None:
    """Writes a Secret volume: files behind `..data`, all replaced at once by one rename of that link."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"..{secrets.token_hex(8)}"
    target.mkdir()
    for key, value in files.items():
        (target / key).write_text(value)
    data, link = directory / "..data", directory / "..data_tmp"
    previous = directory / data.readlink() if data.is_symlink() else None
    link.symlink_to(target.name)
    link.rename(data)
    for key in files:
        if not (directory / key).is_symlink():
            (directory / key).symlink_to(f"..data/{key}")
    if previous is not None:
        shutil.rmtree(previous)


@contextmanager
def kubelets(read: Callable[[], Files | None], directories: Sequence[Path], seconds: float) -> Iterator[None]:
    """Keeps directories as a Secret is, each by itself and up to so many seconds later.

    Args:
        read: Returns the Secret, None when there is none. While there is no API server, what is there stays.
        directories: Where it goes.
        seconds: How late a change comes.
    """
    ended = threading.Event()

    def follow(directory: Path, known: Files) -> None:
        while not ended.wait(random.uniform(0.2, 1.0) * seconds):
            try:
                found = read()
            except (ApiError, urllib3.exceptions.HTTPError, ValueError):
                continue
            if found is not None and found != known:
                known = found
                project(directory, found)

    first = read() or {}
    threads = []
    for directory in directories:
        project(directory, first)
        threads.append(threading.Thread(target=follow, args=(directory, first)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
