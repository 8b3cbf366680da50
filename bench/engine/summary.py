"""All figures of a folder of rounds and facts as one value, which the tables and plots show."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench.engine import machine
from bench.engine.prompts import HELD_OUT
from bench.engine.rounds import Measured, Round
from bench.engine.rows import ROWS, evaluate, latest
from bench.engine.statistics import median_interval

Summary = dict[str, Any]


def summarise(rounds: Sequence[Round], facts: dict[str, dict[str, Any]]) -> Summary:
    """JSON-ready figures; parts that were not measured are empty."""
    results = [result for row in ROWS if (result := evaluate(row, rounds)) is not None]
    return {
        "machine": machine.describe(),
        "versions": _versions(rounds),
        "sides": _sides(rounds),
        "rows": [asdict(result) | {"verdict": result.verdict} for result in results],
        "classes": [_class_figures(rounds, name) for name in HELD_OUT],
        "concurrency": _concurrency(rounds),
        "facts": {name: fact["result"] for name, fact in facts.items()},
    }


def _versions(rounds: Sequence[Round]) -> dict[str, str]:
    """Library versions as the sides told them."""
    known = ("torch", "transformers", "xllamacpp")
    told = [facts for item in rounds for facts in item.facts.values()]
    return {name: facts[name] for facts in told for name in known if name in facts}


def _sides(rounds: Sequence[Round]) -> dict[str, dict[str, str]]:
    return {
        f"{experiment}: {name}": facts
        for experiment in dict.fromkeys(item.experiment for item in rounds)
        for name, facts in latest(rounds, experiment)[-1].facts.items()
    }


def _class_figures(rounds: Sequence[Round], name: str) -> dict[str, Any]:
    """One stream, one class: each side's speed and drafts, and speculation against itself off."""
    own = [item for item in latest(rounds, "one-stream") if item.group == name]
    # In the order of the experiment; in a round the sides take turns.
    sides = dict.fromkeys(side for item in own for side in item.facts)
    figures = {side: _speed([item.measured[side] for item in own]) for side in sides}
    for side in figures:
        off, _, _ = side.rpartition(" ")
        if off in figures:
            figures[side] |= _against_off(
                [(item.measured[off], item.measured[side]) for item in own]
            )
    return {"class": name, "prompts": len(own), "sides": figures}


def _against_off(pairs: Sequence[tuple[Measured, Measured]]) -> dict[str, Any]:
    """What drafts gained, end to end and while decoding; pairs of without and with."""
    ratios = [plain.seconds / drafted.seconds for plain, drafted in pairs]
    figures: dict[str, Any] = {
        "speed_up": asdict(median_interval(ratios)),
        "same_texts": sum(plain.text_hash == drafted.text_hash for plain, drafted in pairs),
    }
    times = [(plain.decode_seconds, drafted.decode_seconds) for plain, drafted in pairs]
    decoding = [plain / drafted for plain, drafted in times if plain and drafted]
    if decoding:
        figures["decode_speed_up"] = asdict(median_interval(decoding))
    return figures


def _speed(measured: Sequence[Measured]) -> dict[str, Any]:
    tokens = sum(item.output_tokens for item in measured)
    steps = sum(item.steps for item in measured)
    drafted = sum(item.drafted for item in measured)
    return {
        "tokens_per_s": median(item.output_tokens / item.seconds for item in measured),
        "tokens_per_step": tokens / steps if steps else None,
        "accepted_share": sum(item.accepted for item in measured) / drafted if drafted else None,
    }


def _concurrency(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Median tokens per second by side and number of requests at once."""
    own = latest(rounds, "concurrency")
    speeds: dict[str, dict[str, list[float]]] = {}
    for item in own:
        for side in item.facts:
            speed = item.measured[side].output_tokens / item.measured[side].seconds
            speeds.setdefault(side, {}).setdefault(item.group, []).append(speed)
    return {
        side: {group: median(values) for group, values in groups.items()}
        for side, groups in speeds.items()
    }
