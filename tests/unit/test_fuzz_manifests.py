"""What busctl makes of files with anything in them: BusChannels, or a SpecError that names the file."""

import io
import time
from typing import Any

import fuzzing
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bus_operator.cli.manifests import read_manifests
from bus_operator.errors import SpecError


class File(io.StringIO):
    name = "channels.yaml"


def read(text: str) -> str:
    """What is said when it is refused; nothing when it is not."""
    refusal = ""
    try:
        manifests = read_manifests([File(text)], "shop")
    except SpecError as error:
        refusal = str(error)
        assert len(refusal) < 6000
    else:
        assert all(
            len(channel.name) <= 63 and "/" not in channel.name and ".." not in channel.name
            for channel in manifests.channels
        )
        assert all(len(note) < 400 for note in manifests.notes)
    return refusal


def bomb(line: str) -> str:
    """Ten lists of which each has the one before ten times: written out it would be ten billion values."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 11)]
    return "\n".join(["l0: &l0 [x]", *levels, line])


HEAD = "apiVersion: pgmqbus.dev/v1alpha1\nkind: BusChannel\n"
LISTS = "kind: List\nitems:\n- &a0 {kind: List, items: []}\n" + "\n".join(
    f"- &a{n} {{kind: List, items: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 11)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(f"{HEAD}metadata: {{name: *l10}}"), "metadata.name '?' must be lower-case"),
        (bomb(f"{HEAD}metadata: {{name: a}}\nspec: *l10"), "BusChannel a: spec: must be a mapping"),
        (bomb(f"{HEAD}metadata: {{name: a}}\nspec: {{channel: *l10}}"), "spec.channel: Input should be a valid string"),
        (bomb("apiVersion: *l10\nkind: BusChannel\nmetadata: {name: a}"), "has apiVersion 'none'"),
        (bomb("kind: *l10"), ""),
        (LISTS, "a List must not be in a List"),
        ("&a {kind: List, items: [*a]}", "a List must not be in a List"),
        ("kind: List\nitems: 5", "items of a List must be a list"),
        ("kind: List\nitems: [5]", "a manifest is a mapping"),
        ("a: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("[" * 1000, "not valid YAML"),
        ("{a: " * 1000, "not valid YAML"),
        (f"{HEAD}metadata: {{name: a}}\nspec: false", "spec: must be a mapping"),
        (f"{HEAD}metadata: {{name: a}}\nspec:\n", ""),
        (HEAD + "metadata: {name: &n a, labels: {<<: *n}}", "not valid YAML"),
        ("---\n" * 3000, ""),
    ],
    ids=lambda value: value[-30:],
)
def test_what_is_made_to_do_harm(text: str, words: str) -> None:
    begun = time.process_time()
    refusal = read(text)
    assert words in refusal
    assert bool(words) == bool(refusal)
    assert time.process_time() - begun < 30


names = st.sampled_from(["a", "a.b", "orders", "A", "..", "a/b", "", "a" * 64]) | st.text(max_size=4)
odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.binary(max_size=3),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), items, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("pgmqbus.dev/v1alpha1") | odd,
        "kind": st.sampled_from(["BusChannel", "BusDatabase", "List", "Secret"]) | odd,
        "metadata": st.fixed_dictionaries({"name": names | odd}, optional={"namespace": names | odd}) | odd,
        "spec": st.dictionaries(st.sampled_from(["channel", "limits", "shards", "reader", "x"]), odd, max_size=2) | odd,
        "items": odd,
    },
)


@fuzzing.examples(100)
@given(st.lists(documents | odd, max_size=3))
def test_any_documents_are_manifests_or_refused(made: list[Any]) -> None:
    read(yaml.safe_dump_all(made, allow_unicode=True))


@fuzzing.examples(300)
@given(
    st.text(st.sampled_from("a: -[]{}&*!|>'\"#%@,\n\t?<=0129.eE_~\x00\ufeff\u2028"), max_size=60) | st.text(max_size=30)
)
def test_any_text_is_manifests_or_refused(text: str) -> None:
    read(text)
