"""Re-rates a period at a corrected price: previewed per tenant, then posted as adjusting entries.

Nothing is updated in place: events keep the version they were rated by, and each tenant gets the
difference as an adjustment note of its own. A second correction replaces the first for the same
period and posts only what is off since, charges that arrived late included.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Q

from billing import audit, locks
from billing.corrections import adjustments
from billing.errors import LockTimeout, PriceRefused
from billing.invoicing.lines import TOKEN_CLASSES
from billing.models import Adjustment, AdjustmentNote, PriceVersion, ReRating, Tenant
from billing.prices.versions import Slot
from billing.rates import Rates

TASK: Final = "re-rating"

# An attempt that was settled after its expiry has two events; they are one charge, rated by the
# settled one. A tenant that paid less than the rating (cut at its hold, or late) never pays more.
_RATED_SQL: Final = " + ".join(
    f"({leaf.count_sql}) * %({leaf.rate})s::numeric" for leaf in TOKEN_CLASSES
)
_SETTLED_SQL: Final = """
    EXISTS (SELECT FROM billing_usageevent s WHERE s.request_id = u.request_id
        AND s.attempt = -u.attempt - 1 AND s.day = u.day AND s.state = 'posted')
"""
# Its charge is what was counted later, at the price of then.
_TRUED_UP_SQL: Final = """
    EXISTS (SELECT FROM billing_trueup t WHERE t.request_id = u.request_id
        AND t.attempt = u.attempt AND t.due_pico < t.charged_pico)
"""
# Who used the sku then, and requests of which days may have been attempted then: so that the index
# of each tenant's requests serves.
_OF_PERIOD_SQL: Final = """
    u.sku = %(sku)s AND u.occurred_at >= %(since)s AND u.occurred_at < %(until)s
    AND u.request_id >= billing_first_id_of(%(since)s::date - 1)
    AND u.request_id < billing_first_id_of(%(until)s::date + 2)
    AND u.tenant_id = ANY(ARRAY(SELECT tenant_id FROM billing_usageday WHERE sku = %(sku)s
        AND day BETWEEN %(since)s::date - 1 AND %(until)s::date + 1))
"""
_CORRECTED_SQL: Final = f"""
    SELECT tenant_id, month, count(*), sum(charged),
        sum(CASE WHEN charged >= rated_pico
            THEN LEAST(corrected, GREATEST(hold_pico, charged))
            ELSE LEAST(corrected, charged) END)
    FROM (
        SELECT u.tenant_id, date_trunc('month', u.day)::date AS month, u.rated_pico,
            u.hold_nano::numeric * 1000 AS hold_pico,
            u.tenant_cost_pico + coalesce(e.tenant_cost_pico, 0) AS charged,
            {_RATED_SQL} AS corrected
        FROM billing_usageevent u
        LEFT JOIN billing_usageevent e ON u.attempt >= 0 AND e.request_id = u.request_id
            AND e.attempt = -u.attempt - 1 AND e.day = u.day AND e.state = 'posted'
        WHERE u.price_version_id = ANY(%(versions)s) AND {_OF_PERIOD_SQL}
            AND u.state = 'posted' AND u.quarantine_reason = ''
            AND NOT (u.attempt < 0 AND {_SETTLED_SQL}) AND NOT {_TRUED_UP_SQL}
    ) charge
    GROUP BY tenant_id, month
"""
_UNPRICED_SQL: Final = f"""
    SELECT count(*) FROM billing_usageevent u WHERE u.price_version_id = ANY(%(versions)s)
        AND {_OF_PERIOD_SQL} AND u.state = 'posted' AND ({{unpriced}})
