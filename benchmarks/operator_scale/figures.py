"""What was measured beside what must be true, and how both are shown."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        what: The situation and the quantity.
        measured: The value.
        unit: Written after values.
        goal: What it may be at most; None for what is told without a goal.
    """

    what: str
    measured: float
    unit: str
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether it is as good as the goal; None without one."""
        return None if self.goal is None else self.measured <= self.goal

    def as_json(self, row: str) -> dict[str, Any]:
        """What goes into the file."""
        return {"row": row} | asdict(self) | {"met": self.met}


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def table(figures: Iterable[tuple[str, Figure]]) -> str:
    """Markdown: row, what, goal, measured, met."""
    lines = ["| row | what | goal | measured | |", "|---|---|---|---|---|"]
    for row, figure in figures:
        goal = "" if figure.goal is None else f"≤ {number(figure.goal)} {figure.unit}".rstrip()
        measured = f"{number(figure.measured)} {figure.unit}".rstrip()
        verdict = {True: "met", False: "missed", None: ""}[figure.met]
        lines.append(f"| {row} | {figure.what} | {goal} | {measured} | {verdict} |")
    return "\n".join(lines)
