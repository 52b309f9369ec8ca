"""A Secret as the kubelet brings it into a pod."""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path


def project(directory: Path, files: Mapping[str, str]) -> None:
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
