"""`make bench-pipecat`, quickly: every figure of the page, but for those that take Redis or 32 processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pipecat import report

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = (report.BEFORE, report.AFTER)


@pytest.mark.slow
def test_pipecats_bus_is_measured_on_its_backend_and_on_ours(tmp_path: Path) -> None:
    output, page = tmp_path / "pipecat.json", tmp_path / "page.md"
    page.write_text((ROOT / "docs/how-to/pipecat.md").read_text())
    ran = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.pipecat", "--quick", "--only", ",".join(SYSTEMS),
            "--output", output, "--page", page,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    gains = json.loads(output.read_text())["gain"]
    assert [what for what, gain in gains.items() if gain is None] == ["each of 32 workers gets, per second"]
    table = page.read_text().partition("<!-- gain:begin -->\n")[2].partition("\n<!-- gain:end -->")[0]
    assert table in ran.stdout
    assert [row.what for row in report.ROWS if f"| {row.what} | " in table] == [
        what for what, gain in gains.items() if gain is not None
    ]
