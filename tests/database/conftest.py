"""Modules beside the tests can be imported; the fixtures are those of all tests that talk SQL."""

import sys
from pathlib import Path

from channel_fixtures import admin, connect, elapse, join, make_channel, shared, waits

__all__ = ["admin", "connect", "elapse", "join", "make_channel", "shared", "waits"]

sys.path.insert(0, str(Path(__file__).parent))
