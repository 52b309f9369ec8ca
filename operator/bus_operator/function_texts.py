"""What the SQL files say about a function, in the terms of the catalog: so that the two can be compared. Pure."""

import re
from dataclasses import asdict, dataclass
from typing import Any

_HEAD = "create or replace function "
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_SETTING = re.compile(r"^set (\w+) = (.+?)$", re.MULTILINE)


@dataclass(frozen=True)
class FunctionText:
    """A function as its file defines it. Its result and the names of its arguments are left to the fingerprint."""

    schema: str
    name: str
    """Or the placeholder that stands for it."""
    arguments: str
    """The types of the input arguments, as `oidvectortypes` writes them."""
    body: str
    definer: bool
    settings: tuple[str, ...]
    volatility: str
    """v, s or i, as in pg_proc."""
    strict: bool

    @classmethod
    def parse(cls, text: str) -> "FunctionText":
        """Reads one file. Raises ValueError for what is not written like the others."""
        head, opened, rest = text.partition("\nas $$")
        body, closed, _ = rest.rpartition("$$;")
        start = head.find(_HEAD)
        if start < 0 or not opened or not closed:
            raise ValueError(f"not `{_HEAD}... as $$ ... $$;`: {text[:80]!r}")
        declaration = _COMMENT.sub("", head[start + len(_HEAD) :])
        qualified, arguments, attributes = _split_arguments(declaration)
        schema, _, name = qualified.partition(".")
        return cls(
            schema=schema,
            name=name,
            arguments=", ".join(filter(None, map(_input_type, _split_list(arguments)))),
            body=body,
            definer="security definer" in attributes,
            settings=tuple(f"{key}={value.strip().strip(chr(39))}" for key, value in _SETTING.findall(attributes)),
            volatility=next((word[0] for word in ("immutable", "stable") if word in attributes), "v"),
            strict="strict" in attributes,
        )

    def as_row(self) -> dict[str, Any]:
        """For a query that takes a JSON array of them."""
        return asdict(self)


def _split_arguments(declaration: str) -> tuple[str, str, str]:
    """Name, what is within the first pair of parentheses, and what follows it."""
    start = declaration.index("(")
    depth = 0
    for position in range(start, len(declaration)):
        depth += {"(": 1, ")": -1}.get(declaration[position], 0)
        if depth == 0:
            return declaration[:start].strip(), declaration[start + 1 : position], declaration[position + 1 :]
    raise ValueError(f"unbalanced parentheses: {declaration[:80]!r}")


def _split_list(text: str) -> list[str]:
    items, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def _input_type(argument: str) -> str | None:
    """The type of `name type [default ...]`; None for an output argument."""
    mode, _, rest = argument.partition(" ")
    if mode == "out":
        return None
    return re.split(r"\s+default\s", rest)[0].strip()
