"""A board's figures a second time: from usage events one by one, by plain Python and floats.

Nothing of the fast path is used but the width of a histogram's bucket. What it must agree with is
written in docs/leaderboards.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.models import UsageEvent
from providers.boards.histograms import GROWTH, bucket_of

LENGTHS = {
    "5m": ("minute", timedelta(minutes=5)),
    "1h": ("minute", timedelta(hours=1)),
    "24h": ("hour", timedelta(hours=24)),
    "7d": ("hour", timedelta(days=7)),
    "30d": ("day", timedelta(days=30)),
}
OUR_TROUBLE = {"gateway_trouble", "upstream_credential_refused", "upstream_account_doubted"}


def floor(at: datetime, span: str) -> datetime:
    whole = {"minute": {}, "hour": {"minute": 0}, "day": {"minute": 0, "hour": 0}}[span]
    return at.replace(second=0, microsecond=0, **whole)


def within(events: Iterable[UsageEvent], window: str, now: datetime) -> list[UsageEvent]:
    span, length = LENGTHS[window]
    first = floor(now, span) - length
    return [e for e in events if first < floor(e.occurred_at, span) <= now]


def is_counted(event: UsageEvent) -> bool:
    return event.state == "posted" and event.quarantine_reason == ""


def verdict(event: UsageEvent) -> str:
    if event.outcome in ("ok", "stopped"):
        return "served"
    if event.outcome in ("client_cancelled", "client_stalled"):
        return "left"
    was_answering = event.detail.get("output_bytes", 0) > 0
    is_sellers = event.outcome in ("upstream_error", "upstream_cut") or (
        event.outcome == "deadline" and not was_answering
    )
    if is_sellers and event.detail.get("error") not in OUR_TROUBLE:
        return "failed"
    return "nobody's"


def served(events: Iterable[UsageEvent]) -> list[UsageEvent]:
    return [e for e in events if verdict(e) == "served" and is_counted(e)]


def level(amounts: Sequence[float], share: float) -> float:
    """The largest c with c ≤ share × Σ min(amount, c), come down to from above."""
    most = share * sum(amounts)
    for _ in range(600):
        most = share * sum(min(amount, most) for amount in amounts)
    return most


def caller_parts(amounts: Iterable[tuple[int, float]], least: float) -> dict[int, float]:
    """By tenant folded to eight: the part of its sum that counts."""
    sums: Counter[int] = Counter()
    for tenant, amount in amounts:
        sums[tenant % 8] += amount  # type: ignore[assignment]
    most = max(level(list(sums.values()), 1 / 3), least)
    return {caller: min(1.0, most / total) if total else 1.0 for caller, total in sums.items()}


@dataclass
class Mix:
    requests: int
    input: float
    cached: float
    output: float


def mix_of(events: Sequence[UsageEvent]) -> Mix | None:
    """Served requests, each at the mean of those of its caller that are of its power of two."""
    found = served(events)
    if len(found) < 10:
        return None
    alike: dict[tuple[int, int], list[UsageEvent]] = {}
    for e in found:
        size = (e.input_tokens + e.output_tokens).bit_length()
        alike.setdefault((e.tenant_id % 8, size), []).append(e)
    each = {
        key: sum(e.input_tokens + e.output_tokens for e in group) / len(group)
        for key, group in alike.items()
    }
    requests = sorted((each[key], key[0]) for key, group in alike.items() for _ in group)
    counts = caller_parts(((caller, 1) for _, caller in requests), 100)
    seen, half = 0.0, sum(counts[caller] for _, caller in requests) / 2
    typical = requests[-1][0]
    for amount, caller in requests:
        seen += counts[caller]
        if seen >= half - 1e-9:
            typical = amount
            break
    limit = min(level([amount for amount, _ in requests], 1 / 10), 8 * typical)
    parts = {key: min(1.0, limit / amount) for key, amount in each.items()}
    callers = caller_parts(
        ((key[0], len(group) * each[key] * parts[key]) for key, group in alike.items()),
        100 * typical,
    )
    again = len(found) / sum(callers[e.tenant_id % 8] for e in found)
    total = Mix(len(found), 0.0, 0.0, 0.0)
    for key, group in alike.items():
        for e in group:
            weight = parts[key] * callers[key[0]] * again
            total.input += e.input_tokens * weight
            total.cached += e.cache_read_tokens * weight
            total.output += e.output_tokens * weight
    return total


def percentile(events: Iterable[UsageEvent], figure: str, share: float) -> tuple[float, int] | None:
    """The middle of the bucket that the sample is in, and how many samples there are."""
    sample = [(e.detail[figure], e.tenant_id % 8) for e in events if e.detail.get(figure)]
    if len(sample) < 20:
        return None
    parts = caller_parts(((caller, 1) for _, caller in sample), 100)
    rank = share * sum(parts[caller] for _, caller in sample)
    seen = 0.0
    for value, caller in sorted(sample, key=lambda pair: (int(bucket_of(pair[0])), pair[1])):
        seen += parts[caller]
        if seen >= rank - 1e-6:
            return round(GROWTH ** (int(bucket_of(value)) + 0.5), 1), len(sample)
    raise AssertionError("no sample is at that rank")


def uptime(events: Iterable[UsageEvent]) -> tuple[float, int] | None:
    judged = [e for e in events if verdict(e) in ("served", "failed")]
    if len(judged) < 20:
        return None
    seen = {floor(e.occurred_at, "minute") for e in judged}
    up = {floor(e.occurred_at, "minute") for e in judged if verdict(e) == "served"}
    return round(100 * len(up) / len(seen), 2), len(seen)


def paid_pico(events: Sequence[UsageEvent], every: Iterable[UsageEvent]) -> int | None:
    expired = {
        (e.request_id, -e.attempt - 1): e.output_tokens if is_counted(e) else 0
        for e in every
        if e.attempt < 0
    }
    charged = [e for e in events if is_counted(e)]
    output = sum(
        e.output_tokens - expired.get((e.request_id, e.attempt), 0)
        for e in charged
        if e.tenant_cost_pico or verdict(e) in ("served", "left")
    )
    cost = sum(e.tenant_cost_pico for e in charged)
    return (2 * cost + output) // (2 * output) if output else None


def count(events: Iterable[UsageEvent], is_so: Callable[[UsageEvent], bool]) -> int:
    return sum(1 for e in events if is_so(e))


def attempts(events: Iterable[UsageEvent], every: Iterable[UsageEvent]) -> int:
    """An expiry and the settle that came after all are one attempt."""
    expired = {(e.request_id, -e.attempt - 1) for e in every if e.attempt < 0}
    return count(events, lambda e: (e.request_id, e.attempt) not in expired)


def acceptance(events: Iterable[UsageEvent]) -> tuple[float, float] | None:
    told = []
    for e in served(events):
        s = e.detail.get("speculation")
        if s and s["accepted"] <= min(s["drafted"], e.output_tokens):
            if s["steps"] <= e.output_tokens + 1 and s["drafted"] <= 64 * s["steps"]:
                told.append(s)
    drafted, accepted, steps = (
        sum(s[name] for s in told) for name in ("drafted", "accepted", "steps")
    )
    if not drafted or not steps:
        return None
    return round(accepted / drafted, 3), round(1 + accepted / steps, 3)
