"""What a board says of an in-house engine from what the engine said of itself. Pure.

Totals count since the worker's last start. An audit recomputes answers without speculation; joules
come from the machine's own counters, and without one there is no figure.
"""

from collections.abc import Mapping

from providers.boards.shapes import Audit, Energy, Hourly, Quality
from providers.models import Worker

MILLION = 1_000_000
QUALITY_NUMBERS = frozenset({"loss_percent", "disagreement_percent", "sample"})


def hourly(worker: Worker | None) -> Hourly | None:
    """What an hour costs, and what a token costs with the machine as little used as it was."""
    if worker is None:
        return None
    totals = _numbers(worker.totals)
    busy_s, uptime_s = _busy_s(totals), totals.get("uptime_s", 0.0)
    output = totals.get("output_tokens", 0.0)
    actual = None
    if busy_s and uptime_s and output:
        share = totals["output_seconds"] / busy_s
        actual = round(worker.usd_per_hour_pico * uptime_s / 3600 * share / output)
    return Hourly(
        usd_per_hour_pico=worker.usd_per_hour_pico,
        source=worker.usd_per_hour_source,
        actual_output_pico=actual,
        utilisation=round(busy_s / uptime_s, 3) if uptime_s else None,
    )


def audit(worker: Worker | None) -> Audit | None:
    """How many answers were computed again without speculation, and how many came out otherwise.

    A tie is an answer that parted where two tokens were equally likely within rounding.
    """
    if worker is None:
        return None
    totals = _numbers(worker.totals)
    same, ties, different = (
        int(totals.get(f"audits_{verdict}", 0)) for verdict in ("same", "tie", "different")
    )
    answers = same + ties + different
    return Audit(answers=answers, ties=ties, different=different) if answers else None


def energy(worker: Worker | None) -> Energy | None:
    """Joules per million output tokens, by the share of engine time that output took."""
    if worker is None:
        return None
    source = str(worker.engine.get("energy") or "unknown")[:16]
    live = _per_million(_numbers(worker.totals))
    saturated = _per_million(_saturated(_numbers(worker.calibration)))
    if source == "unknown" or (live is None and saturated is None):
        return Energy(source="unknown", joules_per_m=None, joules_per_m_saturated=None)
    return Energy(source=source, joules_per_m=live, joules_per_m_saturated=saturated)


def quality(worker: Worker | None) -> Quality | None:
    """What the engine's arithmetic loses on its worst slice; nothing unless all of it is stated."""
    stated = worker.engine.get("quality") if worker is not None else None
    if not isinstance(stated, dict):
        return None
    numbers = _numbers(stated)
    names = [stated.get(name) for name in ("worst_slice", "measure")]
    brittle = stated.get("brittle")
    if QUALITY_NUMBERS - numbers.keys() or not isinstance(brittle, bool):
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    return Quality(
        brittle=brittle,
        worst_slice=str(stated["worst_slice"])[:40],
        measure=str(stated["measure"])[:40],
        **{name: numbers[name] for name in QUALITY_NUMBERS},
    )


def _saturated(calibration: dict[str, float]) -> dict[str, float]:
    """A calibration in the words of totals."""
    share = calibration.get("input_time_share", 0.0)
    return {
        "joules": calibration.get("joules", 0.0),
        "input_seconds": share,
        "output_seconds": 1.0 - share,
        "output_tokens": calibration.get("output_tokens", 0.0),
    }


def _per_million(totals: dict[str, float]) -> float | None:
    joules, output = totals.get("joules", 0.0), totals.get("output_tokens", 0.0)
    busy_s = _busy_s(totals)
    if not (joules and output and busy_s):
        return None
    return round(joules * totals.get("output_seconds", 0.0) / busy_s / output * MILLION, 1)


def _busy_s(totals: dict[str, float]) -> float:
    return totals.get("input_seconds", 0.0) + totals.get("output_seconds", 0.0)


def _numbers(stated: Mapping[str, object]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in stated.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
