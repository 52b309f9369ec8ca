"""Whether a peer got what it was promised: all that it is owed, nothing again without a cause, nothing from before."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.case import SECOND, Case
from chaos.observed import NEVER, PUBLISHED, UNKNOWN, Incarnation, Interval
from chaos.verdict import Broken

#: Nanoseconds within which an answer that the server sent before it ended is read by who waited for it.
_ANSWERED_WITHIN = SECOND

#: Nanoseconds within which what was handled is acknowledged, while the server answers: the runtime does it every two
#: seconds at the latest; the rest is for machines that are busy.
_ACKNOWLEDGED_WITHIN = 10 * SECOND


class PeerCheck:
    """The check of one peer: of one process, or of all that had a durable name one after the other."""

    def __init__(self, case: Case, processes: list[Incarnation]) -> None:
        self.case = case
        self.channel = case.channel
        self.processes = processes
        count = len(self.channel.names)
        self.received = bytearray(count)
        self.handled = bytearray(count)
        for process in processes:
            for message in process.received:
                self.received[message] = 1
            for message in process.handled:
                self.handled[message] = 1
        last = processes[-1]
        self.stayed = last.joined < case.observed.settled < last.ended
        self.name = str(last) if last.peer is None else f"peer {last.peer}"

    def run(self, by_call: list[int]) -> None:
        """All checks; `by_call` are the channel's messages in the order of their publishes."""
        self._check_beginning()
        self._check_repetitions()
        self._check_losses(by_call)

    def _check_beginning(self) -> None:
        first = self.processes[0]
        for process in self.processes:
            for message, when in process.firsts():
                if self.channel.returned[message] < first.joining:
                    self.case.verdict.add(
                        Broken.EARLY,
                        f"{process}, which joined at {self.case.when(first.joining)}, received "
                        f"{self.case.describe(message)} at {self.case.when(when)}",
                    )

    def _check_repetitions(self) -> None:
        """What comes again has a cause."""
        # Of what was received before this process: when it was handled last, and by which process.
        handled_at: dict[int, tuple[int, Incarnation]] = {}
        earlier = bytearray(len(self.channel.names))
        for process in self.processes:
            here: dict[int, int] = {}
            for message, when in zip(process.received, process.received_at, strict=True):
                if message in here:
                    self._repeated_within(process, message, here[message], when)
                elif earlier[message]:
                    self._repeated_later(process, message, when, handled_at.get(message))
                here[message] = when
            for message in here:
                earlier[message] = 1
            if process is not self.processes[-1]:
                for message, when in zip(process.handled, process.handled_at, strict=True):
                    handled_at[message] = (when, process)

    def _repeated_within(self, process: Incarnation, message: int, before: int, when: int) -> None:
        # It may have been read, and waited its turn in the process, when the fault came.
        published = min(before, self.channel.invoked[message])
        if process.promise.repeats_itself and self._faults_between(published, when):
            self.case.verdict.tally.repeated += 1
            return
        self.case.verdict.add(
            Broken.DUPLICATE,
            f"{process} received {self.case.describe(message)} at {self.case.when(before)} "
            f"and again at {self.case.when(when)}",
        )

    def _repeated_later(
        self, process: Incarnation, message: int, when: int, handled: tuple[int, Incarnation] | None
    ) -> None:
        """By a later process of the name: allowed where nobody can have told the server that it is done."""
        if handled is not None:
            handled_at, former = handled
            # From then on it could acknowledge nothing any more.
            end = min(former.ended, process.joining)
            left = former.how == "left" and former.ended <= process.joining
            late = handled_at < end - _ACKNOWLEDGED_WITHIN
            if (left or late) and not self._faults_between(handled_at, process.joined):
                why = "left the channel" if left else "had long acknowledged it"
                self.case.verdict.add(
                    Broken.DUPLICATE,
                    f"{process} received {self.case.describe(message)} at {self.case.when(when)}; process "
                    f"{former.process} had handled it at {self.case.when(handled_at)} and {why}, its end being at "
                    f"{self.case.when(end)}",
                )
                return
        self.case.verdict.tally.repeated += 1

    def _faults_between(self, begin: int, end: int) -> list[Interval]:
        return [fault for fault in self.case.observed.faults if fault.ended >= begin and fault.began <= end]

    def _check_losses(self, by_call: list[int]) -> None:
        """Everything that is owed was handled, but for what the promise takes back."""
        taken = self._in_hand_budget()
        told = sum(process.told for process in self.processes) if self.case.promise.trims else 0
        furthest: dict[Interval, int] = {}
        untold = 0
        for message in self._missing(by_call):
            fault = self._forgetting(message)
            if fault is not None:
                self.case.verdict.tally.forgiven += 1
                if fault not in furthest:
                    furthest[fault] = self._furthest_before(fault)
                if self.case.precedes(message, furthest[fault]):
                    self._hole(message, fault)
            elif self._was_in_hand(message, taken):
                self.case.verdict.tally.forgiven += 1
            elif told > 0:
                told -= 1
                self.case.verdict.tally.forgiven += 1
            elif self.case.promise.trims and any(process.told for process in self.processes):
                untold += 1
            else:
                self._lost(message)
        if untold:
            told = sum(process.told for process in self.processes)
            self.case.verdict.add(Broken.UNTOLD, f"{self.name} was told of {told}, and missed {untold} more")

    def _missing(self, by_call: list[int]) -> Iterator[int]:
        """What it is owed and did not get, in the order of publishes.

        It is owed what was published after it had joined and is in the log: acknowledged, or seen by anybody. If it
        did not stay to the end, only what comes before something that it got.
        """
        channel, case = self.channel, self.case
        joined = min((process.joined for process in self.processes), default=NEVER)
        # The last process of a name that has ended may have been about to handle what it received.
        in_hand = bytearray() if self.stayed else self._received_by(self.processes[-1])
        last = max((case.position[message] for message, got in enumerate(self.received) if got), default=-1)
        for message in by_call:
            if self.handled[message] or channel.invoked[message] <= joined:
                continue
            outcome = channel.outcome[message]
            if outcome != PUBLISHED and (outcome != UNKNOWN or case.seen_at[message] >= case.observed.settled):
                continue
            if self.stayed or (case.precedes(message, last) and not in_hand[message]):
                yield message

    def _received_by(self, process: Incarnation) -> bytearray:
        received = bytearray(len(self.channel.names))
        for message in process.received:
            received[message] = 1
        return received

    def _forgetting(self, message: int) -> Interval | None:
        """The fault that may have taken it."""
        channel, case = self.channel, self.case
        invoked, returned = channel.invoked[message], channel.returned[message]
        # When it was in the log at the latest.
        committed = min(returned, case.seen_at[message])
        for fault in case.observed.faults:
            window = case.promise.forgotten(fault.fault)
            if window is None or invoked > fault.ended:
                continue
            answered = returned == NEVER or returned <= fault.ended + _ANSWERED_WITHIN
            if answered and committed >= fault.began - window * SECOND:
                return fault
        return None

    def _furthest_before(self, fault: Interval) -> int:
        """The highest position of what this peer handled that had been published when the fault struck."""
        channel = self.channel
        return max(
            (
                self.case.position[message]
                for message, done in enumerate(self.handled)
                if done and channel.returned[message] < fault.began
            ),
            default=-1,
        )

    def _in_hand_budget(self) -> list[list[int]]:
        """For each process that was killed: its end, and how many messages it may have taken with it."""
        return [
            [process.ended, process.promise.lost_in_hand]
            for process in self.processes
            if process.how in ("killed", "refused") and process.promise.lost_in_hand
        ]

    def _was_in_hand(self, message: int, budget: list[list[int]]) -> bool:
        for killed in budget:
            if killed[1] and self.channel.invoked[message] < killed[0]:
                killed[1] -= 1
                return True
        return False

    def _hole(self, message: int, fault: Interval) -> None:
        self.case.verdict.add(
            Broken.HOLE,
            f"{self.name} missed {self.case.describe(message)}, and had received what was published after it "
            f"when the {fault.fault} came at {self.case.when(fault.began)}",
        )

    def _lost(self, message: int) -> None:
        case = self.case
        text = f"{self.name} missed {case.describe(message)}"
        took = next((process for process in self.processes if message in process.received), None)
        if took is not None:
            text += f": {took} received it, had not handled it when it ended ({took.how}), and it did not come again"
        told = sum(process.told for process in self.processes)
        if told:
            text += f"; it was told of {told} lost messages"
        if self.channel.outcome[message] == PUBLISHED:
            case.verdict.add(Broken.LOST, text)
        else:
            case.verdict.add(Broken.PARTIAL, f"{text}; others had it from {case.when(case.seen_at[message])} on")
