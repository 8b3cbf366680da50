"""Automatic purchases of a simulated year, at a processor that is silent or late, contradicts
itself, or takes another sum; and the person who ends what it leaves open."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from django.db.models import Sum

from billing.invoicing import calendar_months
from billing.models import Recharge, Tenant, TopUp
from billing.payments import recharges, topup_reviews, topups
from billing.payments.facts import Failed, Paid

TERMS = {"is_on": True, "below_cents": 10**9, "amount_cents": 1_000, "monthly_max_cents": 2_000}
State = TopUp.State


@dataclass
class Recharging:
    random: Random
    seller: dict[str, str]
    # Of which the processor said that they failed, and says more later.
    failed: list[TopUp] = field(default_factory=list)
    contradicted: set[int] = field(default_factory=set)

    def begin(self, tenants: list[Tenant]) -> None:
        for tenant in tenants:
            card = {"payer_reference": "cus_1", "card_reference": "pm_1"}
            Recharge.objects.create(tenant=tenant, **TERMS, **card)

    def run(self, now: datetime) -> None:
        """What is known late, then what is due now."""
        for topup in self.failed:
            self.contradicted.add(topup.pk)
            self._paid(topup, now)
        self.failed.clear()
        for topup in TopUp.objects.filter(is_automatic=True, state=State.REVIEW).order_by("pk"):
            self._end(topup, now)
        Recharge.objects.filter(is_on=False).update(is_on=True, failures=0)
        recharges.start_due(now=now)
        while topup_asked := recharges.claim_due(now=now):
            self._hear(topup_asked, now)
        for recharge in Recharge.objects.select_related("tenant"):
            self._check(recharge, now)

    def _hear(self, topup: TopUp, now: datetime) -> None:
        drawn = self.random.random()
        if drawn < 0.35:
            self._paid(topup, now)
        elif drawn < 0.55:
            return  # It times out, and is asked for again.
        elif drawn < 0.7:
            topups.failed(Failed(key=str(topup.key), why="timed out"), now=now)
            self.failed.append(topup)
        elif drawn < 0.85:
            self._paid(topup, now, cents=topup.total_cents // 2)
        else:
            recharges.give_up(topup, now=now + timedelta(days=31))

    def _paid(self, topup: TopUp, now: datetime, *, cents: int = 0) -> None:
        fact = Paid(
            key=str(topup.key),
            total_cents=cents or topup.total_cents,
            currency="usd",
            reference=f"pi_{topup.pk}",
        )
        for _ in range(self.random.randrange(1, 3)):
            topups.paid(fact, seller=self.seller, now=now)

    def _end(self, topup: TopUp, now: datetime) -> None:
        drawn = self.random.random()
        if not topup.payment_reference and drawn < 0.3:
            self._paid(topup, now)
        elif not topup.payment_reference and drawn < 0.5:
            topups.failed(Failed(key=str(topup.key), why="told late"), now=now)
        elif drawn < 0.75:
            topup_reviews.credit(
                topup_id=topup.pk, arrived_cents=topup.total_cents // 2,
                reference=f"pi_{topup.pk}", note="seen", actor="op", seller=self.seller, now=now,
            )  # fmt: skip
        else:
            topup_reviews.close(topup_id=topup.pk, note="sent back", actor="op", now=now)
            if topup.payment_reference:
                self._paid(topup, now)

    def _check(self, recharge: Recharge, now: datetime) -> None:
        """No month of the tenant's calendar has more than its sum."""
        began = calendar_months.this_month(now, recharge.tenant.time_zone).start
        bought = TopUp.objects.filter(
            tenant=recharge.tenant, is_automatic=True, created_at__gte=began
        ).exclude(state=State.FAILED)
        ours = bought.exclude(pk__in=self.contradicted)
        total = ours.aggregate(total=Sum("net_cents"))["total"] or 0
        assert total <= recharge.monthly_max_cents
