"""The commands of busctl as a whole: what their help says, that none is slow because of another, completion."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest
import yaml
from click.shell_completion import ShellComplete

from bus_operator import cli

HEAVY = ("kubernetes", "kopf", "aiohttp", "asyncpg", "pydantic", "rich", "pgmq", "prometheus_client")


def commands() -> dict[str, click.Command]:
    context = click.Context(cli.cli, info_name="busctl")
    found = {name: cli.cli.get_command(context, name) for name in cli.cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def imported_by(*arguments: str) -> set[str]:
    """Which slow packages a run of busctl has imported at its end."""
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr))\n"
        "from bus_operator.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    found: list[str] = yaml.safe_load(done.stderr.splitlines()[-1])
    return set(found)


def test_help_imports_nothing_slow() -> None:
    assert imported_by("--help") == set()


@pytest.mark.parametrize("command", ["status", "peers", "top", "rotate"])
def test_reading_commands_do_without_the_slowest_packages(command: str) -> None:
    assert not imported_by(command, "--help") & {"kubernetes", "kopf", "aiohttp", "pydantic", "prometheus_client"}


@pytest.mark.parametrize("name", commands())
def test_help_has_examples_that_are_right_usage(name: str) -> None:
    """Each example is parsed as a shell would hand it over, with nothing done."""
    command = commands()[name]
    assert command.help is not None
    examples = [line.strip() for line in command.help.splitlines() if line.strip().startswith("busctl ")]
    assert examples or name in ("upgrade-definitions", "release-finalizers")
    for example in examples:
        _, given, *arguments = example.split(" | ")[0].split()
        assert given == name
        context = click.Context(command, info_name=name, resilient_parsing=True)
        _, left, _ = command.make_parser(context).parse_args(arguments)
        assert len(left) <= 1, example


@pytest.mark.parametrize("name", [name for name in commands() if not name.endswith(("-definitions", "-finalizers"))])
def test_help_names_exit_statuses(name: str) -> None:
    told = (commands()[name].help or "").partition("Examples:")[0]
    assert "exit status" in " ".join(told.split()).lower()


def complete(*words: str) -> list[str]:
    completer = ShellComplete(cli.cli, {}, "busctl", "_BUSCTL_COMPLETE")
    return [item.value for item in completer.get_completions(list(words[:-1]), words[-1])]


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("st") == ["status"]
    assert "--stalled" in complete("peers", "--st")
    assert complete("status", "-o", "j") == ["json"]
    # Nowhere to read names from: nothing, and no message.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("BUSCTL_DATABASE", raising=False)
    assert complete("status", "or") == []
    monkeypatch.setenv("BUSCTL_DATABASE", "postgresql://u:hunter2@127.0.0.1:1/d")
    assert complete("status", "or") == []


def test_completion_by_kubectl(tmp_path: Path) -> None:
    """What kubectl runs; tests/apiserver has kubectl itself run it."""
    program = Path(sys.executable).parent / "kubectl_complete-bus"
    nowhere = {"HOME": "/nonexistent", "KUBECONFIG": str(tmp_path / "missing")}

    def offered(*words: str) -> list[str]:
        done = subprocess.run([program, *words], env=nowhere, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert offered("st") == ["status\tHow channels are, and why one is not ready.", ":4"]
    assert [offer.partition("\t")[0] for offer in offered("")] == [*commands(), ":4"]
    assert offered("peers", "--st") == ["--stalled\tOnly those that are Stalled.", ":4"]
    assert offered("status", "-o", "j") == ["json", ":4"]
    assert offered("status", "or") == [":4"]
    # Files and directories are offered by the shell.
    assert offered("apply", "-f", "") == [":0"]
    assert offered("rotate", "orders", "--bindings", "") == [":16"]


def test_the_names_that_are_installed() -> None:
    """kubectl finds plugins, and what completes them, by their names."""
    scripts = metadata.distribution("pgmq-bus").entry_points.select(group="console_scripts")
    programs = {script.name: script for script in scripts}
    assert programs["kubectl-bus"].value == programs["busctl"].value
    for name in ("busctl", "kubectl-bus", "kubectl_complete-bus"):
        assert callable(programs[name].load())
        assert (Path(sys.executable).parent / name).exists()
    shown = subprocess.run(
        [Path(sys.executable).parent / "kubectl-bus", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown.stdout == f"busctl, version {metadata.version('pgmq-bus')}\n"


def test_one_source_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["busctl", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, capsys.readouterr().err

    uri = "postgresql://u:hunter2@127.0.0.1:1/d"
    code, said = run("status", "--database", uri, "-n", "shop")
    assert (code, "--database reads a database, -n a cluster: give one of them" in said) == (2, True)
    assert run("status", "-n", "shop", "-A")[0] == 2
    code, said = run("status", "-l", "a=b", "--database", uri)
    assert (code, "--selector chooses among the BusChannels of a cluster" in said) == (2, True)
    # What is typed counts more than what the environment has.
    monkeypatch.setenv("BUSCTL_DATABASE", uri)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    code, said = run("status", "-n", "shop")
    assert (code, "there is no kubeconfig at" in said) == (1, True)
    code, said = run("status")
    assert said.startswith("on database d on 127.0.0.1:1\nerror: 127.0.0.1:1/d cannot be reached: ")
    assert "hunter2" not in said
