"""A message bus for workers in one process or many, over any PostgreSQL.

    bus = PgmqBus.from_binding()
    await bus.subscribe(my_subscriber)
    await bus.start()
    await bus.send(BusJobRequestMessage(source="me", target="worker", job_id="42"))

The public names and signatures are those of `pipecat.bus` (pipecat-ai 1.14), and peers of both kinds understand
each other on the wire; what is added is opt-in by keyword. Tests of applications can use `bus_runtime.testing`.
"""

from bus_runtime._version import __version__
from bus_runtime.backend import (
    BackendMessage,
    JoinOptions,
    LogBackend,
    LogRecord,
    Membership,
    PgmqBackend,
    Waker,
)
from bus_runtime.binding import Binding, find_binding
from bus_runtime.bus import AsyncQueueBus, WorkerBus
from bus_runtime.direct import DirectPgmqBackend
from bus_runtime.errors import (
    AccessDeniedError,
    AuthenticationError,
    BackendError,
    BindingError,
    BusError,
    ConnectionLostError,
    PeerRefusedError,
    PublishError,
    RejectedError,
    SerializationError,
    TransientError,
    UnavailableError,
    UnknownTypeError,
)
from bus_runtime.isolated import IsolatedPgmqBackend
from bus_runtime.messages import (
    BusActivateWorkerMessage,
    BusAddWorkerMessage,
    BusCancelMessage,
    BusCancelWorkerMessage,
    BusDataMessage,
    BusDeactivateWorkerMessage,
    BusEndMessage,
    BusEndWorkerMessage,
    BusFlushProgressMessage,
    BusJobCancelMessage,
    BusJobRequestMessage,
    BusJobResponseMessage,
    BusJobResponseUrgentMessage,
    BusJobStreamDataMessage,
    BusJobStreamEndMessage,
    BusJobStreamStartMessage,
    BusJobUpdateMessage,
    BusJobUpdateRequestMessage,
    BusJobUpdateUrgentMessage,
    BusLocalMessage,
    BusMessage,
    BusSystemMessage,
    BusTTSSpeakMessage,
    BusWorkerErrorMessage,
    BusWorkerLocalErrorMessage,
    BusWorkerReadyMessage,
    BusWorkerRegistryMessage,
    JobStatus,
    WorkerRegistryEntry,
    register_message,
)
from bus_runtime.pgmq_bus import PgmqBus
from bus_runtime.serializers import JSONMessageSerializer, MessageSerializer, TypeAdapter
from bus_runtime.stats import BusStats
from bus_runtime.subscriber import BusSubscriber

__all__ = [
    "AccessDeniedError",
    "AsyncQueueBus",
    "AuthenticationError",
    "BackendError",
    "BackendMessage",
    "Binding",
    "BindingError",
    "BusActivateWorkerMessage",
    "BusAddWorkerMessage",
    "BusCancelMessage",
    "BusCancelWorkerMessage",
    "BusDataMessage",
    "BusDeactivateWorkerMessage",
    "BusEndMessage",
    "BusEndWorkerMessage",
    "BusError",
    "BusFlushProgressMessage",
    "BusJobCancelMessage",
    "BusJobRequestMessage",
    "BusJobResponseMessage",
    "BusJobResponseUrgentMessage",
    "BusJobStreamDataMessage",
    "BusJobStreamEndMessage",
    "BusJobStreamStartMessage",
    "BusJobUpdateMessage",
    "BusJobUpdateRequestMessage",
    "BusJobUpdateUrgentMessage",
    "BusLocalMessage",
    "BusMessage",
    "BusStats",
    "BusSubscriber",
    "BusSystemMessage",
    "BusTTSSpeakMessage",
    "BusWorkerErrorMessage",
    "BusWorkerLocalErrorMessage",
    "BusWorkerReadyMessage",
    "BusWorkerRegistryMessage",
    "ConnectionLostError",
    "DirectPgmqBackend",
    "IsolatedPgmqBackend",
    "JSONMessageSerializer",
    "JobStatus",
    "JoinOptions",
    "LogBackend",
    "LogRecord",
    "Membership",
    "MessageSerializer",
    "PeerRefusedError",
    "PgmqBackend",
    "PgmqBus",
    "PublishError",
    "RejectedError",
    "SerializationError",
    "TransientError",
    "TypeAdapter",
    "UnavailableError",
    "UnknownTypeError",
    "Waker",
    "WorkerBus",
    "WorkerRegistryEntry",
    "__version__",
    "find_binding",
    "register_message",
]
