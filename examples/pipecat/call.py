"""The worker that has the caller on the line. It knows of no other worker's code, only of their names."""

import asyncio

from desk import LOCAL_FRAMES, run
from pipecat.bus import BusBridgeProcessor, WorkerBus
from pipecat.frames.frames import Frame, TextFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.registry.types import WorkerReadyData
from pipecat.utils.time import time_now_iso8601

DESKS = ("greeter", "booking")
LINES = ("I would like a table, please.", "Four.", "At eight.", "No, that is all. Goodbye!")


class Phone(FrameProcessor):
    """Where a real worker has a transport with STT and TTS: reads out what comes, and says the next line to it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = iter(LINES)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, TextFrame):
            await self.push_frame(frame, direction)
            return
        print("<", frame.text)
        line = next(self._lines, None)
        if line is None:
            # Not from within the pipeline that it waits for.
            self.create_task(self.pipeline_worker.end(reason="the caller hung up"))
            return
        print(">", line)
        await self.pipeline_worker.queue_frame(TranscriptionFrame(line, "caller", time_now_iso8601()))


class Call(PipelineWorker):
    """Sends what the caller says to whoever is active, and has it answered once all desks are there."""

    def __init__(self, bus: WorkerBus) -> None:
        bridge = BusBridgeProcessor(bus=bus, worker_name="call", exclude_frames=LOCAL_FRAMES)
        super().__init__(Pipeline([bridge, Phone()]), name="call", enable_rtvi=False)
        self._expected = set(DESKS)

    async def start(self) -> None:
        await super().start()
        await self.watch_workers(*DESKS)

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        await super().on_worker_ready(data)
        if data.worker_name in self._expected:
            self._expected.remove(data.worker_name)
            if not self._expected:
                await self.activate_worker("greeter")


if __name__ == "__main__":
    asyncio.run(run("call", Call))
