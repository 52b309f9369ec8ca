"""What MkDocs calls while it builds the site (see mkdocs.yml): adds pages that are not in docs/, and turns links."""

from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from hack.docs import api, commands, definitions, mermaid, pages, source, values

_MERMAID = "assets/mermaid.min.js"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are elsewhere in the repository or generated, and mermaid."""
    for path in pages.OUTSIDE:
        _add(files, config, pages.site_path(path), (pages.ROOT / path).read_text())
    for path, text in _generated():
        _add(files, config, pages.site_path(path), text)
    files.append(File.generated(config, _MERMAID, abs_src_path=str(mermaid.script())))
    files.append(File.generated(config, "assets/site.css", abs_src_path=str(pages.ROOT / "hack" / "docs" / "site.css")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turns the links of what somebody wrote."""
    path = next((path for path in pages.written() if pages.site_path(path) == page.file.src_uri), None)
    return markdown if path is None else pages.turned(path, markdown)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Gives mermaid to the pages that have a picture, before the theme looks for it elsewhere."""
    if 'class="mermaid"' not in output:
        return output
    up = "../" * page.url.count("/")
    return output.replace("</head>", f'<script src="{up}{_MERMAID}"></script></head>', 1)


def _add(files: Files, config: MkDocsConfig, uri: str, text: str) -> None:
    files.append(File.generated(config, uri, content=text))


def _generated() -> Iterator[tuple[str, str]]:
    yield "docs/decisions", source.decisions_page()
    yield "crds/buschannels.yaml", definitions.page("buschannels.yaml")
    yield "crds/busdatabases.yaml", definitions.page("busdatabases.yaml")
    yield "charts/pgmq-bus/values.yaml", values.page()
    yield "operator/bus_operator/cli", commands.page()
    yield "bus_runtime", api.page()
    known = {*pages.written(), *pages.REFERENCE, "docs/decisions"}
    shown: set[str] = set()
    for path in sorted({target for page in pages.written() for target in pages.linked(page)} - known):
        if (pages.ROOT / path).is_dir():
            yield path, source.directory_page(path)
            shown.update(source.files(path))
        elif (pages.ROOT / path).is_file() and not path.startswith("docs/"):
            shown.add(path)
    for path in sorted(shown):
        yield path, source.file_page(path)
