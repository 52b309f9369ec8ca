"""The statements that take no parameters, and the quoting of what goes into them."""

import pytest

from bus_operator import render

HOSTILE = ['x"; DROP TABLE t; --', "x'; DROP TABLE t; --", "x\\", '"', "'", "\\'", "π", "A B", "select"]


def unquote(text: str, quote: str) -> str:
    assert text[0] == text[-1] == quote
    inner = text[1:-1]
    assert quote not in inner.replace(quote * 2, "")
    return inner.replace(quote * 2, quote)


@pytest.mark.parametrize("name", HOSTILE)
def test_identifiers_are_quoted(name):
    assert unquote(render.identifier(name), '"') == name


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "ü" * 32])
def test_what_cannot_be_an_identifier_is_refused(name):
    with pytest.raises(ValueError, match="cannot be a PostgreSQL identifier"):
        render.identifier(name)


@pytest.mark.parametrize("text", HOSTILE)
def test_literals_are_quoted(text):
    literal = render.literal(text)
    if "\\" in text:
        assert literal.startswith(" E'")
        assert unquote(literal[2:], "'").replace("\\\\", "\\") == text
    else:
        assert unquote(literal, "'") == text


def test_a_literal_holds_no_nul():
    with pytest.raises(ValueError, match="NUL"):
        render.literal("a\0b")


@pytest.mark.parametrize("name", HOSTILE)
def test_every_statement_quotes_the_names_it_is_given(name):
    quoted = render.identifier(name)
    statements = [
        render.create_group_role(name), render.grant_role(name, "x"), render.grant_role("x", name),
        render.revoke_role(name, "x"), render.revoke_role("x", name), render.grant_role_to_self(name),
        render.set_local_role(name), render.login_attributes(name, "v", 1), *render.login_settings(name),
        render.forbid_login(name), render.drop_role(name), render.drop_owned(name), render.grant_connect(name),
    ]  # fmt: skip
    for statement in statements:
        assert quoted in statement


def test_a_group_role_can_do_nothing_by_itself():
    statement = render.create_group_role("r")
    for attribute in ("NOLOGIN", "NOSUPERUSER", "NOCREATEDB", "NOCREATEROLE", "NOREPLICATION", "NOBYPASSRLS"):
        assert f" {attribute}" in statement


def test_a_connection_limit_is_a_number():
    with pytest.raises(ValueError, match="format code"):
        render.login_attributes("r", "v", "1; DROP ROLE x")  # type: ignore[arg-type]


def test_a_login_gets_timeouts_and_a_path_without_schemas():
    settings = " ".join(render.login_settings("r"))
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "search_path TO pg_catalog, pg_temp"):
        assert setting in settings
