"""A process that publishes one message under a span of its own, and prints both spans' ids and what it sent.

    python traced_publisher.py BINDINGS STATE

OpenTelemetry is configured as applications do it. STATE goes along as the trace state.
"""

import asyncio
import json
import sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from bus_runtime import BusEndMessage, PgmqBus


async def main(root: Path, state: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    caller = SpanContext(7, 9, True, TraceFlags(1), TraceState.from_header([state]))
    bus = PgmqBus.from_binding(root=root)
    await bus.start()
    with trace.use_span(NonRecordingSpan(caller)):
        await bus.publish(BusEndMessage("enough", source="publisher"), raise_on_error=True)
    await bus.stop()
    (span,) = exporter.get_finished_spans()
    print(json.dumps([span.context.trace_id, span.context.span_id, span.kind.name, dict(span.attributes or {})]))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
