"""The reference of bus_runtime: its public names, from their docstrings and signatures."""

import ast
from collections.abc import Callable, Iterator

import griffe

from hack.docs.pages import ROOT

_TITLES = {
    "parameters": "Arguments",
    "raises": "Raises",
    "returns": "Returns",
    "yields": "Yields",
    "attributes": "Attributes",
}

_WIDTH = 100

# What a base class takes is documented by the class that passes it on.
_PARSING: griffe.GoogleOptions = {"warn_unknown_params": False, "warn_missing_types": False}


def page() -> str:
    """The page about all public names."""
    exported = objects()
    lines = [
        "# bus_runtime",
        "",
        "The names that `import bus_runtime` gives. How they are used: [Using bus_runtime](../runtime.md).",
        "",
    ]
    for title, belongs in _GROUPS.items():
        lines += [f"## {title}", ""]
        for found in exported:
            if belongs(found):
                lines += _described(found, found.name, "###")
                lines += _members(found)
    return "\n".join(lines) + "\n"


def objects() -> list[griffe.Object]:
    """What `__all__` names, as it is where it is defined."""
    package = griffe.load("bus_runtime", search_paths=[ROOT], docstring_parser="google", docstring_options=_PARSING)
    found = (package[name] for name in _exported() if not name.startswith("_"))
    return [item.final_target if isinstance(item, griffe.Alias) else item for item in found]


def _exported() -> list[str]:
    """`__all__`, which is a plain list."""
    for node in ast.parse((ROOT / "bus_runtime" / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    raise LookupError("bus_runtime has no __all__")


def _ancestors(found: griffe.Object) -> set[str]:
    return {found.name, *(base.name for base in found.mro())} if isinstance(found, griffe.Class) else set()


def _is_message(found: griffe.Object) -> bool:
    return bool(_ancestors(found) & {"BusMessage", "BusLocalMessage"})


def _is_error(found: griffe.Object) -> bool:
    return "BusError" in _ancestors(found)


def _is_backend(found: griffe.Object) -> bool:
    kinds = {"BackendMessage", "JoinOptions", "LogRecord", "Membership", "Waker"}
    return (found.name.endswith("Backend") or found.name in kinds) and not _is_error(found)


_GROUPS: dict[str, Callable[[griffe.Object], bool]] = {
    "The bus": lambda found: not (_is_message(found) or _is_backend(found) or _is_error(found)),
    "Backends": _is_backend,
    "Messages": _is_message,
    "Errors": _is_error,
}


def _members(found: griffe.Object) -> Iterator[str]:
    """Methods and properties with a docstring; those of base classes are with these."""
    if not isinstance(found, griffe.Class):
        return
    for name, member in found.members.items():
        if name.startswith("_") or isinstance(member, griffe.Alias) or member.docstring is None:
            continue
        if member.is_function or "property" in member.labels:
            yield from _described(member, f"{found.name}.{name}", "####")


def _described(found: griffe.Object, name: str, level: str) -> Iterator[str]:
    yield from (f"{level} {name}", "", "```python", *_signature(found), "```", "")
    if found.docstring is None:
        return
    for section in found.docstring.parsed:
        if section.kind.value == "text":
            yield from (section.value, "")
        elif title := _TITLES.get(section.kind.value):
            yield from (f"{title}:", "")
            for item in section.value:
                # Errors have a type and no name.
                named = getattr(item, "name", "") or item.annotation
                yield f"- `{named}`: {' '.join(item.description.split())}"
            yield ""


def _signature(found: griffe.Object) -> list[str]:
    """As it is called; a parameter a line where one line does not do."""
    if isinstance(found, griffe.Class):
        bases = ", ".join(str(base) for base in found.bases)
        text = f"class {found.signature() or found.name}" + (f": {bases}" if bases else "")
    elif isinstance(found, griffe.Function):
        text = ("async def " if "async" in found.labels else "def ") + str(found.signature())
    else:
        return [f"{found.name}: {found.annotation}" if isinstance(found, griffe.Attribute) else found.name]
    if len(text) <= _WIDTH or "(" not in text:
        return [text]
    head, _, rest = text.partition("(")
    arguments, closing, end = rest.rpartition(")")
    return [f"{head}(", *(f"    {argument}," for argument in _split(arguments)), closing + end]


def _split(arguments: str) -> Iterator[str]:
    """At the commas that are in no brackets."""
    depth, begin = 0, 0
    for position, character in enumerate(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield arguments[begin:position].strip()
            begin = position + 1
    yield arguments[begin:].strip()
