"""Results as pictures."""

from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.statistics import Spread
from benchmarks.systems import SYSTEMS

_COLOURS = {
    "ours-async": "#0b6e4f",
    "ours-sync": "#08a045",
    "ours-unlogged": "#6bbf59",
    "redis": "#c1121f",
    "nats": "#3a6ea5",
    "notify": "#7f7f7f",
    "isolated": "#e09f3e",
    "direct": "#9e6a26",
}


def draw(results: Results, directory: Path) -> list[Path]:
    """Draws what was measured; the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130})
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for scenario, paint in _PLOTS.items():
        if scenario not in results.scenarios():
            continue
        figure, axes = plt.subplots(figsize=(8, 4.2))
        paint(results, axes)
        figure.tight_layout()
        path = directory / f"bench-{scenario.replace('_', '-')}.png"
        figure.savefig(path, metadata={"Software": None})
        plt.close(figure)
        drawn.append(path)
    return drawn


def _error(value: Spread) -> list[list[float]]:
    """Whiskers from the median to the extremes."""
    return [[value.median - value.low], [value.high - value.median]]


def _latency(results: Results, axes: Any) -> None:
    names = [name for name in SYSTEMS if results.spread("latency", "p50_ms", {"system": name})]
    for place, name in enumerate(names):
        for offset, figure, alpha in ((-0.2, "p50_ms", 1.0), (0.2, "p99_ms", 0.45)):
            value = results.spread("latency", figure, {"system": name})
            if value is None:
                continue
            axes.barh(
                place + offset,
                value.median,
                0.38,
                color=_COLOURS[name],
                alpha=alpha,
                xerr=_error(value),
                ecolor="#444444",
            )
            axes.text(value.high * 1.08, place + offset, f"{value.median:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [SYSTEMS[name] for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=0.1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds from publish() to the handler, log scale; dark p50, light p99")
    axes.set_title("One-way latency, idle channel, 200 bytes")


def _throughput(results: Results, axes: Any) -> None:
    subscribers = [1, 8, 32]
    for name, label in SYSTEMS.items():
        points = [
            (n, value)
            for n in subscribers
            if (
                value := results.spread(
                    "throughput", "delivered_per_s", {"system": name, "subscribers": n, "bytes": 200}
                )
            )
            and value.median > 0
        ]
        if points:
            axes.errorbar(
                [n for n, _ in points],
                [value.median for _, value in points],
                yerr=[[v.median - v.low for _, v in points], [v.high - v.median for _, v in points]],
                label=label, color=_COLOURS[name], marker="o", capsize=3,
            )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(subscribers, [str(n) for n in subscribers])
    axes.set_xlabel("subscriber processes")
    axes.set_ylabel("messages/s at each subscriber")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set_title("Delivered to each, 64 publishes at once, 200 bytes")


def _publish_cost(results: Results, axes: Any) -> None:
    points = [
        (int(case["peers"]), value)
        for case in results.cases("publish_cost")
        if (value := results.spread("publish_cost", "cpu_us_per_publish", case))
    ]
    points.sort(key=lambda point: point[0])
    axes.errorbar(
        [n for n, _ in points],
        [value.median for _, value in points],
        yerr=[[v.median - v.low for _, v in points], [v.high - v.median for _, v in points]],
        color=_COLOURS["ours-sync"], marker="o", capsize=3, label="measured",
    )  # fmt: skip
    if points:
        axes.axhline(points[0][1].median * 1.5, color="#999999", linestyle=":", label="goal: 1.5 times one peer")
    axes.set_xscale("log", base=2)
    axes.set_xticks([n for n, _ in points], [str(n) for n, _ in points])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("peers that read")
    axes.set_ylabel("server CPU for a publish, microseconds")
    axes.legend(fontsize=8, frameon=False)
    axes.set_title("What a publish costs the server, Sync")


def _soak(results: Results, axes: Any) -> None:
    log, latency = results.series["soak_log"], results.series["soak_latency"]
    axes.plot([row["seconds"] for row in log], [row["mib"] for row in log], color=_COLOURS["nats"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("log on disk, MiB", color=_COLOURS["nats"])
    other = axes.twinx()
    other.plot([row["seconds"] for row in latency], [row["p99_ms"] for row in latency], color=_COLOURS["ours-sync"])
    other.plot(
        [row["seconds"] for row in latency], [row["p50_ms"] for row in latency], color=_COLOURS["ours-sync"], alpha=0.4
    )
    other.set_ylim(bottom=0)
    other.set_ylabel("latency, ms: p99, light p50", color=_COLOURS["ours-sync"])
    other.spines["right"].set_visible(True)
    axes.set_title("5,000 messages/s to 4 peers, Sync")


_PLOTS = {"latency": _latency, "throughput": _throughput, "publish_cost": _publish_cost, "soak": _soak}