"""
# Why an event of the sku and the period stands as it was charged.
_UNTOUCHED_SQL: Final = f"""
    SELECT tenant_id, why, count(*), sum(CASE state
        WHEN 'quarantined' THEN 1000::numeric * charged_nano ELSE tenant_cost_pico END)
    FROM (
        SELECT u.*, CASE
            WHEN state = 'quarantined' THEN 'in quarantine'
            WHEN price_version_id IS NULL OR price_version_id <> ALL(%(versions)s)
                THEN 'of another tier, input size or hours'
            WHEN quarantine_reason <> '' THEN 'decided by a person, or at an estimate'
            WHEN {_TRUED_UP_SQL} THEN 'trued up to a later count'
        END AS why
        FROM billing_usageevent u WHERE {_OF_PERIOD_SQL}
    ) events
    WHERE why IS NOT NULL GROUP BY tenant_id, why ORDER BY 3 DESC, 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What is to be corrected: the list price of a slot, from a moment to before another."""

    sku: str
    slot: Slot
    since: datetime
    until: datetime
    rates: Rates


class _Charged(NamedTuple):
    events: int = 0
    charged_pico: int = 0
    corrected_pico: int = 0

    @property
    def credit_pico(self) -> int:
        return self.charged_pico - self.corrected_pico


class Untouched(NamedTuple):
    """Events of one tenant that a correction leaves as they were charged, and why."""

    tenant_id: int
    why: str
    events: int
    charged_pico: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One tenant's share. `charged_pico` contains earlier corrections of the same events; `months`
    says what it gets back for requests of which UTC month."""

    tenant_id: int
    events: int
    charged_pico: int
    corrected_pico: int
    months: Mapping[date, int]

    @property
    def credit_pico(self) -> int:
        """What the tenant gets back; negative where it paid too little."""
        return self.charged_pico - self.corrected_pico


def preview(correction: Correction, *, now: datetime) -> list[Difference]:
    """What the correction makes of every tenant that is concerned, the greatest refund first.

    PriceRefused where the period, the rates or an earlier correction do not fit.
    """
    _check(correction, now)
    earlier = _earlier(correction)
    found = _charges(correction)
    already = _already(earlier)
    differences = [
        _difference(tenant, months, already.get(tenant, {})) for tenant, months in found.items()
    ]
    return sorted(differences, key=lambda each: (-each.credit_pico, each.tenant_id))


def untouched(correction: Correction) -> list[Untouched]:
    """Whose events of the sku and the period a correction does not touch; the most first."""
    known = [version for group in _versions(correction).values() for version in group]
    with connection.cursor() as cursor:
        cursor.execute(
            _UNTOUCHED_SQL,
            {
                "sku": correction.sku,
                "versions": known,
                "since": correction.since,
                "until": correction.until,
            },
        )
        rows = cursor.fetchall()
    return [Untouched(tenant, why, events, int(pico)) for tenant, why, events, pico in rows]


def post(
    correction: Correction,
    *,
    charges_more: bool,
    reason: str,
    created_by: str,
    now: datetime,
) -> ReRating:
    """Post the differences: all of them or none. Tenants that paid too little are left alone
    unless `charges_more`. Posted again, it finds nothing off and moves nothing.

    One at a time; LockTimeout while somebody else is at it.
    """
    if not reason.strip():
        raise PriceRefused("a correction needs a reason")
    with transaction.atomic(durable=True):
        if not locks.is_only_run(TASK):
            raise LockTimeout("another re-rating is being posted")
        differences = preview(correction, now=now)
        made = ReRating.objects.create(
            sku=correction.sku,
            **correction.slot.columns,
            since=correction.since,
            until=correction.until,
            rates=dict(correction.rates.items()),
            charges_more=charges_more,
            replaces=_earlier(correction),
            reason=reason[:200],
            created_by=created_by,
            created_at=now,
        )
        for difference in differences:
            _adjust(made, difference)
        audit.record(
            actor=created_by,
            action="price.rerate",
            subject=correction.sku,
            after={"re_rating": made.pk, "tenants": len(differences)},
            reason=reason,
            now=now,
        )
    return made


def _difference(
    tenant: int, months: Mapping[date, _Charged], already: Mapping[date, int]
) -> Difference:
    back = {
        month: months.get(month, _Charged()).credit_pico - already.get(month, 0)
        for month in months.keys() | already.keys()
    }
    charged = sum(sums.charged_pico for sums in months.values())
    return Difference(
        tenant_id=tenant,
        events=sum(sums.events for sums in months.values()),
        charged_pico=charged - sum(already.values()),
        corrected_pico=sum(sums.corrected_pico for sums in months.values()),
        months=back,
    )


