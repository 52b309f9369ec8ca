"""Pictures of busctl in a terminal, for the documentation, made from real runs: `make pictures`."""
