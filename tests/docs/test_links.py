"""Every link in what users read leads somewhere, in the repository as on the site."""

import re
from urllib.parse import urlsplit

import pytest
from markdown_pages import Page, pages, parsed

from hack.docs.pages import ROOT

_HOST = re.compile(r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)
def test_links_lead_somewhere(page: Page) -> None:
    """Those elsewhere are looked at for their form only: a test must not depend on somebody else's server."""
    dead = [target for target in page.links() if not _leads_somewhere(page, target)]
    assert not dead, f"{page.path}: dead links: {', '.join(dead)}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)
def test_a_heading_is_there_once(page: Page) -> None:
    """Else forges and the site number the anchors differently."""
    anchors = page.anchors()
    assert sorted(anchors) == sorted(set(anchors))
    assert not [anchor for anchor in anchors if re.search(r"-\d$", anchor) and anchor[:-2] in anchors]


def _leads_somewhere(page: Page, target: str) -> bool:
    parts = urlsplit(target)
    if parts.scheme or target.startswith("//"):
        return parts.scheme == "https" and _HOST.match(parts.netloc) is not None
    path = (page.directory / parts.path).resolve() if parts.path else ROOT / page.path
    if not path.is_relative_to(ROOT) or not path.exists():
        return False
    if not parts.fragment:
        return True
    return path.suffix == ".md" and parts.fragment in parsed(str(path.relative_to(ROOT))).anchors()
