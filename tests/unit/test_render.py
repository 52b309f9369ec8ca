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
        render.create_database(name, encoding="UTF8", collation="C", ctype="C"), render.create_database_for(name, "x"),
        render.create_database_for("x", name), render.allow_create_database(name),
    ]  # fmt: skip
    for statement in statements:
        assert quoted in statement


def test_a_channels_functions_are_granted_to_its_role_alone():
    template = "create function pgmq_bus_channel.{{publish}}() -- {{log}} {{sequence}} {{channel_id}} {{publish}}"
    statements = render.create_channel_functions(
        [template, "create function pgmq_bus_channel.{{read}}()"],
        queue='bus_a"b', role='bus_channel_a"b', channel_id=7,
    )  # fmt: skip
    assert statements == [
        'create function pgmq_bus_channel."publish_a""b"() -- "q_bus_a""b" "q_bus_a""b_msg_id_seq" 7 "publish_a""b"',
        'create function pgmq_bus_channel."read_a""b"()',
        'REVOKE ALL ON FUNCTION pgmq_bus_channel."publish_a""b" FROM PUBLIC',
        'GRANT EXECUTE ON FUNCTION pgmq_bus_channel."publish_a""b" TO "bus_channel_a""b"',
        'REVOKE ALL ON FUNCTION pgmq_bus_channel."read_a""b" FROM PUBLIC',
        'GRANT EXECUTE ON FUNCTION pgmq_bus_channel."read_a""b" TO "bus_channel_a""b"',
    ]


def test_a_placeholder_that_nobody_knows_is_an_error():
    with pytest.raises(KeyError, match="unknown"):
        render.with_log("select {{unknown}}", "bus_a")


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
