"""One tenant's books in a test: its desk in Redis, and what Postgres says."""

from dataclasses import dataclass

from billing import credit, invariants, ledger, metering, registers
from billing.credit import Balance
from billing.holds import Settled, SettledAttempt
from billing.ledger import AccountKey
from billing.metering import Drained
from billing.models import InvariantCheck, PriceVersion, ShardEpoch, Tenant, UsageEvent
from billing.money import nano_ceil
from tests.billing import desk as desks
from tests.billing.desk import Desk


@dataclass
class Books:
    desk: Desk
    tenant: Tenant
    price: PriceVersion

    @property
    def shard(self) -> int:
        return registers.shard_of(self.tenant.pk)

    def served(
        self, *, usage: tuple[int, int] = (100, 10), hold_nano: int = 1_000_000, **event: object
    ) -> str:
        """Place and settle one request of one attempt."""
        request_id = self.desk.placed(hold_nano=hold_nano)
        self.settle(request_id, usage=usage, **event)
        return request_id

    def settle(
        self, request_id: str, *, usage: tuple[int, int] | None = (100, 10), **event: object
    ) -> Settled:
        made = self.desk.event(request_id, usage=usage, **event)  # type: ignore[arg-type]
        body = desks.encode(made)
        return self.desk.settle_events(
            request_id, [SettledAttempt(body, nano_ceil(made.tenant_cost_pico))]
        )

    def drain(self) -> Drained:
        return metering.drain(self.desk.client, self.shard, now=desks.at(self.desk.now_ms))

    def adopt_epoch(self) -> None:
        """What the data plane does on Cold: look the epoch up again."""
        self.desk.epoch = ShardEpoch.objects.get(shard=self.shard).epoch

    def balance(self) -> Balance:
        return credit.balance(self.tenant, client=self.desk.client)

    def account(self, kind: str, *, tenant: bool = False, supplier: str = "") -> int:
        return ledger.balance(AccountKey(kind, self.tenant.pk if tenant else None, supplier))

    def events(self) -> list[UsageEvent]:
        return list(UsageEvent.objects.order_by("request_id", "attempt"))

    def check(self) -> dict[str, str]:
        """Every invariant that does not hold, with its detail."""
        invariants.audit(self.desk.client, now=desks.at(self.desk.now_ms))
        return {row.name: row.detail for row in InvariantCheck.objects.filter(holds=False)}
