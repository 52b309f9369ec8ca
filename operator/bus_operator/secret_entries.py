"""What a Secret holds, read in one way wherever one is read. No I/O."""

import base64
from collections.abc import Mapping
from typing import Any


def entries(secret: Mapping[str, Any], only: str | None = None) -> dict[str, str]:
    """The entries of a Secret as the API server sends it, by key; of a single key, if one is given.

    What is no text is left out: nothing of ours is binary, and others may keep a key store beside it.
    """
    found = {}
    for key, value in (secret.get("data") or {}).items():
        if only not in (None, key):
            continue
        try:
            found[key] = base64.b64decode(value).decode()
        except UnicodeDecodeError:
            continue
    return found
