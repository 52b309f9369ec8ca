"""`make bench-operator`: the operator with thousands of BusChannels, on a real API server with real PostgreSQL.

What is measured is in `rows/`, each also a test at a smaller size.
"""

import sys
from pathlib import Path

# The servers and the operator's process are started as the tests start them.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
