"""Answers the phone, hands over to the booking desk, and says goodbye."""

import asyncio
from typing import Any

from desk import Desk, run
from pipecat.workers.base_worker import WorkerActivationArgs


class Greeter(Desk):
    def __init__(self) -> None:
        super().__init__("greeter")

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        if args:
            await self.say(f"Your table is booked: {args['metadata']['booked']}. Anything else?")
        else:
            await self.say("Good evening, this is the front desk.")

    async def hear(self, text: str) -> None:
        if "table" in text:
            args = WorkerActivationArgs(metadata={"wish": text})
            await self.activate_worker("booking", args=args, deactivate_self=True)
        else:
            await self.say("Goodbye.")


if __name__ == "__main__":
    asyncio.run(run("greeter", lambda _: Greeter()))
