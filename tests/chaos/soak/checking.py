"""Checks a page: `python -m chaos.soak.checking DIRECTORY`, with a directory of histories for each channel in it.

Writes the verdicts to standard output, as JSON.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import orjson
from chaos.checker import check
from chaos.history import read_all
from chaos.report import verdict_document
from chaos.soak.world import PROMISES


def main(page: Path) -> int:
    """As a program."""
    verdicts = {
        channel: verdict_document(check(read_all(page / channel), promise)) for channel, promise in PROMISES.items()
    }
    sys.stdout.buffer.write(orjson.dumps({"verdicts": verdicts, "seconds": time.process_time()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
