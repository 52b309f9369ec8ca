"""Writes the table of attempts into docs/threat-model.md: python tests/isolation/attempts_page.py."""

from pathlib import Path

from attempts import ALLOWED, DENIED, SUBJECTS

PAGE = Path(__file__).parents[2] / "docs" / "threat-model.md"
BEGIN, END = "<!-- attempts: begin -->", "<!-- attempts: end -->"
PLACEHOLDERS = {
    name: f"«{name}»"
    for name in (
        "login", "token", "queue", "victim", "victim_name", "victim_queue", "victim_login", "victim_role", "victim_pid",
        "message", "database",
    )
}  # fmt: skip


def render() -> str:
    """The tables, one a subject. What is refused with 42501 for want of a privilege needs no remark."""
    parts = []
    for subject, attempts in SUBJECTS.items():
        refused = sum(attempt.gets == DENIED for attempt in attempts)
        parts += [
            "",
            f"### {subject}",
            "",
            f"{len(attempts)} attempts, {refused} of them refused with SQLSTATE 42501.",
            "",
        ]
        parts += ["| attempt | gets | |", "|---|---|---|"]
        for attempt in attempts:
            statement = attempt.statement.format(**PLACEHOLDERS).replace("|", "\\|")
            gets = attempt.gets if attempt.gets != ALLOWED else f"**{ALLOWED}**"
            parts.append(f"| `{statement}` | {gets} | {attempt.remark} |")
    return "\n".join([BEGIN, *parts, "", END])


def updated(page: str) -> str:
    """The page with today's tables."""
    before, rest = page.split(BEGIN)
    return before + render() + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
