"""The summary as Markdown tables."""

from collections.abc import Iterable
from typing import Any

from bench.engine.probes.costs import Costs
from bench.engine.probes.held import RESERVED, Held
from bench.engine.summary import Summary

HELD_BAR = 4.0


def render(summary: Summary) -> str:
    """Every table, each under a bold line; what was not measured is left out."""
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    parts = [
        f"{summary['machine']}; {versions}.",
        _rows(summary["rows"]),
        _classes(summary["classes"]),
        _concurrency(summary["concurrency"]),
        *(_fact(name, result) for name, result in summary["facts"].items()),
        _memory(summary["sides"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    cells = list(head)
    rows = [cells, ["---"] * len(cells), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _rows(results: list[dict[str, Any]]) -> str:
    lines = [
        (
            result["row"]["title"],
            _interval(result["ratio"]),
            str(result["ratio"]["n"]),
            _bar(result["row"]),
            result["verdict"],
        )
        for result in results
    ]
    return table(("row", "ratio (95 %)", "pairs", "bar", "verdict"), lines) if lines else ""


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def _bar(row: dict[str, Any]) -> str:
    if row["bar"] is None:
        return "shown"
    stretch = f" (↑ {row['stretch']:g} ×)" if row["stretch"] else ""
    return f"≥ {row['bar']:g} ×{stretch}"


def _classes(classes: list[dict[str, Any]]) -> str:
    lines = [
        (
            item["class"],
            side,
            f"{figures['tokens_per_s']:.1f}",
            f"{figures['tokens_per_step']:.2f}" if figures["tokens_per_step"] else "",
            _share(figures["accepted_share"]),
            _ratio(figures, "speed_up"),
            _ratio(figures, "decode_speed_up"),
            f"{figures['same_texts']} of {item['prompts']}" if "same_texts" in figures else "",
        )
        for item in classes
        for side, figures in item["sides"].items()
    ]
    head = (
        "class",
        "side",
        "tok/s",
        "tokens per step",
        "accepted",
        "against off",
        "decoding alone",
        "same text",
    )
    return table(head, lines) if lines else ""


def _ratio(figures: dict[str, Any], name: str) -> str:
    return _interval(figures[name]) if name in figures else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"


def _concurrency(speeds: dict[str, dict[str, float]]) -> str:
    if not speeds:
        return ""
    counts = sorted({int(count) for groups in speeds.values() for count in groups})
    lines = [
        (side, *(f"{groups[str(count)]:.0f}" if str(count) in groups else "" for count in counts))
        for side, groups in speeds.items()
    ]
    return table(("tok/s, requests at once", *map(str, counts)), lines)


def _fact(name: str, result: dict[str, Any]) -> str:
    kind = name.split()[0]
    if kind == "held":
        return _held(Held(**result))
    if kind == "costs":
        return _costs(name, Costs(**result))
    if kind == "sparse":
        return _sparse(result)
    return table((name, *result), [("ms", *(f"{value:.1f}" for value in result.values()))])


def _held(held: Held) -> str:
    lines = [
        (
            f"{length} tokens reserved for each",
            str(held.reserved_holds(length)),
            f"{held.held_mean:.1f}",
            f"{held.held_mean / held.reserved_holds(length):.1f}",
            "held" if held.held_mean >= HELD_BAR * held.reserved_holds(length) else "missed",
        )
        for length in RESERVED
    ]
    head = (
        f"sequences in {held.budget_tokens} tokens of KV ({held.tokens_mean:.0f} used each)",
        "contiguous",
        f"blocks ({held.preemptions} preempted)",
        "ratio",
        f"≥ {HELD_BAR:g} ×",
    )
    return table(head, lines)


def _sparse(result: dict[str, Any]) -> str:
    """Sparse experts beside a dense model of all their parameters; counted, and timed by batch."""
    share = result["flops_sparse"] / result["flops_dense"]
    batches = list(result["time_ratios"])
    lines = [
        ("FLOPs of a token against dense", f"{share:.3f}", *[""] * (len(batches) - 1)),
        (
            "dense step ÷ sparse step",
            *(
                f"{middle:.2f} ({low:.2f}-{high:.2f})"
                for middle, low, high in result["time_ratios"].values()
            ),
        ),
        (
            "share of a step in gate and dispatch",
            *(f"{part:.2f}" for part in result["gate_and_dispatch_share"].values()),
        ),
    ]
    active, total = result["active_millions"], result["parameters_millions"]
    head = (
        f"experts: {active:g} of {total:g} M parameters active "
        f"({4 * active:.0f} of {4 * total:.0f} MB in fp32)",
        *(f"batch {rows}" for rows in batches),
    )
    return table(head, lines)


def _costs(name: str, costs: Costs) -> str:
    return table(
        (f"{name}: tokens in a step", *map(str, costs.tokens)),
        [("ms", *(f"{ms:.1f}" for ms in costs.step_ms))],
    )


def _memory(sides: dict[str, dict[str, str]]) -> str:
    lines = [(name, facts.get("memory_mb", "")) for name, facts in sides.items()]
    return table(("side", "resident MB after start"), lines) if lines else ""
