"""The bus beside what one would pick instead, in one run on one machine: `python -m benchmarks --help`."""
