"""`make bench-pipecat`: what a user of pipecat gains by changing two lines, beside what they have."""

import sys
from pathlib import Path

# A page's table is replaced as that of `make chaos` is.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
