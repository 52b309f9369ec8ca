"""What the workers have in common: the bus, and a desk that answers what is said.

Of pipecat everything is as it is installed. Only the bus is chosen here, in `run`.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from loguru import logger
from pipecat.bus import WorkerBus
from pipecat.bus.network.pgmq import PgmqBus
from pipecat.frames.frames import Frame, PipelineFlushFrame, TextFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.base_worker import BaseWorker
from pipecat.workers.runner import WorkerRunner

import bus_runtime

#: What drains a pipeline before a hand-off is an event of this process, so each worker drains its own.
LOCAL_FRAMES = (PipelineFlushFrame,)


class Listener(FrameProcessor):
    """Where a real desk has its LLM: hands what is said to the worker."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            # As function calls are: a hand-off waits until the pipeline is empty, this frame included.
            self.create_task(self.pipeline_worker.hear(frame.text))
        else:
            await self.push_frame(frame, direction)


class Desk(PipelineWorker):
    """A pipeline between the bus's edges. It waits until another worker hands it the conversation."""

    def __init__(self, name: str) -> None:
        super().__init__(
            Pipeline([Listener()]),
            name=name,
            active=False,
            bridged=(),
            exclude_frames=LOCAL_FRAMES,
            handle_flush_frame=True,
        )

    @abstractmethod
    async def hear(self, text: str) -> None:
        """The caller said this, and this worker is the one that is active."""

    async def say(self, text: str) -> None:
        """To the caller, by way of the bus."""
        await self.queue_frame(TextFrame(text))

    async def on_activated(self, args: dict[str, Any] | None) -> None:
        await super().on_activated(args)
        print("active", *(args or {}).values())

    async def on_deactivated(self) -> None:
        await super().on_deactivated()
        print("inactive")


async def run(name: str, make_worker: Callable[[WorkerBus], BaseWorker]) -> None:
    """One process with one worker, until somebody ends the session."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    # The two lines.
    backend = bus_runtime.IsolatedPgmqBackend.from_binding()
    bus = PgmqBus(backend=backend)
    runner = WorkerRunner(name=f"runner-{name}", bus=bus, handle_sigterm=True)
    await runner.add_workers(make_worker(bus))
    await runner.run()
