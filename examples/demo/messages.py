"""The one message of the demo. Both sides import it: the bus builds registered types only."""

from dataclasses import dataclass

from bus_runtime import BusDataMessage


@dataclass(kw_only=True)
class OrderPlaced(BusDataMessage):
    """An order.

    Parameters:
        sequence: 1, 2, 3, ... for each publisher.
        total: How many orders the publisher measures; later ones only keep the bus moving.
        published_at: Unix time in seconds.
    """

    sequence: int
    total: int
    published_at: float
