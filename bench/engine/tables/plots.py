"""`python -m bench.engine.tables.plots FOLDER`: a summary's plots as SVG; runs beside the peers."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SIZE_INCHES: Final = (7.0, 3.6)
# Legible on light and dark pages alike, and told apart by people who see few colours.
COLOURS: Final = ("#3b7dd8", "#e07b00", "#2a9d5c", "#b0489a", "#8a8f98", "#c0392b")
INK: Final = "#7a7f87"

Summary = dict[str, Any]


def draw_all(folder: Path) -> None:
    summary: Summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    _style()
    for name, draw in {
        "classes": _draw_classes,
        "concurrency": _draw_concurrency,
        "crowds": _draw_crowds,
        "costs": _draw_costs,
        "gaps": _draw_gaps,
        "held": _draw_held,
        "occupancy": _draw_occupancy,
    }.items():
        figure, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
        if draw(summary, axes):
            # Without a date the same figures give the same file.
            figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


def _style() -> None:
    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "bench",
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
        }
    )


def _draw_classes(summary: Summary, axes: Axes) -> bool:
    """Speed-up by class with intervals, and tokens per step written on the bars."""
    classes = [item for item in summary["classes"] if item["sides"]]
    sides = [name for name in _first_sides(classes) if "speed_up" in classes[0]["sides"][name]]
    if not sides:
        return False
    width = 0.8 / len(sides)
    for number, side in enumerate(sides):
        figures = [item["sides"][side] for item in classes]
        ratios = [figure["speed_up"] for figure in figures]
        middles = [ratio["median"] for ratio in ratios]
        places = [index + (number - (len(sides) - 1) / 2) * width for index in range(len(classes))]
        spread = (
            [ratio["median"] - ratio["low"] for ratio in ratios],
            [ratio["high"] - ratio["median"] for ratio in ratios],
        )
        bars = axes.bar(places, middles, width, yerr=spread, ecolor=INK, label=side)
        steps = [f"{figure['tokens_per_step']:.2f}" for figure in figures]
        axes.bar_label(bars, labels=steps, fontsize=8, padding=2, color=INK)
    axes.axhline(1.0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(classes)), [item["class"] for item in classes])
    axes.set_ylabel("times as fast as without drafts")
    axes.set_title("Speculation by class of prompt; on the bars: tokens per step", fontsize=10)
    axes.legend()
    return True


def _first_sides(classes: list[dict[str, Any]]) -> list[str]:
    return list(classes[0]["sides"]) if classes else []


def _draw_concurrency(summary: Summary, axes: Axes) -> bool:
    if not summary["concurrency"]:
        return False
    for side, groups in summary["concurrency"].items():
        counts = sorted(groups, key=int)
        axes.plot([int(count) for count in counts], [groups[c] for c in counts], "o-", label=side)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("requests at once")
    axes.set_ylabel("tokens per second, end to end")
    axes.set_title("Throughput against concurrency", fontsize=10)
    axes.legend()
    return True


def _draw_costs(summary: Summary, axes: Axes) -> bool:
    costs = {k: v for k, v in summary["facts"].items() if k.startswith("costs")}
    if not costs:
        return False
    for name, cost in costs.items():
        drafts = [tokens - 1 for tokens in cost["tokens"] if tokens <= 16]
        ratios = [ms / cost["step_ms"][0] for ms in cost["step_ms"][: len(drafts)]]
        axes.plot(drafts, ratios, "o-", label=f"cost, {name.removeprefix('costs ')}")
    axes.plot([0, 15], [1, 16], "--", color=INK, label="gain if every draft were right")
    axes.set_ylim(0, 8)
    axes.set_xlabel("draft tokens in the step")
    axes.set_ylabel("times the cost of a plain step")
    axes.set_title("What a draft costs, and the most it can give", fontsize=10)
    axes.legend()
    return True


def _draw_gaps(summary: Summary, axes: Axes) -> bool:
    """How many of the gaps are shorter than so many milliseconds; p95 is where lines cross."""
    found = {k: v for k, v in summary["facts"].items() if k.startswith("gaps")}
    for name, gaps in found.items():
        kind = name.removeprefix("gaps ")
        for who, key in (("alone", "alone_ms"), ("beside 16", "crowded_ms")):
            values = sorted(gaps[key])
            shares = [100 * (index + 1) / len(values) for index in range(len(values))]
            axes.plot(values, shares, drawstyle="steps-post", label=f"{kind}, {who}")
    axes.axhline(95, color=INK, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds between two tokens of one stream; dashed: p95")
    axes.set_ylabel("gaps not longer, %")
    axes.set_title("What a reader feels while sixteen others run", fontsize=10)
    if found:
        axes.legend()
    return bool(found)


def _draw_crowds(summary: Summary, axes: Axes) -> bool:
    """Reading and writing have speeds of different size, so both axes are logarithmic."""
    found = {k: v for k, v in summary["facts"].items() if k.startswith("crowds")}
    styles = {"prompt": ":", "decode": "--", "end_to_end": "-"}
    labels = {"prompt": "prompts", "decode": "decoding", "end_to_end": "end to end"}
    for number, (name, crowds) in enumerate(found.items()):
        for key, style in styles.items():
            label = f"{name.removeprefix('crowds ')}, {labels[key]}"
            colour = COLOURS[number]
            axes.plot(crowds["at_once"], crowds[key], f"o{style}", color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("requests at once")
    axes.set_ylabel("tokens per second")
    axes.set_title("Reading prompts, writing answers, and both, by concurrency", fontsize=10)
    if found:
        axes.legend(fontsize=8)
    return bool(found)


def _draw_held(summary: Summary, axes: Axes) -> bool:
    held = summary["facts"].get("held")
    if held is None:
        return False
    lengths = (8192, 2048, 1024)
    names = [*(f"contiguous,\n{length} reserved" for length in lengths), "blocks of 16"]
    counts = [*(held["budget_tokens"] // length for length in lengths), held["held_mean"]]
    bars = axes.bar(names, counts, color=[COLOURS[4]] * len(lengths) + [COLOURS[0]])
    axes.bar_label(bars, labels=[f"{count:.0f}" for count in counts], padding=2, color=INK)
    axes.set_ylabel("sequences held")
    axes.set_title(f"Sequences in {held['budget_tokens']} tokens of keys and values", fontsize=10)
    return True


def _draw_occupancy(summary: Summary, axes: Axes) -> bool:
    held = summary["facts"].get("held")
    if held is None:
        return False
    axes.plot([100 * share for share in held["usage"]])
    axes.set_ylim(0, 105)
    axes.set_xlabel("step")
    axes.set_ylabel("blocks in use, %")
    axes.set_title("KV occupancy while 96 requests pass through 512 blocks", fontsize=10)
    return True


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]))
