"""What of a binding's Secret was changed by hand, told from what it holds and what it should hold. Pure."""

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

_FIXED = ("type", "provider", "channel")
"""Entries that no change of a manifest or a credential explains."""


def changes_by_hand(
    name: str, present: Mapping[str, str] | None, wanted: Mapping[str, str | None], *, reissued: bool
) -> str:
    """In words; empty when nothing was, or when it cannot be told from a change by the operator itself.

    Args:
        name: The Secret's name.
        present: The entries that it holds; None when there is none although there was one.
        wanted: The entries that it should hold.
        reissued: Whether a new credential explains that the login differs.
    """
    if present is None:
        return f"Secret {name} was deleted by hand: a new credential was issued"
    edited = [entry for entry in _FIXED if present.get(entry) != wanted[entry]]
    edited += [entry for entry in ("username", "password") if present.get(entry) != _in_uri(present, wanted, entry)]
    if not reissued and present.get("generation") != wanted["generation"]:
        edited.append("generation")
    if not edited:
        return ""
    what = f"entry {edited[0]}" if len(edited) == 1 else f"entries {', '.join(edited)}"
    return f"{what} of Secret {name} {'was' if len(edited) == 1 else 'were'} changed by hand"


def _in_uri(present: Mapping[str, str], wanted: Mapping[str, str | None], entry: str) -> str | None:
    """The entry as the same binding's URI has it: what the operator wrote agrees with itself."""
    try:
        parts = urlsplit(present.get("uri", ""))
    except ValueError:
        return wanted[entry]
    value = parts.username if entry == "username" else parts.password
    return unquote(value) if value else wanted[entry]
