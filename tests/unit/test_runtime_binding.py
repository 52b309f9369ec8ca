"""Finding and reading the injected binding, and what is said when it is not as it should be."""

import os
import shutil
import threading
import traceback
from pathlib import Path

import pytest
from projected import project

import bus_runtime.binding
from bus_runtime import BindingError, IsolatedPgmqBackend, PgmqBus, UnavailableError, find_binding
from bus_runtime.binding import ReaderDefaults, read_binding

URI = "postgresql://login:hush-hush@db.example:5432/bus?sslmode=disable"
FILES = {"type": "pgmqbus", "provider": "pgmq-bus", "channel": "shop.orders", "uri": URI, "generation": "3"}
CONFIG = (
    '{"reader": {"visibilityTimeoutSeconds": 60, "batchSize": 7, "pollIntervalMilliseconds": 250, '
    '"maxPollSeconds": 2}, "limits": {"maxMessageBytes": 1000}}'
)


def write(root: Path, name: str = "orders", **changes: str | None) -> Path:
    directory = root / name
    directory.mkdir(parents=True)
    for key, value in (FILES | changes).items():
        if value is not None:
            (directory / key.replace("_", ".")).write_text(value)
    return directory


def write_projected(root: Path, name: str, generation: str) -> None:
    project(root / name, FILES | {"generation": generation, "uri": f"postgresql://login_g{generation}@db/bus"})


def test_the_only_binding_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, config_json=CONFIG)
    write(tmp_path, "cache", type="redis")
    (tmp_path / "stray-file").write_text("x")
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path))
    binding = find_binding()
    assert (binding.name, binding.channel, binding.uri, binding.generation) == ("orders", "shop.orders", URI, "3")
    assert binding.reader == ReaderDefaults(60, 7, 250, 2)
    assert find_binding("orders") == binding
    assert find_binding(root=tmp_path) == binding


def test_without_config_the_defaults_hold(tmp_path: Path) -> None:
    write(tmp_path, config_json=None)
    assert find_binding(root=tmp_path).reader == ReaderDefaults(30, 10, 100, 5)


@pytest.mark.parametrize("name", [None, "audit"])
def test_a_binding_whose_secret_is_not_there_yet(tmp_path: Path, name: str | None) -> None:
    """A pod that a BusChannel selects starts without it: its volume is there, and empty."""
    (tmp_path / "audit" / "..2026_05_04").mkdir(parents=True)
    (tmp_path / "audit" / "..data").symlink_to("..2026_05_04")
    with pytest.raises(BindingError, match=r"audit is empty: .* kubectl describe buschannel audit says why"):
        find_binding(name, root=tmp_path)


def test_the_password_shows_nowhere(tmp_path: Path) -> None:
    write(tmp_path)
    assert "hush" not in repr(find_binding(root=tmp_path))


def test_trailing_newlines_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, type="pgmqbus\n", channel="shop.orders\n", uri=URI + "\n")
    assert find_binding(root=tmp_path).channel == "shop.orders"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (None, {"type": "redis"}, "has no binding of type pgmqbus"),
        ("orders", {"type": "redis"}, "is of type 'redis', not 'pgmqbus'"),
        ("audit", {}, r"has no binding 'audit', but one for orders: from_binding\(\"orders\"\) \[BindingNotFound\]$"),
        ("..", {}, r"has no binding '..', but one for orders"),
        ("x" * 300, {}, r"has no binding 'xxx"),
        ("orders", {"type": None}, "has no 'type', it has channel, generation, provider, uri"),
        (None, {"channel": None}, "has no 'channel'"),
        (None, {"uri": None}, "has no 'uri'"),
        (None, {"uri": " \n"}, "has no 'uri'"),
        (None, {"config_json": "{"}, r"config.json of binding .*orders is not as expected"),
        (None, {"config_json": "[]"}, r"config.json of binding .*orders is not as expected"),
        (None, {"config_json": '{"reader": {"batchSize": "many"}}'}, r"config.json of binding"),
        (None, {"config_json": '{"reader": {"batchSize": 0}}'}, r"reader.batchSize must be from 1 to 1000"),
        (None, {"config_json": '{"reader": {"maxPollSeconds": 1e30}}'}, r"maxPollSeconds must be from 0 to 60"),
        (None, {"channel": "a\nb"}, "channel of binding .*orders holds a line break or another control character"),
        (None, {"generation": "1\0"}, "generation of binding .* holds"),
        (None, {"uri": URI + "\nx"}, "uri of binding .* holds"),
        (None, {"uri": "x" * (1024 * 1024 + 1)}, "uri has more than 1048576 bytes"),
    ],
)
def test_what_is_said_about_a_bad_binding(
    tmp_path: Path, name: str | None, changes: dict[str, str | None], words: str
) -> None:
    write(tmp_path, **changes)
    with pytest.raises(BindingError, match=words):
        find_binding(name, root=tmp_path)


