"""What calls of each key usually use: counted from new events only, told as percentiles.

Expected holds and quotes rest on it, money does not: an event that is missed here is still billed.
Integers throughout; a percentile is the upper edge of its bucket, at most a tenth too high.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from django.db import connection, transaction

from billing import fault_isolation
from billing.models import CallCount, CallMark, CallProfile, UsageEvent

DAYS_USED: Final = 14
EVENTS_PER_RUN_MAX: Final = 500_000
THOUSAND: Final = 1000
TOKENS_MAX: Final = 10_000_000


def _edges(until: int) -> list[int]:
    """1, 2, … 10, 11, … 20, 22, …: each edge a tenth above the one before, at least one."""
    edges = [1]
    while edges[-1] <= until:
        edges.append(edges[-1] + max(1, edges[-1] // 10))
    return edges


EDGES: Final = _edges(TOKENS_MAX)

# The whole of the new events in one statement: what it costs grows with them alone. A bound of
# zero says that the event tells nothing of its input.
COUNT: Final = """
    WITH fresh AS (
        SELECT tenant_id, api_key_id, model, day, least(output_tokens, %(most)s) AS output_tokens,
            input_tokens, CASE jsonb_typeof(detail -> 'input_bound')
                WHEN 'number' THEN (detail ->> 'input_bound')::numeric ELSE 0 END AS bound
        FROM billing_usageevent
        WHERE id > %(since)s AND id <= %(until)s AND outcome = 'ok' AND api_key_id IS NOT NULL
    ), sides AS (
        SELECT tenant_id, api_key_id, model, day, 'output' AS side, output_tokens AS used
        FROM fresh
        UNION ALL
        SELECT tenant_id, api_key_id, model, day, 'input',
            least(1000, ceil(1000.0 * input_tokens / bound))::bigint
        FROM fresh WHERE bound > 0
    )
    INSERT INTO billing_callcount (tenant_id, api_key_id, model, day, side, bucket, calls, total)
    SELECT tenant_id, api_key_id, model, day, side, width_bucket(used, %(edges)s::bigint[]),
        count(*), sum(used)
    FROM sides GROUP BY 1, 2, 3, 4, 5, 6
    ORDER BY 1, 3, 2, 5, 6, 4
    ON CONFLICT (tenant_id, model, api_key_id, side, bucket, day) DO UPDATE
        SET calls = billing_callcount.calls + excluded.calls,
            total = billing_callcount.total + excluded.total
    RETURNING tenant_id, model
"""
SUMS: Final = """
    SELECT api_key_id, side, bucket, sum(calls), sum(total) FROM billing_callcount
    WHERE tenant_id = %s AND model = %s AND day >= %s
    GROUP BY api_key_id, side, bucket
"""

Counts = dict[int, tuple[int, int]]  # bucket -> calls, total
Sides = dict[str, Counts]


@dataclass(frozen=True, slots=True)
class Used:
    """One side of a profile."""

    calls: int
    mean: int
    p95: int
    p99: int


def refresh(*, now: datetime) -> int:
    """Count what has been drained since the last run, and renew the profiles it touches; returns
    how many were renewed. Runs alone."""
    with transaction.atomic():
        touched = _count_new()
        since = (now - timedelta(days=DAYS_USED)).date()
        found = fault_isolation.each(touched, lambda of: list(_profiles(*of, since, now)))
        profiles = [profile for some in found for profile in some]
        CallProfile.objects.bulk_create(
            profiles,
            update_conflicts=True,
            unique_fields=["tenant", "model", "api_key_id"],
            update_fields=[
                "calls",
                "output_mean",
                "output_p95",
                "output_p99",
                "input_mean",
                "input_p95",
                "input_p99",
                "refreshed_at",
            ],
        )
        CallCount.objects.filter(day__lt=since).delete()
    return len(profiles)


def _count_new() -> list[tuple[int, str]]:
    """Tenants and models that have new events."""
    mark, _ = CallMark.objects.select_for_update().get_or_create(pk=1)
    newest = UsageEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    until = min(newest, mark.last_event_id + EVENTS_PER_RUN_MAX)
    if until <= mark.last_event_id:
        return []
    # A claim beyond all bounds counts as the most that is told apart: it is one call.
    asked: dict[str, int | list[int]] = {
        "since": mark.last_event_id,
        "until": until,
        "edges": EDGES,
        "most": TOKENS_MAX,
    }
    with connection.cursor() as cursor:
        cursor.execute(COUNT, asked)
        touched = sorted(set(cursor.fetchall()))
    mark.last_event_id = until
    mark.save(update_fields=["last_event_id"])
    return touched


def _profiles(tenant_id: int, model: str, since: date, now: datetime) -> Iterable[CallProfile]:
    """Of every key of the tenant that called the model, and of all of them together."""
    keys: dict[int | None, Sides] = {None: {}}
    with connection.cursor() as cursor:
        cursor.execute(SUMS, [tenant_id, model, since])
        for key_id, side, bucket, calls, total in cursor.fetchall():
            for key in (key_id, None):
                counts = keys.setdefault(key, {}).setdefault(side, {})
                before = counts.get(bucket, (0, 0))
                counts[bucket] = (before[0] + int(calls), before[1] + int(total))
    for key, sides in keys.items():
        output = used_of(sides.get(CallCount.Side.OUTPUT, {}))
        of_input = used_of(sides.get(CallCount.Side.INPUT, {}), unknown=THOUSAND)
        if not output.calls:
            continue
        yield CallProfile(
            tenant_id=tenant_id,
            api_key_id=key,
            model=model,
            calls=output.calls,
            output_mean=output.mean,
            output_p95=output.p95,
            output_p99=output.p99,
            input_mean=min(of_input.mean, THOUSAND),
            input_p95=min(of_input.p95, THOUSAND),
            input_p99=min(of_input.p99, THOUSAND),
            refreshed_at=now,
        )


def used_of(counts: Mapping[int, tuple[int, int]], *, unknown: int = 0) -> Used:
    """Mean, p95 and p99 of counted buckets; `unknown` for each where nothing was counted."""
    calls = sum(count for count, _ in counts.values())
    if not calls:
        return Used(0, unknown, unknown, unknown)
    total = sum(total for _, total in counts.values())
    ordered = sorted((bucket, count) for bucket, (count, _) in counts.items())
    return Used(
        calls, -(-total // calls), _percentile(ordered, calls, 95), _percentile(ordered, calls, 99)
    )


def _percentile(ordered: Sequence[tuple[int, int]], calls: int, percent: int) -> int:
    """No more than this in `percent` of a hundred calls."""
    rank, seen = -(-calls * percent // 100), 0
    for bucket, count in ordered:
        seen += count
        if seen >= rank:
            return EDGES[bucket] - 1 if bucket < len(EDGES) else EDGES[-1]
    raise AssertionError("the counts of a histogram exceed their own sum")
