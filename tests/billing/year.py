"""A simulated year of a house with twelve tenants in nine zones: every hand that moves money, in an
order drawn from a seed, on the real services, Redis and PostgreSQL. The clock is the test's own."""

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random

import redis

from billing.corrections import adjustments, rebates, rerating
from billing.corrections.rerating import Correction
from billing.corrections.volume_tiers import Tier
from billing.credit import balances as credit
from billing.credit import grant_expiry
from billing.errors import InvoiceRefused, PriceRefused
from billing.invoicing import calendar_months, documents, receivables, runs
from billing.limits import quotas
from billing.models import (
    BillingProfile,
    Invoice,
    PriceList,
    PriceVersion,
    Tenant,
)
from billing.payments import returns, topups
from billing.payments.facts import Failed, Paid, Refunded
from billing.prices import lists as price_lists
from billing.prices import plans
from billing.prices import versions as prices
from billing.prices.versions import Slot
from billing.rates import Rates
from tests.billing.open_books import Books, opened, publish
from tests.billing.year_recharges import Recharging
from tests.billing.year_sellers import Seller, Sold

ZONES = (
    "UTC", "Asia/Tokyo", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/Los_Angeles",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "America/St_Johns",
)  # fmt: skip
TENANTS = 12
USD = 10**12
SKU = "acme/swift-1"
BEFORE = datetime(2026, 12, 1, tzinfo=UTC)
BEGINNING = datetime(2027, 1, 1, tzinfo=UTC)
SELLER = {"legal_name": "Tokenhouse Ltd", "address": "1 Mint Street", "country": "IE"}
State = Invoice.State


