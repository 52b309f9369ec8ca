"""The API server and the operator's models on generated specs: what one accepts and the other does not is a defect.

The operator reads what the API server stored, busctl what a user wrote: the models are asked about both.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fuzzing
import pytest
import yaml
from control_plane import GROUP, ROOT, VERSION, ApiError, KubeClient, Manifest
from hypothesis import event, given
from hypothesis import strategies as st

from bus_operator.errors import SpecError
from bus_operator.inventory import Resource

pytestmark = pytest.mark.cluster

Schema = dict[str, Any]
Path = tuple[str | int, ...]

durations = st.sampled_from(["24h", "1h", "720h", "1h30m", "0h0m3600s"]) | st.sampled_from(
    [
        *("1s", "10s", "1m", "8760h", "00003600s", "59m60s", "31536000s", "", "0s", "9s", "8760h1s", "720h1s", "1h1h"),
        *("1s1m", "-1h", "1.5h", "1d", "90 s", "90s\n", "\u0663s", "9999999h", "000000001s", "1H", "s", "10", "1h\x00"),
        *("1ms", "1e3s", "+1s", "999999h999999m9999999s"),
    ]
)
names = st.sampled_from(["a", "orders-db", "0", "a" * 63]) | st.sampled_from(
    [
        *("a.b", "a" * 64, "a" * 253, "a" * 254, "", "-a", "a-", "a..b", "A", "a_b", "a/b", "\xe4", "a\n", "a\x00"),
        *("a" * 200, "a" * 201, "a:b/c.d-e_f", "..", "tls.key", " a", "::1", "fe80::1", "db:5432", "[::1]"),
        *("postgresql://h", "x.example.", "\U0001f600", "\u0130"),
    ]
)


def strings(name: str, schema: Schema) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return durations if "duration(" in str(schema) else names


def valid(name: str, schema: Schema) -> st.SearchStrategy[Any]:
    """What the schema asks for, though its rules may object."""
    match schema["type"]:
        case "object" if "properties" in schema:
            members = {key: valid(key, value) for key, value in schema["properties"].items()}
            required = {key: members.pop(key) for key in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=members)
        case "object":
            return st.dictionaries(names, valid(name, schema["additionalProperties"]), max_size=3)
        case "array":
            return st.lists(valid(name, schema["items"]), max_size=3)
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = schema.get("minimum", 0), schema.get("maximum", 2**63 - 1)
            return st.integers(low, high) | st.sampled_from([low, high])
        case "string":
            return strings(name, schema)
    raise AssertionError(schema)


def paths(schema: Schema, path: Path = ()) -> Iterator[Path]:
    """Where something may be put: the fields, one that is none, and the elements of lists."""
    yield path
    for key, value in schema.get("properties", {}).items():
        yield from paths(value, (*path, key))
    if "items" in schema:
        yield from paths(schema["items"], (*path, 0))
    if schema["type"] == "object":
        yield (*path, "extra")


junk = st.sampled_from(
    [
        *(None, True, False, 0, -0.0, 1, -1, 1.0, 1e3, 1.5, 10000.0, 1e300, 10**400),
        *(2**31, 2**31 - 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1),
        *("", "1", "true", "yes", "null", "Sync\x00", "sync", "\u212a", "x" * 300),
        *([], {}, [None], [[]], {"": None}, ["a"], {"a": "b"}, {"name": "a"}, {"a" * 1000: 1}),
    ]
) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda items: st.lists(items, max_size=2) | st.dictionaries(st.text(max_size=3), items, max_size=2),
    max_leaves=4,
)


def put(spec: Any, path: Path, value: Any) -> Any:
    """The spec with this value there, if there is such a place."""
    if not path:
        return value
    step, *rest = path
    if isinstance(step, str) and isinstance(spec, dict):
        return {**spec, step: put(spec.get(step, {} if rest else None), tuple(rest), value)}
    if step == 0 and isinstance(spec, list):
        return [put(spec[0] if spec else {}, tuple(rest), value), *spec[1:]]
    return spec


def specs(definition: Manifest) -> st.SearchStrategy[Any]:
    """Specs that are good, nearly good, and not at all."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    mutations = st.lists(st.tuples(st.sampled_from(list(paths(schema))), junk), max_size=2)

    def mutated(spec: Any, changes: list[tuple[Path, Any]]) -> Any:
        for path, value in changes:
            spec = put(spec, path, value)
        return spec

    return st.builds(mutated, valid("spec", schema), mutations)


def definition_of(kind: str) -> Manifest:
    definition: Manifest = yaml.safe_load((ROOT / "crds" / f"{kind.lower()}s.yaml").read_text())
    return definition


def has_floats(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_floats, value.values()))
    if isinstance(value, list):
        return any(map(has_floats, value))
    return isinstance(value, float)


def refused_by_model(kind: str, spec: Any) -> str:
    """What the operator would say in a condition, and busctl on the terminal; nothing if the spec is good."""
    metadata = {"namespace": "default", "name": "a", "uid": "u"}
    resource = Resource.from_body({"kind": kind, "metadata": metadata, "spec": {}})
    resource = replace(resource, spec={} if spec is None else spec)
    refusal = ""
    try:
        resource.channel_spec() if kind == "BusChannel" else resource.database_spec()
    except SpecError as error:
        refusal = str(error)
    assert not refusal or refusal.startswith("spec")
    assert len(refusal) < 4000
    return refusal


def agree(kube: KubeClient, kind: str, spec: Any) -> None:
    manifest = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    collection = f"/apis/{GROUP}/{VERSION}/namespaces/default/{kind.lower()}s?dryRun=All&fieldValidation=Strict"
    by_model, by_server, status, stored = refused_by_model(kind, spec), "", 201, None
    try:
        stored = kube.create(collection, manifest)["spec"]
    except ApiError as error:
        by_server, status = str(error), error.status
    event("refused" if by_server else "accepted")
    assert status in (201, 400, 422), by_server
    if not by_server:
        assert not refused_by_model(kind, stored)
        assert not by_model
    # Where there are rules, the API server takes no 1.0 for an integer; elsewhere it does.
    elif not by_model:
        assert has_floats(spec), by_server


@fuzzing.examples(250)
@given(spec=specs(definition_of("BusChannel")))
def test_channels(kube: KubeClient, definitions: dict[str, Manifest], spec: Any) -> None:
    agree(kube, "BusChannel", spec)


@fuzzing.examples(250)
@given(spec=specs(definition_of("BusDatabase")))
def test_databases(kube: KubeClient, definitions: dict[str, Manifest], spec: Any) -> None:
    agree(kube, "BusDatabase", spec)
