"""What can go wrong in a benchmark."""


class BenchmarkError(Exception):
    """A measurement could not be made; the text says what to do or where to look."""
