"""The values in the chart's README, which is what registries of charts show: `python -m hack.docs.chart_readme`."""

from hack.docs.values import CHART, table

README = CHART / "README.md"

_BEGIN = "<!-- values: made from values.yaml and values.schema.json by python -m hack.docs.chart_readme -->"
_END = "<!-- end of values -->"


def updated(text: str) -> str:
    """The README's text with the values as they are now."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, README
    assert end, README
    return "\n".join([before + _BEGIN, "", *table(), "", _END + after])


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
