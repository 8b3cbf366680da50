"""Volume rebates of plans: a share of a month's spending back as credit, by tiers.

What is due is always worked out from the whole month; what is posted is the difference to what was
posted before. So late charges are followed, and posting again moves nothing.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Sum

from billing import audit, fault_isolation, locks
from billing.corrections import adjustments, volume_tiers
from billing.corrections.volume_tiers import Tier, TiersRefused
from billing.errors import LockTimeout, PriceRefused
from billing.models import (
    AdjustmentNote,
    PriceList,
    RebateScale,
    Tenant,
    UsageDay,
    VolumeRebate,
)
from billing.money import half_away
from billing.prices import plans
from billing.rates import PPM

TASK: Final = "volume rebates"
LATE_CHARGES: Final = timedelta(days=1)
Mode = RebateScale.Mode


def set_scale(
    *,
    plan: PriceList,
    mode: str,
    scale: Sequence[Tier],
    from_month: date,
    actor: str,
    now: datetime,
) -> RebateScale:
    """Give a plan these tiers from a month on that has not ended; PriceRefused says why not.

    A tier's `unit` is in parts per million of the spending, its `flat` a bonus in pico-dollars.
    """
    if plan.kind != PriceList.Kind.PLAN:
        raise PriceRefused("rebates are a plan's")
    if mode not in Mode.values:
        raise PriceRefused(f"no such way to count tiers: {mode}")
    if from_month.day != 1 or from_month < month_of(now):
        raise PriceRefused("tiers begin with a month, this one or a later one")
    try:
        volume_tiers.check(scale)
    except TiersRefused as wrong:
        raise PriceRefused(str(wrong)) from wrong
    if any(tier.unit > PPM for tier in scale):
        raise PriceRefused("nobody gets back more than was spent")
    with transaction.atomic():
        if RebateScale.objects.filter(plan=plan, from_month=from_month).exists():
            raise PriceRefused("this plan has tiers from that month already")
        made = RebateScale.objects.create(
            plan=plan,
            mode=mode,
            from_month=from_month,
            tiers=[[tier.up_to, tier.unit, tier.flat] for tier in scale],
            recorded_by=actor,
            recorded_at=now,
        )
        audit.record(
            actor=actor,
            action="rebate.set",
            subject=plan.slug,
            after={"from": from_month.isoformat(), "mode": mode, "tiers": made.tiers},
            now=now,
        )
    return made


def month_of(now: datetime) -> date:
    return now.astimezone(UTC).date().replace(day=1)


def due_pico(scale: RebateScale, spent_pico: int) -> int:
    """What a month's spending gives back, rounded once, never more than was spent."""
    rows = [Tier(up_to, ppm, bonus * PPM) for up_to, ppm, bonus in scale.tiers]
    count = volume_tiers.graduated if scale.mode == Mode.GRADUATED else volume_tiers.volume
    return min(half_away(count(spent_pico, rows), PPM), spent_pico) if spent_pico > 0 else 0


def post_month(month: date, *, actor: str, now: datetime) -> list[VolumeRebate]:
    """Post what is due for a month that has begun, for every tenant on a plan with tiers: at its
    end, or now where it has not ended. All or none, but in a periodic task, where one tenant's
    failure keeps no other waiting. LockTimeout while somebody else is at it.
    """
    if month.day != 1 or month > month_of(now):
        raise PriceRefused("rebates are for a month that has begun")
    with transaction.atomic():
        if not locks.is_only_run(TASK):
            raise LockTimeout("rebates are being posted by somebody else")
        its_end = _beginning(_following(month)) - timedelta.resolution
        on_plan = plans.at(min(its_end, now))
        tenants = Tenant.objects.filter(pk__in=on_plan).order_by("pk")
        posted = fault_isolation.each(
            tenants, lambda t: _post(t, on_plan[t.pk], month, actor, now), name=lambda t: t.slug
        )
    return [rebate for rebate in posted if rebate is not None]


def post_due(*, now: datetime) -> list[VolumeRebate]:
    """Last month's, once late charges had a day to arrive; and then what is off since."""
    this = month_of(now)
    if now < _beginning(this) + LATE_CHARGES:
        return []
    return post_month(month_of(_beginning(this) - LATE_CHARGES), actor=TASK, now=now)


def _beginning(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)


def _following(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def _post(tenant: Tenant, plan: int, month: date, actor: str, now: datetime) -> VolumeRebate | None:
    scale = (
        RebateScale.objects.filter(plan=plan, from_month__lte=month).order_by("-from_month").first()
    )
    if scale is None:
        return None
    spent = _spent_pico(tenant, month)
    due = due_pico(scale, spent)
    before = VolumeRebate.objects.filter(tenant=tenant, month=month)
    given = int(before.aggregate(total=Sum("grant__amount_pico"))["total"] or 0)
    if due == given:
        return None
    note = adjustments.post(
        tenant=tenant,
        cause=AdjustmentNote.Cause.REBATE,
        amount_pico=due - given,
        months={month: due - given},
        reason=f"volume rebate {month:%Y-%m}",
        created_by=actor,
        now=now,
    )
    return VolumeRebate.objects.create(
        tenant=tenant, month=month, scale=scale, spent_pico=spent, due_pico=due, grant=note.grant
    )


def _spent_pico(tenant: Tenant, month: date) -> int:
    """What was charged for the requests of a UTC month, as corrected since."""
    found = UsageDay.objects.filter(tenant=tenant, day__gte=month, day__lt=_following(month))
    charged = int(found.aggregate(total=Sum("cost_pico"))["total"] or 0)
    return charged - adjustments.given_pico(tenant, month)
