"""The example for users of pipecat with the injected bus_runtime: an image that has pipecat, and no more of ours."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pipecat_example
import pytest
from busctl_run import busctl_run

pytestmark = pytest.mark.slow


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A Python with pipecat: what is installed here, but for the project, which a .pth file brings into this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "image"], check=True)
    (packages,) = (tmp_path / "image").glob("lib/python*/site-packages")
    (packages / "pipecat.pth").write_text(sysconfig.get_path("purelib"))
    return tmp_path / "image" / "bin" / "python"


def test_a_call_is_handed_over_and_back(image: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(pipecat_example.FOLDER, tmp_path / "pipecat")
    python = f"env PYTHONPATH={bundle / 'path'} {image} -u"
    workers = [argument for name in pipecat_example.WORKERS for argument in ("--worker", f"{python} pipecat/{name}.py")]
    (tmp_path / "which.py").write_text("import bus_runtime; print(bus_runtime.__file__)")
    with busctl_run(tmp_path, "dev", "-q", "-f", "pipecat/buschannel.yaml", "--", *python.split(), "which.py") as run:
        assert run.wait() == 0, run.output
        assert str(bundle) in run.output
    with busctl_run(tmp_path, "dev", "-q", "-f", "pipecat/buschannel.yaml", *workers) as run:
        assert run.wait(240) == 0, run.output
    said = re.findall(r"^\S+ +│ (?!started: |ended)(.+?) *$", run.output, re.MULTILINE)
    assert [line for line in said if line[0] in "<>"] == pipecat_example.PRINTED["call"], run.output
