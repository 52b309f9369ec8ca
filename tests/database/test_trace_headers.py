"""Messages that carry a trace context, for runtimes from before there was one and for pipecat's client."""

import json
from pathlib import Path

import former
import postgres
import spans
from recorder import Recorder, eventually

from bus_runtime import BusDataMessage, PgmqBus

MESSAGES = 20


async def test_readers_that_know_of_no_headers(database: postgres.Database, tmp_path: Path) -> None:
    """They receive everything and complain of nothing, and what they publish begins traces of its own."""
    channel = await database.create_channel()
    clients = [*former.VERSIONS, "reference"]
    recorder = Recorder()
    with spans.recording() as recorded:
        bus = PgmqBus.from_binding(root=channel.binding_dir(tmp_path))
        await bus.subscribe(recorder)
        await bus.start()
        try:
            for client in clients:
                before = len(recorder.messages)
                async with former.worker("worker", client, channel.uri, channel.name) as worker:
                    await worker.say("go")
                    for number in range(MESSAGES):
                        await bus.publish(BusDataMessage(source=f"traced:{number}"), raise_on_error=True)
                    await eventually(lambda before=before: len(recorder.messages) >= before + MESSAGES + 5, 60)
                    await worker.say("stop")
                    await worker.hear()
                    told = {"received": {"traced": 0}}
                    while told["received"].get("traced") != MESSAGES:
                        await worker.say("count")
                        told = json.loads(await worker.hear())
                    await worker.say("leave")
                    told = json.loads(await worker.hear())
                assert told["received"]["traced"] == list(range(MESSAGES)), client
                assert told["complaints"] == [], client
        finally:
            await bus.stop()
    assert len(recorded.published) == MESSAGES * len(clients)
    parents = [span.parent for span in recorded.handled]
    of_others = [message for message in recorder.messages if not message.source.startswith("traced:")]
    assert len(of_others) >= 5 * len(clients)
    assert parents.count(None) == len(of_others)
    assert len(parents) == len(recorder.messages)
