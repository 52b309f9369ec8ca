"""The injected bus_runtime, imported by every Python of this machine, and beside what an image may have itself."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from injected_pythons import OTHERS, SUPPORTED

from bus_operator import runtime_injection
from hack.runtime_bundle import PYTHONS

pytestmark = pytest.mark.slow

WHICH = "import bus_runtime; print(bus_runtime.__file__)"
EVERYTHING = """
import bus_runtime, asyncpg, pydantic, orjson
from bus_runtime import BusTTSSpeakMessage
import bus_runtime.testing
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

sealed = AESGCM(b"k" * 16).encrypt(b"n" * 12, b"text", b"")
assert AESGCM(b"k" * 16).decrypt(b"n" * 12, sealed, b"") == b"text"
assert bus_runtime.JSONMessageSerializer().deserialize(
    bus_runtime.JSONMessageSerializer().serialize(BusTTSSpeakMessage(source="a", text="b"))
).text == "b"
assert bus_runtime.__spec__.origin == bus_runtime.__file__
print(bus_runtime.__file__)
"""


@pytest.fixture
def python(bundle: Path, clean_python: Callable[[str], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Python as a pod does that got bus_runtime injected."""

    def run(
        *arguments: str, interpreter: str = sys.executable, program: Path | None = None, path: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": f"{path}{bundle / 'path'}", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
        return subprocess.run(
            [str(program or clean_python(interpreter)), *arguments],
            capture_output=True, text=True, check=False, env=environment, cwd="/", timeout=120,
        )  # fmt: skip

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def site_packages(python: Path) -> Path:
    return next(python.parents[1].glob("lib/python3*/site-packages"))


def test_every_compiled_module_is_there_for_every_python(bundle: Path) -> None:
    suffixes = defaultdict(set)
    for path in (bundle / "lib").rglob("*.so"):
        name, suffix = str(path).removesuffix(".so").rsplit(".", 1)
        suffixes[name].add(suffix)
    for name, found in suffixes.items():
        pythons = {match[1] for suffix in found if (match := re.match(r"cpython-(\d+)-", suffix))}
        assert found == {"abi3"} or pythons == {version.replace(".", "") for version in PYTHONS}, name
    assert len(suffixes) >= 6


def test_it_fits_well_into_its_volume(bundle: Path) -> None:
    size = sum(path.stat().st_size for path in bundle.rglob("*")) / 2**20
    limit = int(runtime_injection.SIZE_LIMIT.removesuffix("Mi"))
    assert 20 < size < limit / 2


def test_licences_come_along(bundle: Path) -> None:
    for metadata in (bundle / "lib").glob("*.dist-info"):
        assert [path for path in metadata.rglob("*") if re.match("LICEN[CS]E|COPYING", path.name)], metadata.name


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_python_without_packages_imports_everything(python: Run, bundle: Path, version: str) -> None:
    found = said(python("-c", EVERYTHING, interpreter=SUPPORTED[version]))
    assert found == str(bundle / "lib" / "bus_runtime" / "__init__.py")


def test_other_pythons_are_told_why(python: Run) -> None:
    for version, interpreter in OTHERS.items():
        last = error(python("-c", WHICH, interpreter=interpreter))
        assert last.startswith(
            "ImportError: bus_runtime was injected into this container, and this Python cannot use it"
        )
        assert f"it is CPython {version} (" in last
        assert last.endswith("[RuntimeUnsupported]")


def test_a_program_that_does_not_import_it_notices_nothing(python: Run, bundle: Path) -> None:
    code = (
        "import sys; print([p for p in sys.path if 'bundle' in p], 'bus_runtime' in sys.modules, 'json' in sys.modules)"
    )
    assert said(python("-c", code)) == f"[{str(bundle / 'path')!r}] False False"
    assert [path.name for path in (bundle / "path").iterdir()] == ["bus_runtime"]


@pytest.mark.parametrize("flags", [["-S"], ["-s"], ["-P"], ["-B", "-O"]], ids=" ".join)
def test_flags_of_python(python: Run, bundle: Path, flags: list[str]) -> None:
    assert said(python(*flags, "-c", WHICH)) == str(bundle / "lib" / "bus_runtime" / "__init__.py")


def test_isolated_python_has_no_python_path(python: Run) -> None:
    assert error(python("-I", "-c", WHICH)) == "ModuleNotFoundError: No module named 'bus_runtime'"


def test_processes_that_it_starts(python: Run, bundle: Path) -> None:
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {WHICH!r}]))"
    assert said(python("-c", code)) == str(bundle / "lib" / "bus_runtime" / "__init__.py")