def test_what_is_said_without_any_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICE_BINDING_ROOT", raising=False)
    with pytest.raises(BindingError, match=r"SERVICE_BINDING_ROOT is not set.*pgmqbus.dev/inject.*busctl apply"):
        find_binding()
    with pytest.raises(BindingError, match="is not a directory"):
        find_binding(root=tmp_path / "nowhere")
    with pytest.raises(
        BindingError, match=r"has no binding 'audit', and no other: in Kubernetes, label.* busctl dev -f"
    ):
        find_binding("audit", root=tmp_path)
    with pytest.raises(BindingError, match="has no binding of type pgmqbus"):
        find_binding(root=tmp_path)


def test_several_bindings_are_named(tmp_path: Path) -> None:
    write(tmp_path, "orders")
    write(tmp_path, "audit")
    with pytest.raises(BindingError, match=r"several bindings of type pgmqbus: audit, orders; say which"):
        find_binding(root=tmp_path)
    assert find_binding("audit", root=tmp_path).name == "audit"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "channel").write_bytes(b"\xff\xfe")
    with pytest.raises(BindingError, match="cannot read binding"):
        find_binding(root=tmp_path)


def test_a_binding_that_is_gone_says_so(tmp_path: Path) -> None:
    directory = write(tmp_path)
    binding = find_binding(root=tmp_path)
    shutil.rmtree(directory)
    with pytest.raises(BindingError, match="is gone"):
        binding.reload()


def test_a_projected_binding_is_read_as_of_one_moment(tmp_path: Path) -> None:
    write_projected(tmp_path, "orders", "0")
    binding = find_binding(root=tmp_path)
    assert binding.uri == "postgresql://login_g0@db/bus"
    done = threading.Event()

    def rotate() -> None:
        for generation in range(1, 200):
            write_projected(tmp_path, "orders", str(generation))
        done.set()

    rotation = threading.Thread(target=rotate)
    rotation.start()
    seen = set()
    try:
        while not done.is_set():
            binding = binding.reload()
            assert binding.uri == f"postgresql://login_g{binding.generation}@db/bus"
            seen.add(binding.generation)
    finally:
        rotation.join()
    assert len(seen) > 1
    assert binding.reload().generation == "199"


@pytest.mark.parametrize("gone", ["missing", "raises"])
def test_a_binding_whose_type_is_replaced_as_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """The kubelet deletes the former files at once: who has just followed the link to them finds nothing."""
    directory = tmp_path / "orders"
    project(directory, FILES)
    read, replaced = bus_runtime.binding._text, False

    def late(path: Path) -> str | None:
        nonlocal replaced
        if replaced or path.name != "type":
            return read(path)
        replaced = True
        project(directory, FILES | {"generation": "2"})
        if gone == "raises":
            raise FileNotFoundError(path)
        return None

    monkeypatch.setattr(bus_runtime.binding, "_text", late)
    assert find_binding(root=tmp_path).generation == "2"


def test_files_that_are_replaced_are_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "orders"
    project(directory, FILES)
    is_file, left = Path.is_file, len(list(directory.iterdir()))

    def late(path: Path) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return is_file(path)
        if left == 0:
            project(directory, FILES | {"generation": "2"})
        return False

    monkeypatch.setattr(Path, "is_file", late)
    assert read_binding(directory).generation == "2"


