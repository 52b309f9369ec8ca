"""A circuit breaker for each BusDatabase: when its server fails, one probe goes on asking, and its channels stop.

    untested ──probe──▶ closed ──a session failed──▶ suspect ──probe──▶ closed or open
                          ▲                                               │
                          └──────────────── a probe succeeded ────────────┘

The probe is the BusDatabase's own reconciliation, which the work queue repeats with capped, jittered backoff and never
gives up. Where nothing is decided yet, in `untested` and `suspect`, a channel waits for the verdict and its status
stays as it is: a session that broke while the server is well must not make hundreds of channels flap.
"""

from bus_operator.errors import BusError, SpecError, TransientError
from bus_operator.inventory import Key


class VerdictPendingError(Exception):
    """The database has not been probed yet, or not since a session failed; once it is, whoever waits is woken."""


class SuspectError(TransientError):
    """A session failed, and the database was asked for a verdict. The status of who noticed waits for that."""

    reason = "DatabaseUnavailable"


class Breaker:
    """Whether the channels of a BusDatabase may use it.

    Args:
        database: What errors call it.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._decided = False
        self._failure: BusError | None = None
        self._waiting: set[Key] = set()

    @property
    def state(self) -> str:
        """`untested` or `suspect` are `pending`; else `closed` or `open`."""
        if not self._decided:
            return "pending"
        return "open" if self._failure is not None else "closed"

    def check(self, channel: Key | None) -> None:
        """Returns when the database may be used.

        Raises:
            VerdictPendingError: Nothing is decided; the channel, if it is one, is among those that the verdict wakes.
            SpecError: It is out of order. It has its own retries, and wakes its channels when it is back.
        """
        if not self._decided:
            if channel is not None:
                self._waiting.add(channel)
            raise VerdictPendingError
        if self._failure is not None:
            raise SpecError(f"{self._database} is not ready: {self._failure}", reason="DatabaseUnavailable")

    def suspect(self) -> bool:
        """A session failed. Returns whether that is news, so that a probe must be asked for."""
        news = self._decided and self._failure is None
        if news:
            self._decided = False
        return news

    def decide(self, failure: BusError | None) -> set[Key]:
        """The probe's verdict. Returns the channels that waited for it."""
        self._decided, self._failure = True, failure
        waiting, self._waiting = self._waiting, set()
        return waiting