def month_start(number: int) -> datetime:
    """The first of the year's month of that number, counted from 0 and past its end."""
    return datetime(2027 + number // 12, number % 12 + 1, 1, tzinfo=UTC)


@dataclass
class House:
    client: redis.Redis
    seed: int
    months: int
    requests: int
    random: Random = field(init=False)
    books: list[Books] = field(init=False)
    plan: PriceList = field(init=False)
    sellers: list[Seller] = field(init=False)
    recharging: Recharging = field(init=False)
    # Requests whose stream outlasts the month's end: whose, and when they began.
    streams: list[tuple[Books, str, datetime]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        price = publish(BEFORE)
        self.plan = PriceList.objects.create(slug="startup", name="Startup")
        price_lists.set_rule(
            price_list=self.plan, pattern="", change_ppm=-200_000, actor="op", now=BEFORE
        )
        rebates.set_scale(
            plan=self.plan,
            mode="graduated",
            scale=(Tier(USD, 20_000), Tier(None, 50_000)),
            from_month=BEFORE.date(),
            actor="op",
            now=BEFORE,
        )
        self.books = [self._open(number, price) for number in range(TENANTS)]
        self.sellers = [
            Seller("acme", "UTC", "USD", self.random),
            Seller("borealis", "America/Los_Angeles", "EUR", self.random),
        ]
        self.recharging = Recharging(self.random, SELLER)
        self.recharging.begin([books.tenant for books in self.books[:5]])

    def _open(self, number: int, price: PriceVersion) -> Books:
        tenant = Tenant.objects.create(
            slug=f"tenant-{number}", name=f"Tenant {number}", time_zone=ZONES[number % len(ZONES)]
        )
        credit.change_terms(tenant=tenant, actor="op", now=BEFORE, credit_limit_pico=1_000 * USD)
        # The last one buys credit before anybody knows who it is.
        if number < TENANTS - 1:
            self._profile(tenant, number)
        return opened(self.client, tenant, price)

    def _profile(self, tenant: Tenant, number: int) -> None:
        BillingProfile.objects.create(
            tenant=tenant,
            legal_name=f"{tenant.name} Ltd",
            address="2 Any Street",
            country="DE",
            tax_name="VAT",
            tax_id="DE123456789" if number % 4 == 3 else "",
            is_reverse_charge=number % 4 == 3,
            tax_ppm=0 if number % 4 == 3 else 200_000,
        )

    def live(self) -> None:
        """Month by month, and then long enough that everything is on a document."""
        for number in range(self.months):
            start = month_start(number)
            self._change(start, number)
            for books in self.books:
                self._use(books, start)
                self._buy(books, start + timedelta(days=12), number)
            self.recharging.run(start + timedelta(days=13))
            self._end_month(month_start(number + 1), number)
        last = month_start(self.months)
        self._profile_all()
        self._end_streams(last)
        self._correct(last + timedelta(days=1), self.months)
        for later in range(1, 3):
            self._issue(month_start(self.months + later) + timedelta(days=3))
        self._hear_sellers(self.months)
        self.recharging.run(month_start(self.months + 3))

    def _change(self, now: datetime, number: int) -> None:
        """Zones, plans, prices, gifts that end."""
        for books in self.random.sample(self.books, 3):
            zone = self.random.choice(ZONES)
            quotas.change_time_zone(tenant=books.tenant, zone=zone, actor="op", now=now)
        for books in self.random.sample(self.books, 3):
            plan = self.random.choice((self.plan, None))
            plans.assign(tenant=books.tenant, plan=plan, actor="op", now=now)
        if number % 3 == 1:
            self._reprice(now + timedelta(days=self.random.randrange(1, 20)), number)
        for books in self.random.sample(self.books, 3):
            credit.grant(
                tenant=books.tenant,
                amount_pico=self.random.randrange(1, 40) * USD // 7,
                reason="welcome",
                created_by="op",
                expires_at=now + timedelta(days=self.random.randrange(20, 50)),
            )

    def _reprice(self, begins: datetime, number: int) -> None:
        rate = 2_000_000 + 12_345 * number
        prices.publish(
            sku_code=SKU,
            input_pico=rate,
            cache_read_pico=rate // 10,
            cache_write_5m_pico=rate,
            cache_write_1h_pico=rate,
            output_pico=4 * rate,
            reasoning_pico=4 * rate,
            valid_from=begins,
            source="test",
            recorded_by="op",
        )

    def _version(self, tenant: Tenant, at: datetime) -> PriceVersion:
        found = PriceVersion.objects.filter(sku__code=SKU, during__contains=at)
        own = plans.lists_of(tenant.pk, at)
        return found.filter(price_list__in=own).first() or found.get(price_list=None)

    def _use(self, books: Books, start: datetime) -> None:
        books.tenant.refresh_from_db()
        moments = sorted(self.random.uniform(0, 27) for _ in range(self.requests))
        for days in moments:
            at = start + timedelta(seconds=int(days * 86_400))
            self._at(books, at)
            self._settle(books, books.desk.placed(hold_nano=40 * 10**9), at)
        end = calendar_months.month(start.year, start.month, books.tenant.time_zone).end
        at = end - timedelta(minutes=self.random.randrange(1, 600))
        self._at(books, at)
        self.streams.append((books, books.desk.placed(hold_nano=40 * 10**9), at))
        books.drain()

    def _at(self, books: Books, at: datetime) -> None:
        books.desk.now_ms = int(at.timestamp() * 1000)

    def _settle(self, books: Books, request_id: str, began: datetime) -> None:
        version = self._version(books.tenant, began)
        books.desk.price = version.pk
        usage = (self.random.randrange(1, 2_000_000), self.random.randrange(1, 900_000))
        cost = usage[0] * version.input_pico + usage[1] * version.output_pico
        seller = self.random.choice(self.sellers)
        seller.sold.append(Sold(began, usage, cost // 2))
        books.settle(
            request_id,
            usage=usage,
            cost_pico=cost,
            supplier_pico=cost // 2,
            supplier=seller.name,
        )

    def _end_streams(self, now: datetime) -> None:
        """Half of them end on their own side of the month's end and are posted late."""
        for books, request_id, began in self.streams:
            ends = began if self.random.random() < 0.5 else began + timedelta(minutes=9)
            self._at(books, ends)
            self._settle(books, request_id, began)
            books.drain()
        self.streams.clear()

    def _buy(self, books: Books, now: datetime, number: int) -> None:
        """A purchase whose end is told late, twice, as failed and then paid, or refunded."""
        if self.random.random() < 0.6:
            return
        topup = topups.start(
            tenant=books.tenant,
            net_cents=self.random.randrange(500, 3_000),
            created_by="ada",
            now=now,
        )
        key, reference = str(topup.key), f"pi_{topup.pk}"
        if self.random.random() < 0.3:
            topups.failed(Failed(key=key, why="timed out"), now=now)
            if self.random.random() < 0.5:
                return
        fact = Paid(key=key, total_cents=topup.total_cents, currency="usd", reference=reference)
        for _ in range(self.random.randrange(1, 4)):
            topups.paid(fact, seller=SELLER, now=now + timedelta(hours=5))
        if self.random.random() < 0.3:
            part = self.random.randrange(1, topup.total_cents)
            back = Refunded(reference=reference, refunded_cents=part)
            returns.refunded(back, seller=SELLER, now=now + timedelta(days=1))

    def _end_month(self, end: datetime, number: int) -> None:
        """Streams go on past it, credit ends, drafts are made, issued, voided, paid, credited."""
        self.recharging.run(end - timedelta(minutes=2))
        self.recharging.run(end + timedelta(minutes=2))
        is_early = self.random.random() < 0.5
        if is_early:
            self._end_streams(end)
        grant_expiry.expire_grants(now=end, client=self.client)
        if number == self.months // 2:
            self._profile_all()
        self._issue(end + timedelta(days=3))
        if not is_early:
            self._end_streams(end)
        if number % 3 == 2:
            self._correct(end + timedelta(days=5), number)
        rebates.post_due(now=end + timedelta(days=6))
        self._hear_sellers(number)

    def _hear_sellers(self, number: int) -> None:
        """Their bills of a month, a week after it."""
        for seller in self.sellers:
            seller.bill(month_start(number), now=month_start(number + 1) + timedelta(days=7))

    def _profile_all(self) -> None:
        if not BillingProfile.objects.filter(tenant=self.books[-1].tenant).exists():
            self._profile(self.books[-1].tenant, 0)

    def _issue(self, now: datetime) -> None:
        runs.draft_due(now=now)
        for draft in Invoice.objects.filter(state=State.DRAFT):
            if self.random.random() < 0.2:
                self._draft_again(draft, now)
        for draft in Invoice.objects.filter(state=State.DRAFT).order_by("period_end", "pk"):
            invoice = self._finalise(draft.pk, now)
            if self.random.random() < 0.15:
                void = documents.void(
                    invoice_id=invoice.pk, reason="address", voided_by="ada", now=now
                )
                invoice = self._finalise(void.pk, now)
            self._settle_invoice(invoice, now)

    def _finalise(self, invoice_id: int, now: datetime) -> Invoice:
        return documents.finalise(invoice_id=invoice_id, seller=SELLER, actor="ada", now=now)

    def _draft_again(self, draft: Invoice, now: datetime) -> None:
        """By hand, of whatever month somebody thinks of."""
        back = self.random.randrange(28, 65)
        tenant = Tenant.objects.get(pk=draft.tenant_id)
        try:
            documents.draft(
                tenant=tenant,
                period=calendar_months.last_month(
                    now - timedelta(days=back - 28), tenant.time_zone
                ),
                created_by="ada",
                now=now,
            )
        except InvoiceRefused:
            return

    def _settle_invoice(self, invoice: Invoice, now: datetime) -> None:
        for part in range(self.random.randrange(0, 3)):
            still_open = receivables.open_cents(invoice)
            if still_open:
                receivables.record_payment(
                    invoice_id=invoice.pk,
                    amount_cents=self.random.randrange(1, still_open + 1) if part else still_open,
                    reference=f"bank-{invoice.pk}-{part}",
                    received_on=now.date(),
                    created_by="ada",
                    now=now,
                )
        if invoice.subtotal_cents > 0 and self.random.random() < 0.2:
            receivables.issue_credit_note(
                invoice_id=invoice.pk,
                net_cents=self.random.randrange(1, invoice.subtotal_cents + 1),
                reason="slow week",
                created_by="ada",
                now=now,
            )

    def _correct(self, now: datetime, number: int) -> None:
        """A price is corrected up or down for a quarter, and a service level was missed."""
        change = self.random.choice((90, 110))
        correction = Correction(
            sku=SKU,
            slot=Slot(),
            since=month_start(max(0, number - 2)),
            until=month_start(number) + timedelta(days=20),
            rates=Rates(
                input_pico=20_000 * change,
                cache_read_pico=2_000 * change,
                cache_write_5m_pico=20_000 * change,
                cache_write_1h_pico=20_000 * change,
                output_pico=80_000 * change,
                reasoning_pico=80_000 * change,
            ),
        )
        # A period that meets an earlier correction's halfway is refused.
        with contextlib.suppress(PriceRefused):
            rerating.post(
                correction, charges_more=True, reason="published wrong", created_by="op", now=now
            )
        self._make_good(self.random.choice(self.books), now)

    def _make_good(self, books: Books, now: datetime) -> None:
        amount = self.random.randrange(1, USD)
        adjustments.post(
            tenant=books.tenant,
            cause=adjustments.Cause.SERVICE,
            amount_pico=amount,
            months={date(now.year, now.month, 1): amount},
            reason="slow",
            created_by="op",
            now=now,
        )
