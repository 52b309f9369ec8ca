"""The site that `make docs` builds: whole, by itself, and saying what the Markdown says."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_pages import Page, pages

from hack.docs import api, commands, definitions, values
from hack.docs.pages import ROOT, site_path

pytestmark = pytest.mark.slow

_COUNTED = {
    "li": "list_item_open",
    "table": "table_open",
    "pre": "fence",
    "ol": "ordered_list_open",
    "ul": "bullet_list_open",
    "blockquote": "blockquote_open",
}


class Html(HTMLParser):
    """What a page of the site loads, links to, and has anchors for; and how many elements its text has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.elements: Counter[str] = Counter()
        self._in_text = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if identifier := found.get("id"):
            self.anchors.add(identifier)
        if tag == "article":
            self._in_text = True
        if tag == "a" and (target := found.get("href")):
            self.links.append(target)
        if tag in ("script", "img", "iframe") and (source := found.get("src")):
            self.loaded.append(source)
        if tag == "link" and (source := found.get("href")):
            self.loaded.append(source)
        if self._in_text:
            self.elements[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._in_text = False


@pytest.fixture(scope="session")
def built(site: Path) -> dict[Path, Html]:
    """All pages."""
    return {path: Html(path.read_text()) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, built: dict[Path, Html]) -> None:
    for path, page in built.items():
        for source in page.loaded:
            parts = urlsplit(source)
            assert not parts.scheme, f"{path}: {source}"
            assert not parts.netloc, f"{path}: {source}"
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text().replace('"', "").replace("'", "")


def test_no_link_is_dead(site: Path, built: dict[Path, Html]) -> None:
    """Those of generated pages as well, which no page in the repository has."""
    dead = []
    for path, page in built.items():
        for target in page.links:
            parts = urlsplit(target)
            # The page for what was not found may be shown anywhere, so its links begin at the root.
            if parts.scheme or path.name == "404.html":
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            if there not in built and not (there.is_file() and there.is_relative_to(site)):
                dead.append(f"{path.relative_to(site)}: {target}")
            elif parts.fragment and there in built and unquote(parts.fragment) not in built[there].anchors:
                dead.append(f"{path.relative_to(site)}: {target}: no such anchor")
    assert not dead, "\n".join(dead)


def test_pictures_are_drawn_by_what_the_site_has(site: Path, built: dict[Path, Html]) -> None:
    with_pictures = [path for path in built if 'class="mermaid"' in path.read_text()]
    assert site / "architecture.html" in with_pictures
    for path, page in built.items():
        scripts = [source for source in page.loaded if source.endswith("mermaid.min.js")]
        assert len(scripts) == (path in with_pictures)
        for source in scripts:
            assert (path.parent / source).resolve().is_file()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)
def test_the_site_has_the_structure_that_forges_show(page: Page, site: Path, built: dict[Path, Html]) -> None:
    """Two dialects of Markdown. A list, table or block that only one of them sees: put an empty line before it, and
    indent what belongs to an item of a list by four spaces."""
    found = built[site / Path(site_path(page.path)).with_suffix(".html")]
    wanted = Counter(token.type for token in page.tokens)
    for tag, kind in _COUNTED.items():
        assert found.elements[tag] == wanted[kind] + (wanted["code_block"] if tag == "pre" else 0), tag
    assert {anchor for anchor in page.anchors() if anchor} <= found.anchors


def test_the_reference_has_every_field(site: Path, built: dict[Path, Html]) -> None:
    for name in ("buschannel", "busdatabase"):
        page = built[site / "reference" / f"{name}.html"]
        for field in definitions.fields(f"{name}s.yaml"):
            assert field.lower() in page.anchors
    assert {value.path.lower() for value in values.values()} <= built[site / "reference" / "values.html"].anchors


def test_the_reference_has_every_command_and_name(site: Path, built: dict[Path, Html]) -> None:
    assert {name.replace(" ", "-") for name, _ in commands.helps()} <= built[site / "reference" / "busctl.html"].anchors
    names = {found.name.lower() for found in api.objects()}
    assert (
        {"pgmqbus", "publisherror", "busjobrequestmessage"}
        <= names
        <= built[site / "reference" / "bus_runtime.html"].anchors
    )


def test_every_page_is_in_the_navigation() -> None:
    """Decisions have an index of their own."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in pages():
        if not page.path.startswith("docs/decisions/"):
            assert f": {site_path(page.path)}\n" in navigation, f"mkdocs.yml: add {page.path} to nav"
