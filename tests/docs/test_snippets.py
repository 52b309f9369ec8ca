"""What README and docs tell users to type: the parts that can be tried without a server.

Those that need one, and Helm: `test_snippets.py` in tests/chart, tests/database and tests/apiserver.
"""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from snippets import Snippet, commands, commands_in_text, snippets

from bus_operator.cli import cli
from hack.docs import mermaid
from hack.docs.pages import ROOT

LANGUAGES = {"sh", "yaml", "python", "sql", "ini", "mermaid", "text"}
MOST_OUTPUT = 8
"""How many blocks may be nothing but output, which nothing keeps true."""

ELSEWHERE = {"kubectl", "helm"}
"""Tried by tests/apiserver and tests/chart."""
OF_THE_SYSTEM = {
    "base64",
    "cat",
    "cosign",
    "curl",
    "echo",
    "eval",
    "date",
    "docker",
    "grep",
    "jq",
    "kind",
    "pip",
    "pg_dump",
    "pg_dumpall",
    "psql",
    "py-spy",
    "read",
    "sed",
}
"""Programs whose own arguments are not ours to check."""

_FLAG = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
_MERMAID = """
globalThis.window = globalThis;
require("vm").runInThisContext(require("fs").readFileSync(process.argv[1], "utf8"));
const pictures = JSON.parse(require("fs").readFileSync(0, "utf8"));
(async () => {
  for (const [where, text] of pictures) {
    try {
      await mermaid.parse(text);
    } catch (error) {
      // What the parser refuses has a hash; what comes after parsing wants a browser.
      if (error.hash || error.name === "UnknownDiagramError") console.log(where + ": " + error.message);
    }
  }
})();
"""


def test_every_block_has_a_language_that_is_tried() -> None:
    for snippet in snippets():
        assert snippet.language in LANGUAGES, (
            f"{snippet}: a code block begins with ``` and one of {', '.join(sorted(LANGUAGES))}"
        )
    assert len(snippets("text")) <= MOST_OUTPUT


@pytest.mark.parametrize("snippet", snippets("sh"), ids=str)
def test_shell_can_be_parsed(snippet: Snippet) -> None:
    done = subprocess.run(["bash", "-n"], input=snippet.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", [*snippets("sh"), *commands_in_text()], ids=str)
def test_commands_exist_with_their_flags(snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands(snippet.text)
    # What kubectl exec runs in a pod is looked at as well.
    inner = [words[words.index("--") + 1 :] for words in found if words[:2] == ["kubectl", "exec"] and "--" in words]
    for words in [*found, *inner]:
        program, *arguments = words
        match program:
            case "make":
                variables = {word.partition("=")[0] for word in arguments if "=" in word}
                assert {word for word in arguments if "=" not in word} <= _targets(), snippet
                assert all(f"$({name})" in _makefile() for name in variables), snippet
            case "busctl":
                _check_busctl(arguments, whole=snippet in snippets("sh"))
            case ".venv/bin/pytest":
                assert (ROOT / arguments[0]).exists(), snippet
            case "python" | ".venv/bin/python" if arguments[0] == "-m":
                _check_module(arguments[1], arguments[2:])
            case "python":
                assert arguments[0] in {other.file for other in snippets("python")} | {"worker.py"}, snippet
            case _:
                assert program in ELSEWHERE | OF_THE_SYSTEM, f"{snippet}: nothing here knows how to try {program!r}"


def test_pictures_can_be_parsed() -> None:
    if not mermaid.is_installed():
        mermaid.install()
    pictures = [(str(snippet), snippet.text) for snippet in snippets("mermaid")]
    done = subprocess.run(
        ["node", "-e", _MERMAID, str(mermaid.script())],
        input=json.dumps(pictures), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stdout, done.stdout


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=str)
def test_yaml_can_be_parsed_and_is_whole_or_says_what_of(snippet: Snippet) -> None:
    for document in snippet.documents():
        whole = {"apiVersion", "kind", "metadata"} <= document.keys()
        assert whole or snippet.part_of or snippet.note == "values", (
            f"{snippet}: write <!-- snippet: part of a KIND --> or <!-- snippet: values --> above it"
        )


def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", _makefile(), re.MULTILINE))


def _check_busctl(arguments: Sequence[str], *, whole: bool) -> None:
    """As click parses them: commands, options and their values. In a sentence arguments may be left out."""
    context = click.Context(cli, info_name="busctl")
    command = cli.get_command(context, arguments[0])
    assert command is not None, f"busctl has no command {arguments[0]}"
    for word in arguments:
        if Path(word).suffix in (".yaml", ".yml"):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()
    with command.make_context(arguments[0], list(arguments[1:]), parent=context, resilient_parsing=not whole):
        pass  # which closes the files that were opened
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    # What comes after -- is another program's.
    own = arguments[1 : arguments.index("--")] if "--" in arguments else arguments[1:]
    assert {word for word in own if word.startswith("-") and word != "-"} <= known | {"--help"}


def _check_module(name: str, arguments: Sequence[str]) -> None:
    """A program of the repository: its flags are in what --help prints."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise AssertionError(f"there is no module {name}")
    if name.partition(".")[0] in ("http", "venv"):
        return
    environment = {"PYTHONPATH": "tests:operator:.", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", name, "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    flags = {word for word in arguments if word.startswith("--")}
    assert flags <= set(_FLAG.findall(done.stdout)) | {"--help"}, done.stdout
