"""The sellers of a simulated year: one bills in dollars and UTC, one in euros and its own zone,
both with rows that nobody would wish for; and the operator who decides them."""

import hashlib
import io
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from zoneinfo import ZoneInfo

from billing.books import bill_rows, reconciling
from billing.books.reconciling import Stated
from billing.models import ProviderBill, ProviderBillRow
from billing.money import PICO_PER_USD
from providers.imports import bill_files

State = ProviderBillRow.State
HEAD = "date,model,input_tokens,output_tokens,cost,currency"
CARRY, LEAVE, USE = State.CARRIED, State.LEFT_OUT, State.USED


@dataclass(frozen=True)
class Sold:
    at: datetime
    usage: tuple[int, int]
    cost_pico: int


@dataclass
class Line:
    """A line of a bill: its text, what it comes to, and what the operator does about it."""

    text: str
    pico: int = 0
    decision: str = ""

    @property
    def is_owed(self) -> bool:
        return self.decision != LEAVE


@dataclass
class Seller:
    name: str
    zone: str
    currency: str
    random: Random
    sold: list[Sold] = field(default_factory=list)
    # What each month's bill, as it stands, asks in all.
    owed_pico: dict[tuple[int, int], int] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)

    def bill(self, start: datetime, *, now: datetime) -> None:
        """The bill of its own month that begins about then; often a wrong one goes before it."""
        month = (start.year, start.month)
        rate = PICO_PER_USD if self.currency == "USD" else self.random.randrange(9, 13) * 10**11
        sold = [each for each in self.sold if self._month(each.at) == month]
        lines = [self._line(each.at, "swift-1", each.usage, each.cost_pico, rate) for each in sold]
        # One request may be billed as another one was, to the last digit.
        texts: set[str] = set()
        for line in lines:
            line.decision = USE if line.text in texts else ""
            texts.add(line.text)
        if self.random.random() < 0.4:
            wrong = lines[self.random.randrange(0, len(lines) + 1) :]
            self._accept(month, [*wrong, self._tax(start, rate)], rate, now)
        self._accept(month, lines + self._odd(start, lines, rate), rate, now)

    def _month(self, at: datetime) -> tuple[int, int]:
        local = at.astimezone(ZoneInfo(self.zone))
        return local.year, local.month

    def _line(self, at: datetime, model: str, usage: tuple[int, int], pico: int, rate: int) -> Line:
        amount = Decimal(pico) / rate
        if self.currency != "USD":
            amount = amount.quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP)
        moment = at.astimezone(ZoneInfo(self.zone)).isoformat()
        owed = int((amount * rate).quantize(Decimal(1), rounding=ROUND_HALF_UP))
        return Line(f"{moment},{model},{usage[0]},{usage[1]},{amount:f},{self.currency}", owed)

    def _tax(self, start: datetime, rate: int) -> Line:
        """On the last day of its month."""
        pico = self.random.randrange(1, 20 * PICO_PER_USD)
        return self._line(start + timedelta(days=26), "vat", (0, 0), pico, rate)

    def _odd(self, start: datetime, lines: list[Line], rate: int) -> list[Line]:
        day = start + timedelta(days=self.random.randrange(1, 27))
        some = self.random.randrange(1, 5 * PICO_PER_USD)
        fee = self._line(day, "", (0, 0), some, rate)
        fee.decision = CARRY
        undated = self._line(day, "platform-fee", (0, 0), some, rate)
        undated.text, undated.decision = "," + undated.text.partition(",")[2], CARRY
        summed = self._line(day, "x", (0, 0), some, rate)
        amount = summed.text.split(",")[4]
        total = Line(f"Total,,,,{amount},{self.currency}", summed.pico, LEAVE)
        kinds = [
            fee,
            undated,
            total,
            self._line(day, "promotion", (0, 0), -some, rate),
            self._line(day, "unheard-of-2", (some % 999, 7), some, rate),
            Line(",,,,,"),
            Line(f"{day:%Y-%m-%d},swift-1,1", 0, LEAVE),
            Line(f"{day:%Y-%m-%d},swift-1,1,1,NaN,{self.currency}", 0, LEAVE),
            Line(f"{day:%Y-%m-%d},swift-1,1,-1,,{self.currency}", 0, LEAVE),
        ]
        if lines:
            again = self.random.choice(lines)
            kinds.append(Line(again.text, again.pico, LEAVE))
        chosen = self.random.sample(kinds, self.random.randrange(3, len(kinds)))
        return [self._tax(start, rate), *chosen]

    def _accept(self, month: tuple[int, int], lines: list[Line], rate: int, now: datetime) -> None:
        """The operator's evening with it."""
        asked = sum(line.pico for line in lines)
        rest = self.random.choice((0, 1, -3, 10**9, 25 * PICO_PER_USD))
        made = self._stored(lines, month, stated_pico=asked + rest, now=now)
        if made.rows.filter(why=bill_rows.no_rate("EUR")).exists():
            bill_rows.state_rate(
                bill_id=made.pk, currency="EUR", pico_per_unit=rate, day=now.date(),
                source="ECB", stated_by="op", now=now,
            )  # fmt: skip
        for number, line in enumerate(lines, start=2):
            if line.decision:
                bill_rows.decide(
                    bill_id=made.pk, numbers=[number], state=line.decision, note="asked them",
                    decided_by="op", now=now,
                )  # fmt: skip
        if rest:
            bill_rows.carry_rest(bill_id=made.pk, note="minimum", decided_by="op", now=now)
        is_again = reconciling.accepted_before(made).exists()
        reconciling.accept(bill_id=made.pk, accepted_by="op", now=now, instead=is_again)
        self.owed_pico[month] = sum(line.pico for line in lines if line.is_owed) + rest
        self.lines[made.pk] = len(lines) + bool(rest)

    def _stored(
        self, lines: list[Line], month: tuple[int, int], *, stated_pico: int, now: datetime
    ) -> ProviderBill:
        text = "\n".join([HEAD, *(line.text for line in lines)]).encode()
        file_format, rows = bill_files.read(io.BytesIO(text), {}, now=now)
        return reconciling.store(
            supplier=self.name,
            rows=rows,
            file_name=f"{self.name}.csv",
            file_format=file_format,
            file_hash=hashlib.sha256(text).digest(),
            stated=Stated(stated_pico, (date(*month, 1), date(*month, monthrange(*month)[1]))),
            uploaded_by="op",
            now=now.astimezone(UTC),
        )
