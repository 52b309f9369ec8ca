"""`make bench-busctl`: how quickly each command of busctl answers, in a database and in a cluster of 500 channels."""

import sys
from pathlib import Path

# The servers are started as the tests start them.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
