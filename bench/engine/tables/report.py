"""The summary as Markdown tables."""

from typing import Any

from bench.engine.summary import Summary
from bench.engine.tables import fact_tables
from bench.engine.tables.markdown import table


def render(summary: Summary) -> str:
    """Every table, each under a bold line; what was not measured is left out."""
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    parts = [
        f"{summary['machine']}; {versions}.",
        _rows(summary["rows"]),
        _classes(summary["classes"]),
        _concurrency(summary["concurrency"]),
        *(fact_tables.render(name, result) for name, result in summary["facts"].items()),
        _memory(summary["sides"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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


def _memory(sides: dict[str, dict[str, str]]) -> str:
    lines = [(name, facts.get("memory_mb", "")) for name, facts in sides.items()]
    return table(("side", "resident MB after start"), lines) if lines else ""
