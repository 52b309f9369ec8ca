"""What may become of a login's session is an error that whoever opened it expects."""

import asyncio
from dataclasses import replace

import pytest
from postgres import Database

from bus_operator.login_session import FAILURES, log_in
from bus_operator.roles import IssuedCredential


async def test_a_session_that_the_server_ended_while_it_was_idle(database: Database) -> None:
    """The server has said so, and the connection is not closed yet: for that moment the driver takes it for busy."""
    channel = await database.create_channel()
    told = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Everything but the end."""
        while data := await reader.read(65536):
            writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(channel.endpoint.host, channel.endpoint.port)
        asking = asyncio.create_task(pass_on(reader, questions))
        await pass_on(answers, writer)
        told.set()
        await asking
        questions.close()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as proxy:
        session = await log_in(
            IssuedCredential(channel.username, channel.password, channel.generation),
            replace(channel.endpoint, port=proxy.sockets[0].getsockname()[1]),
            application="test",
            connect_timeout=10,
            command_timeout=10,
        )
        async with database.session() as admin, asyncio.timeout(10):
            await admin.fetchval("select pg_terminate_backend($1)", session.get_server_pid())
            await told.wait()
        # What has arrived is read.
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(FAILURES):
            await session.fetchval("select 1")
        session.terminate()
