"""The serializers alone: messages to bytes and back, in this process."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import bus_runtime
from benchmarks.bench import Bench

SIZES = (200, 4096, 65536)


def run(bench: Bench) -> None:
    """One round over both serializers, for one long text and for many small values."""
    for size in SIZES:
        for shape, payload in (("text", {"pad": "x" * size}), ("structure", _structure(size))):
            for name, message, serializer in _serializers(payload):
                wire = serializer.serialize(message)
                bench.record(
                    {"serializer": name, "bytes": size, "payload": shape},
                    {
                        "encode_per_s": _per_second(partial(serializer.serialize, message), bench),
                        "decode_per_s": _per_second(partial(serializer.deserialize, wire), bench),
                        "wire_bytes": float(len(wire)),
                    },
                )


def _structure(size: int) -> dict[str, Any]:
    """About `size` bytes of JSON in small values."""
    return {"items": [{"id": n, "name": f"item {n}", "price": n / 4, "ok": True} for n in range(max(1, size // 55))]}


def _serializers(payload: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pipecat.bus.messages import BusJobRequestMessage
        from pipecat.bus.serializers import JSONMessageSerializer
    ours = bus_runtime.BusJobRequestMessage("job", source="bench", payload=payload)
    theirs = BusJobRequestMessage(source="bench", job_id="job", payload=payload)
    return [("ours", ours, bus_runtime.JSONMessageSerializer()), ("pipecat", theirs, JSONMessageSerializer())]


def _per_second(call: Callable[[], object], bench: Bench) -> float:
    seconds = bench.pick(0.5, 0.1)
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(10):
            call()
        count += 10
    return count / passed
