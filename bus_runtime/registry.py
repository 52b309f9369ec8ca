"""Which classes may be built from the wire, and the tags that name them there.

A tag is the dotted path `module.ClassName` that the reference client (pipecat-ai 1.14,
`pipecat.bus.serializers.json`) writes into `__type__`. The reference imports whatever path it reads;
here a tag is only ever looked up in a table of classes that this process registered itself, so a
message can name a class but never cause an import.
"""

from __future__ import annotations

from typing import Any

#: As many as an error names.
_MAX_NAMESAKES = 3


def default_tag(cls: type) -> str:
    """The tag the reference client would write for `cls`."""
    return f"{cls.__module__}.{cls.__name__}"


class TypeRegistry:
    """A two-way table of types and tags, falling back to `parent` for what it does not hold itself."""

    def __init__(self, parent: TypeRegistry | None = None) -> None:
        self._parent = parent
        self._types: dict[str, type[Any]] = {}
        self._tags: dict[type[Any], str] = {}

    def register(self, cls: type[Any], tag: str | None = None) -> None:
        """Let `cls` travel under `tag` (default: its dotted path).

        Registering a class again, or a redefinition of the same class (a reloaded module, a dataclass
        rebuilt with slots), replaces the earlier entry.

        Raises:
            ValueError: Another class holds the tag.
        """
        tag = tag or default_tag(cls)
        holder = self._types.get(tag)
        if holder is not None and default_tag(holder) != default_tag(cls):
            raise ValueError(f"tag {tag!r} is taken by {default_tag(holder)}; give {cls.__name__} another tag")
        self._types[tag] = cls
        self._tags[cls] = tag

    def tag_of(self, cls: type[Any]) -> str | None:
        """The tag to write for exactly `cls`, or None when it is not registered."""
        tag = self._tags.get(cls)
        if tag is None and self._parent is not None:
            return self._parent.tag_of(cls)
        return tag

    def resolve(self, tag: str) -> type[Any] | None:
        """The class behind `tag`, or None when nobody registered one."""
        cls = self._types.get(tag)
        if cls is None and self._parent is not None:
            return self._parent.resolve(tag)
        return cls

    def namesakes(self, tag: str) -> list[str]:
        """The tags that end in the same class name as `tag`, which nobody registered; a few at most.

        The likely ones are those of the application: one module that is run as `__main__` by one process and imported
        by another.
        """
        name = tag.rpartition(".")[2]
        tags = {*self._types, *(self._parent.namesakes(tag) if self._parent is not None else ())}
        return sorted(known for known in tags if known.rpartition(".")[2] == name)[:_MAX_NAMESAKES]


#: The process-wide table: every `BusMessage` subclass is in it from its definition on.
default_registry = TypeRegistry()
