"""What examples/pipecat must print: the call in its order, and whose turn it was when."""

from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "examples" / "pipecat"
WORKERS = ("greeter", "booking", "call")

PRINTED = {
    "call": [
        "< Good evening, this is the front desk.",
        "> I would like a table, please.",
        "< A table, gladly. For how many?",
        "> Four.",
        "< And when?",
        "> At eight.",
        "< Your table is booked: four, at eight. Anything else?",
        "> No, that is all. Goodbye!",
        "< Goodbye.",
    ],
    "greeter": ["active", "inactive", "active {'booked': 'four, at eight'}"],
    "booking": ["active {'wish': 'I would like a table, please.'}", "inactive"],
}
"""By each process. What only the booking desk can know is in what the greeter says afterwards."""


def check(printed: Mapping[str, Sequence[str]]) -> None:
    """Whether these lines of the three processes are those of a call that was handed over and back."""
    assert {name: list(lines) for name, lines in printed.items()} == PRINTED, printed