def test_programs_of_the_package(python: Run) -> None:
    assert "Find out why this process cannot use its channel" in said(python("-m", "bus_runtime.doctor", "--help"))


def test_a_zipped_application(python: Run, bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "app.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", WHICH)
    assert said(python(str(archive))) == str(bundle / "lib" / "bus_runtime" / "__init__.py")


def test_threads_that_import_it_at_once(python: Run) -> None:
    code = """
import threading
def use():
    import bus_runtime
    bus_runtime.PgmqBus
threads = [threading.Thread(target=use) for _ in range(8)]
failed = []
threading.excepthook = failed.append
for t in threads: t.start()
for t in threads: t.join()
print(len(failed))
"""
    assert said(python("-c", code)) == "0"


@pytest.fixture
def image(clean_python: Callable[[str], Path], tmp_path: Path) -> Path:
    """A Python to put packages into."""
    copy = tmp_path / "image"
    shutil.copytree(clean_python(sys.executable).parents[1], copy, symlinks=True)
    return copy / "bin" / "python"


def test_the_images_own_bus_runtime_goes_before(python: Run, image: Path) -> None:
    own = site_packages(image) / "bus_runtime"
    own.mkdir()
    (own / "__init__.py").write_text("import sys\npath = [p for p in sys.path if p.endswith('lib')]\n")
    (own / "part.py").write_text("print(__file__)")
    assert said(python("-c", WHICH, program=image)) == str(own / "__init__.py")
    assert said(python("-c", "import bus_runtime.part", program=image)) == str(own / "part.py")
    assert said(python("-c", "import bus_runtime; print(bus_runtime.path)", program=image)) == "[]"


def test_one_that_is_installed_for_development_goes_before(python: Run, image: Path, tmp_path: Path) -> None:
    """Some of these are found by a finder of their own and not by sys.path."""
    own = tmp_path / "source"
    own.mkdir()
    (own / "here.py").write_text("")
    (site_packages(image) / "finder.py").write_text(
        "import sys, importlib.util\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'bus_runtime':\n"
        f"            return importlib.util.spec_from_file_location(name, {str(own / 'here.py')!r})\n"
        "sys.meta_path.append(Finder)\n"
    )
    (site_packages(image) / "development.pth").write_text("import finder\n")
    assert said(python("-c", WHICH, program=image)) == str(own / "here.py")


def test_a_directory_of_that_name_is_no_package(python: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bus_runtime").mkdir()
    found = said(python("-c", WHICH, path=f"{tmp_path}:"))
    assert found == str(bundle / "lib" / "bus_runtime" / "__init__.py")


def test_the_images_own_packages_go_before_if_they_go_together(python: Run, image: Path, bundle: Path) -> None:
    site = site_packages(image)
    for package in ("orjson", *(path.name for path in (bundle / "lib").glob("orjson-*"))):
        shutil.copytree(bundle / "lib" / package, site / package)
    code = "import bus_runtime, orjson, pydantic; print(orjson.__file__, pydantic.__file__)"
    expected = f"{site / 'orjson' / '__init__.py'} {bundle / 'lib' / 'pydantic' / '__init__.py'}"
    assert said(python("-c", code, program=image)) == expected


def test_packages_that_do_not_go_together_are_named(python: Run, image: Path) -> None:
    site = site_packages(image)
    (site / "pydantic").mkdir()
    (site / "pydantic" / "__init__.py").write_text("")
    (site / "pydantic-1.10.2.dist-info").mkdir()
    (site / "pydantic-1.10.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pydantic\nVersion: 1.10.2\n"
    )
    last = error(python("-c", WHICH, program=image))
    assert "does not go together with what the image has: pydantic 1.10.2 (pgmq-bus needs >=2.11)" in last
    assert last.endswith("[RuntimeConflict]")
    assert said(python("-c", "import pydantic; print(pydantic.__file__)", program=image)).startswith(str(site))


def test_a_program_can_do_without_it(python: Run, image: Path) -> None:
    site = site_packages(image)
    (site / "orjson.py").write_text("")
    (site / "orjson-3.0.dist-info").mkdir()
    (site / "orjson-3.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: orjson\nVersion: 3.0\n")
    code = "try:\n import bus_runtime\nexcept ImportError as error:\n print(error.code, error.name)"
    assert said(python("-c", code, program=image)) == "RuntimeConflict bus_runtime"
