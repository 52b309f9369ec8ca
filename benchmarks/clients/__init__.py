"""One module for each system: how a process of the benchmark publishes to it and receives from it."""
