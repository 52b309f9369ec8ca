"""Asks what it must know to book a table, and hands back with the result."""

import asyncio
from typing import Any

from desk import Desk, run
from pipecat.workers.base_worker import WorkerActivationArgs


class Booking(Desk):
    def __init__(self) -> None:
        super().__init__("booking")
        self._answers: list[str] = []

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        await self.say("A table, gladly. For how many?")

    async def hear(self, text: str) -> None:
        self._answers.append(text.rstrip("."))
        if len(self._answers) == 1:
            await self.say("And when?")
        else:
            booked = ", ".join(self._answers).lower()
            args = WorkerActivationArgs(metadata={"booked": booked})
            await self.activate_worker("greeter", args=args, deactivate_self=True)


if __name__ == "__main__":
    asyncio.run(run("booking", lambda _: Booking()))
