"""The binding reader on directories with anything in them: a binding, or a BindingError that says what is wrong."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fuzzing
from hypothesis import given
from hypothesis import strategies as st
from projected import project

from bus_runtime import Binding, BindingError, find_binding

contents = (
    st.sampled_from(
        [
            *(b"pgmqbus", b"pgmqbus\n", b"redis", b"shop.orders", b"3", b"", b" \n", b"\xff\xfe", b"\x00", b"a\nb"),
            *(b"postgresql://u:p@h:5432/d", b"postgresql://u:p/x@h/d", b"{}", b"[]", b"null", b'{"reader": null}'),
            *(b'{"reader": {"batchSize": 1e300}}', b'{"reader": {"batchSize": -1}}', b'{"reader": {"batchSize": []}}'),
            *(b'{"reader": {"maxPollSeconds": "\\ud800"}}', b'{"reader": {"batchSize": 7}}', b"[" * 5000, b"x" * 3000),
            *(b'{"reader": {"batchSize": true}}', b'{"reader": {"maxPollSeconds": "7"}}', "\u2028".encode()),
        ]
    )
    | st.binary(max_size=20)
    | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
kinds = st.sampled_from(["file"] * 6 + ["absent", "directory", "pipe", "dangling", "loop"])
names = st.sampled_from(["type", "channel", "uri", "config.json", "generation", "..data", "ca.crt", "ca.p12"])
GOOD = {"type": b"pgmqbus", "channel": b"shop.orders", "uri": b"postgresql://u:p@h/d", "generation": b"1"}
directories = st.dictionaries(names, st.tuples(kinds, contents), max_size=4)


def place(path: Path, kind: str, content: bytes) -> None:
    match kind:
        case "file":
            path.write_bytes(content)
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)


def found(root: Path, name: str | None) -> Binding | None:
    try:
        binding = find_binding(name, root=root)
    except BindingError as error:
        message = str(error)
    else:
        assert binding.channel.isprintable()
        assert binding.uri.isprintable()
        assert 1 <= binding.reader.batch_size <= 1000
        assert binding.is_current
        assert binding.reload() == binding
        return binding
    assert 20 < len(message) < 2000
    return None


@fuzzing.examples(100)
@given(
    st.lists(directories, max_size=3),
    st.none() | st.sampled_from(["b0", "b1", "..", ".", "", "a\x00", "x" * 300, "b0/../b1"]),
)
def test_any_directory_is_a_binding_or_an_error(changes: list[dict[str, tuple[str, bytes]]], name: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, changed in enumerate(changes):
            directory = root / f"b{number}"
            directory.mkdir()
            files = {key: ("file", content) for key, content in GOOD.items()} | changed
            for key, (kind, content) in files.items():
                place(directory / key, kind, content)
        found(root, name)


@contextmanager
def rotating(directory: Path, versions: list[dict[str, str]]) -> Iterator[threading.Event]:
    """Replaces the files again and again, as the kubelet does it, while the block runs."""
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            for files in versions:
                project(directory, files)

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


@fuzzing.examples(10)
@given(st.lists(st.text("abc", min_size=1, max_size=2000), min_size=2, max_size=4))
def test_files_that_are_replaced_meanwhile_are_never_mixed(texts: list[str]) -> None:
    versions = [
        {"type": "pgmqbus", "channel": text, "uri": f"postgresql://{text}@h/d", "generation": str(number)}
        for number, text in enumerate(texts)
    ]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "orders"
        project(directory, versions[0])
        with rotating(directory, versions):
            for _ in range(40):
                try:
                    binding = find_binding(root=folder)
                except BindingError as error:
                    # The rotation here never pauses, as the kubelet's does for a minute.
                    if "keeps changing" not in str(error):
                        raise
                    continue
                version = versions[int(binding.generation or "")]
                assert (binding.channel, binding.uri) == (version["channel"], version["uri"])