def test_a_bus_takes_the_channels_settings_and_yours_over_them(tmp_path: Path) -> None:
    write(tmp_path, config_json=CONFIG)
    bus = PgmqBus.from_binding(root=tmp_path, batch_size=99)
    assert bus._channel == "shop.orders"
    settings = bus._settings
    assert (settings.visibility_timeout, settings.batch_size, settings.poll_interval, settings.max_poll) == (
        60, 99, 0.25, 2,
    )  # fmt: skip


async def test_a_backend_of_a_binding_serves_that_channel_only(tmp_path: Path) -> None:
    write(tmp_path)
    backend = IsolatedPgmqBackend.from_binding(root=tmp_path)
    with pytest.raises(ValueError, match=r"binding 'orders' is for channel 'shop.orders', not 'other'"):
        await backend.join("other")
    assert backend._name("pipecat_bus") == backend._name("shop.orders") == "shop.orders"


def test_replaced_files_are_noticed(tmp_path: Path) -> None:
    write_projected(tmp_path, "orders", "3")
    before = read_binding(tmp_path / "orders")
    assert before.is_current
    write_projected(tmp_path, "orders", "4")
    assert not before.is_current
    after = before.reload()
    assert after.is_current
    assert (after.generation, after == before.reload()) == ("4", True)
    shutil.rmtree(tmp_path / "orders")
    assert not after.is_current


def test_replaced_files_are_noticed_without_the_kubelet(tmp_path: Path) -> None:
    """As `busctl apply` writes them: the generation comes last."""
    directory = write(tmp_path)
    before = read_binding(directory)
    (directory / "generation").write_text("4")
    assert not before.is_current


def test_what_else_is_there_is_nobodys_business(tmp_path: Path) -> None:
    """A certificate in the Secret, and bindings of other types, need not be text."""
    (write(tmp_path) / "keystore.p12").write_bytes(b"\xff\xfe\x00")
    other = write(tmp_path, "other")
    (other / "type").write_bytes(b"\xff\xfe")
    os.mkfifo(write(tmp_path, "pipe", type=None) / "type")
    assert find_binding(root=tmp_path).name == "orders"


def test_a_generation_that_is_no_text_any_more_is_a_replaced_one(tmp_path: Path) -> None:
    directory = write(tmp_path)
    binding = read_binding(directory)
    (directory / "generation").write_bytes(b"\xff")
    assert not binding.is_current
    with pytest.raises(BindingError, match="cannot read binding"):
        binding.reload()


@pytest.mark.parametrize("uri", ["postgresql://u:hush@h:hush-hush/d", "postgresql://u:p@h..h/d", "postgresql://[::1/d"])
async def test_a_uri_that_cannot_be_used_is_no_connection(tmp_path: Path, uri: str) -> None:
    write(tmp_path, uri=uri)
    backend = IsolatedPgmqBackend.from_binding(root=tmp_path)
    with pytest.raises(UnavailableError, match="the uri of binding 'orders' cannot be used") as caught:
        await backend.join("shop.orders")
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    await backend.close()


@pytest.mark.parametrize(
    ("uri", "server", "address"),
    [
        ("postgresql://u:p@db:6543/shop", ("db", 6543), "db:6543/shop"),
        ("postgresql://u:p@db/shop?sslmode=require", ("db", 5432), "db:5432/shop"),
        ("postgresql://u:p@db/shop?port=6543", ("db", 6543), "db:6543/shop"),
        ("postgresql://u:p@/shop?host=%2Frun%2Fdb&port=6543", ("/run/db", 6543), "/run/db:6543/shop"),
        ("postgresql://u:p@%2Frun%2FDB/shop", ("/run/DB", 5432), "/run/DB:5432/shop"),
        ("postgresql://u:p@[::1]:6543/shop", ("::1", 6543), "::1:6543/shop"),
        ("postgresql://u:p@one:1,two:2/shop", None, "the server of binding 'orders'"),
        ("postgresql://u:p@one,two/shop", None, "the server of binding 'orders'"),
        ("postgresql://u:p@db/shop?port=hush", None, "the server of binding 'orders'"),
        ("postgresql://u:p@/shop", None, "the server of binding 'orders'"),
    ],
)
def test_where_a_uri_leads(tmp_path: Path, uri: str, server: tuple[str, int] | None, address: str) -> None:
    write(tmp_path, uri=uri)
    binding = find_binding(root=tmp_path)
    assert (binding.server, binding.address) == (server, address)
