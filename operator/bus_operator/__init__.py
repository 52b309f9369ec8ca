"""The pgmq-bus operator: BusDatabases and BusChannels made true in PostgreSQL, and `busctl`."""
