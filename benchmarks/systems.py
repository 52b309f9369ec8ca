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
