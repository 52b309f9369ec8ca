"""Spans of OpenTelemetry for publishing and handling, by its conventions for messaging.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ (in development): a PRODUCER span for each
publish, whose context travels with the message (see `headers.py`), and a CONSUMER span for each subscriber's handling,
a child of it and linked to it. Only this module imports OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracerProvider, ProxyTracerProvider, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bus_runtime._version import __version__
from bus_runtime.errors import MESSAGE_TOO_LARGE, BusError
from bus_runtime.headers import trace_headers, with_headers
from bus_runtime.messages import BusMessage

SYSTEM: Final = "pgmq_bus"

_PROPAGATOR = TraceContextTextMapPropagator()


def is_configured() -> bool:
    """Whether somebody wants spans: a tracer provider is set that is more than the API's own."""
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider | NoOpTracerProvider)


class Tracing:
    """Makes the spans of one bus.

    Args:
        channel: Wire name of the channel.
        peer: Durable name of the peer, if it has one.
        server: Host and port of the database, where they are known.
    """

    def __init__(self, channel: str, peer: str | None, server: tuple[str, int] | None) -> None:
        self._tracer = trace.get_tracer("bus_runtime", __version__)
        common: dict[str, str | int] = {"messaging.system": SYSTEM, "messaging.destination.name": channel}
        if server is not None:
            common |= {"server.address": server[0], "server.port": server[1]}
        self._publish_name, self._process_name = f"publish {channel}", f"process {channel}"
        self._of_publish = common | {"messaging.operation.name": "publish", "messaging.operation.type": "send"}
        self._of_process = common | {"messaging.operation.name": "process", "messaging.operation.type": "process"}
        if peer is not None:
            self._of_process["messaging.destination.subscription.name"] = peer

    async def publish(
        self, message: BusMessage, payload: bytes, send: Callable[[bytes], Awaitable[int | None]]
    ) -> None:
        """Send the message within a span, and the span's context with it.

        Raises:
            Exception: What `send` raises.
        """
        attributes = self._of_publish | {"pgmq_bus.message.type": type(message).__name__}
        with self._span(self._publish_name, SpanKind.PRODUCER, attributes) as span:
            headers: dict[str, str] = {}
            _PROPAGATOR.inject(headers)
            traced = with_headers(payload, headers)
            try:
                msg_id = await send(traced)
            except BusError as exc:
                # Near the channel's limit the message matters, and not who sees it in a trace. Refused is not sent.
                if exc.code != MESSAGE_TOO_LARGE or traced is payload:
                    raise
                msg_id = await send(payload)
            if msg_id is not None:
                span.set_attribute("messaging.message.id", str(msg_id))

    def handling(
        self, msg_id: int, message: BusMessage, payload: bytes
    ) -> Callable[[str], AbstractContextManager[None]]:
        """What a subscriber of the given name handles the message in: its span, which is then the current one."""
        context = _PROPAGATOR.extract(trace_headers(payload), Context())
        origin = trace.get_current_span(context).get_span_context()
        links = [Link(origin)] if origin.is_valid else []
        attributes = self._of_process | {
            "messaging.message.id": str(msg_id),
            "pgmq_bus.message.type": type(message).__name__,
        }

        @contextmanager
        def handle(subscriber: str) -> Iterator[None]:
            of_subscriber = attributes | {"pgmq_bus.subscriber.name": subscriber}
            with self._span(self._process_name, SpanKind.CONSUMER, of_subscriber, context, links):
                yield

        return handle

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: dict[str, str | int],
        context: Context | None = None,
        links: list[Link] | None = None,
    ) -> Iterator[Span]:
        """A span that is the current one, and tells of the exception that ends it."""
        with self._tracer.start_as_current_span(
            name, context=context, kind=kind, attributes=attributes, links=links
        ) as span:
            try:
                yield span
            except BaseException as exc:
                span.set_attribute("error.type", _error_type(exc))
                if not isinstance(exc, Exception):
                    # Cancelled, which OpenTelemetry does not take for a failure: it was not sent, or not handled.
                    span.set_status(StatusCode.ERROR, type(exc).__name__)
                raise


def _error_type(error: BaseException) -> str:
    """Ours have a code; others go by their class."""
    if isinstance(error, BusError):
        return error.code
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