def _adjust(re_rating: ReRating, difference: Difference) -> None:
    amount = difference.credit_pico
    if amount < 0 and not re_rating.charges_more:
        amount = 0
    tenant = Tenant.objects.get(pk=difference.tenant_id)
    grant = None
    if amount:
        grant = adjustments.post(
            tenant=tenant,
            cause=AdjustmentNote.Cause.CORRECTION,
            amount_pico=amount,
            months=difference.months,
            reason=f"{re_rating}: {re_rating.reason}",
            created_by=re_rating.created_by,
            now=re_rating.created_at,
        ).grant
    Adjustment.objects.create(
        re_rating=re_rating,
        tenant=tenant,
        events=difference.events,
        charged_pico=difference.charged_pico,
        # What was let pass is not corrected: the next correction sees it again.
        corrected_pico=difference.charged_pico - amount,
        grant=grant,
    )


def _check(correction: Correction, now: datetime) -> None:
    correction.rates.check()
    correction.slot.check()
    since, until = correction.since, correction.until
    if since.tzinfo is None or until.tzinfo is None:
        raise PriceRefused("a period needs a time zone")
    if not since < until <= now:
        raise PriceRefused("a period lies in the past, its end after its beginning")


def _earlier(correction: Correction) -> ReRating | None:
    """The correction that this one replaces; PriceRefused where it covers another period."""
    same = Q(sku=correction.sku, **correction.slot.columns, replaced_by=None)
    overlapping = Q(since__lt=correction.until, until__gt=correction.since)
    for other in ReRating.objects.filter(same & overlapping):
        if (other.since, other.until) != (correction.since, correction.until):
            raise PriceRefused(
                f"{other} covers {other.since.isoformat()} to {other.until.isoformat()}:"
                " correct exactly that period again, or one beside it"
            )
        return other
    return None


def _already(earlier: ReRating | None) -> Mapping[int, Mapping[date, int]]:
    """What each tenant has got back for the period by now, over all corrections in a row, by month.
    Corrections from before there were notes count in the month that their period begins in."""
    returned: dict[int, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    while earlier is not None:
        for row in earlier.adjustments.select_related("grant__adjustment_note"):
            note = getattr(row.grant, "adjustment_note", None)
            change = int(row.charged_pico) - int(row.corrected_pico)
            first = earlier.since.astimezone(UTC).date().replace(day=1)
            for month, pico in (adjustments.months_of(note) if note else {first: change}).items():
                returned[row.tenant_id][month] += pico
        earlier = earlier.replaces
    return returned


def _charges(correction: Correction) -> dict[int, dict[date, _Charged]]:
    """Per tenant and month: events, what was charged and what would have been."""
    totals: dict[int, dict[date, _Charged]] = defaultdict(lambda: defaultdict(_Charged))
    for change, versions in _versions(correction).items():
        rates = correction.rates if change is None else correction.rates.changed(change)
        for tenant, month, events, charged, corrected in _sums(correction, rates, versions):
            before = totals[tenant][month]
            totals[tenant][month] = _Charged(
                before.events + events,
                before.charged_pico + int(charged),
                before.corrected_pico + int(corrected),
            )
    return totals


def _versions(correction: Correction) -> dict[int | None, list[int]]:
    """The versions that can have rated the period, by how far they are from the list price."""
    found: dict[int | None, list[int]] = {}
    rows = PriceVersion.objects.filter(sku__code=correction.sku, **correction.slot.columns)
    for pk, change in rows.values_list("pk", "change_ppm"):
        found.setdefault(change, []).append(pk)
    if not found:
        raise PriceRefused("no price was ever published there")
    return found


def _sums(
    correction: Correction, rates: Rates, versions: Sequence[int]
) -> Iterable[tuple[Any, ...]]:
    parameters: dict[str, int | str | datetime | list[int]] = {
        **{name: value or 0 for name, value in rates.items()},
        "versions": list(versions),
        "sku": correction.sku,
        "since": correction.since,
        "until": correction.until,
    }
    unpriced = [
        f"({leaf.count_sql}) <> 0" for leaf in TOKEN_CLASSES if getattr(rates, leaf.rate) is None
    ]
    with connection.cursor() as cursor:
        if unpriced:
            sql = _UNPRICED_SQL.format(unpriced=" OR ".join(unpriced))
            cursor.execute(sql, parameters)
            if cursor.fetchone()[0]:
                raise PriceRefused("a unit that was used has no rate: give audio or images one")
        cursor.execute(_CORRECTED_SQL, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
