"""What is compared."""

#: The systems by the names used in results, and what reports call them.
SYSTEMS = {
    "ours-async": "pgmq-bus Async",
    "ours-sync": "pgmq-bus Sync",
    "ours-unlogged": "pgmq-bus Unlogged",
    "redis": "pipecat RedisBus",
    "nats": "NATS JetStream",
    "notify": "raw NOTIFY",
    "isolated": "pipecat PgmqBus Isolated",
    "direct": "pipecat PgmqBus Direct",
}

#: What `make bench-pipecat` compares: what a user of pipecat has, and what its workers may change to.
PIPECAT = {
    "redis": "pipecat's `RedisBus`",
    "isolated": "pipecat's `PgmqBus` on its own backend",
    "pipecat-async": "pipecat's `PgmqBus` on our backend, `Async`",
    "pipecat-sync": "the same, `Sync`",
    "ours-sync": "`bus_runtime.PgmqBus`, `Sync`",
}
