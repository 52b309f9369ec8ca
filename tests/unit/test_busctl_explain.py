"""`busctl explain`: every code has its section, in a terminal and out of it."""

import os

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from bus_operator.cli import cli
from bus_operator.explanations import explanations
from hack.pictures.__main__ import BUSCTL
from hack.pictures.terminal import show


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments])


def test_nothing_is_left_of_what_a_page_has_around_it() -> None:
    for explanation in explanations().values():
        assert len(explanation.text) > 30
        assert explanation.summary
        # Neither headings of what follows, nor links, nor tables of other codes.
        assert "\n#" not in explanation.text
        assert "](" not in explanation.text
        assert "\n| `" not in explanation.text


def test_a_section_with_its_commands_and_the_pages_that_it_names() -> None:
    text = explanations()["ServerCertificateRefused"].text
    assert text.startswith("The server, or whoever answers in its place, shows a certificate")
    assert "\n```sh\nkubectl get secret NAME" in text
    assert text.endswith("do not lower `sslmode` to find out. TLS (docs/how-to/databases.md).")
    assert "allowed before, the channel's credentials are withdrawn: its pods get AuthenticationFailed.\n" in (
        explanations()["NamespaceNotAllowed"].text
    )
    assert "<!--" not in explanations()["NamespaceNotAllowed"].text


@pytest.mark.parametrize(
    ("code", "begin"),
    [
        ("MayWriteFile", "The login could write files of the server.\n\nThe condition IsolationVerified has one of"),
        ("Ready", "Everything is in place.\n\nReasons that conditions and Events also have"),
    ],
)
def test_a_line_of_a_table(code: str, begin: str) -> None:
    assert explanations()[code].text.startswith(begin)


@pytest.mark.parametrize("code", ["SchemaTooNew", "schematoonew"])
def test_out_of_a_terminal_it_is_markdown(code: str) -> None:
    assert explain(code).stdout == f"# SchemaTooNew\n\n{explanations()['SchemaTooNew'].text}\n"


def test_all_in_the_order_of_the_page() -> None:
    head, *lines = explain().stdout.splitlines()
    assert head.split() == ["CODE", "MEANS"]
    assert [line.split()[0] for line in lines] == list(explanations())
    (line,) = (line for line in lines if line.startswith("UnsupportedServer "))
    assert line.endswith("   The server is older than PostgreSQL 15")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("SecretNotFond", "there is no code 'SecretNotFond': is it SecretNotFound"),
        ("xyzzy", "there is no code 'xyzzy': busctl explain lists those there are"),
    ],
)
def test_a_code_that_there_is_not(typed: str, message: str) -> None:
    done = explain(typed)
    assert done.exit_code == 2
    assert message in done.stderr


def test_in_a_terminal_commands_stay_on_their_lines_and_nothing_is_markdown() -> None:
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "NO_COLOR": "1"}
    shown = show([str(BUSCTL), "explain", "SecretNotFound"], environment)
    assert "SecretNotFound" in shown.splitlines()[0]
    assert "`" not in shown
    assert "--from-file=ca.crt=FILE_WITH_THE_CERTIFICATES" in shown
    shown = show([str(BUSCTL), "explain"], environment)
    assert len(shown.splitlines()) == len(explanations()) + 1


def test_codes_are_completed() -> None:
    completions = ShellComplete(cli, {}, "busctl", "_BUSCTL_COMPLETE").get_completions(["explain"], "schemaTo")
    assert [item.value for item in completions] == ["SchemaTooNew", "SchemaTooOld"]
