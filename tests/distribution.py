"""How tests are shared out between processes: in one piece what shares something, at the end what is short."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("apiserver", "cluster", "operator")
"""Directories whose tests share what takes long to start: a control plane, the cluster, the operator. They come first,
in this order: the operator would act on what the tests of the API server put there."""

SHORT = ("chart", "unit")
"""Directories that come last, so that all processes end at about the same time."""

_HERE = Path(__file__).parent


def rank(item: pytest.Item) -> int:
    """The place of the test's directory."""
    directory = item.path.relative_to(_HERE).parts[0]
    return TOGETHER.index(directory) if directory in TOGETHER else len(TOGETHER) + (directory in SHORT)


class Scheduling(LoadScopeScheduling):
    """Gives a process the next file, or the next of the directories that stay together, when it is nearly done."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        directory = file.split("/")[1]
        return directory if directory in TOGETHER else file
