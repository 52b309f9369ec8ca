"""Those who try, and whom they try it on. Modules beside the tests can be imported."""

import sys
from pathlib import Path

from channel_fixtures import admin, connect, elapse, join, make_channel, shared, waits

sys.path.insert(0, str(Path(__file__).parent))

from intruders import databases, intruder, scene

__all__ = [
    "admin", "connect", "databases", "elapse", "intruder", "join", "make_channel", "scene", "shared", "waits",
]  # fmt: skip
