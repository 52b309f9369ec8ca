"""OpenTelemetry with an exporter in memory, for one test: what no other test sees, and none that follows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind


class Spans:
    """What was recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.kind is kind]

    @property
    def published(self) -> list[ReadableSpan]:
        return self.of(SpanKind.PRODUCER)

    @property
    def handled(self) -> list[ReadableSpan]:
        return self.of(SpanKind.CONSUMER)


@contextmanager
def recording() -> Iterator[Spans]:
    """Buses that are started meanwhile are traced."""
    spans = Spans()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
        yield spans


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
