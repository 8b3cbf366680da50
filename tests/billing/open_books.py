"""One tenant's books in a test: its desk in Redis, and what Postgres says."""

from dataclasses import dataclass
from datetime import datetime

import redis

from billing import registers
from billing.books import ledger
from billing.books.ledger import AccountKey
from billing.credit import balances as credit
from billing.credit.balances import Balance
from billing.drain import metering
from billing.drain.metering import Drained
from billing.holding.holds import Settled, SettledAttempt
from billing.integrity import invariants
from billing.models import InvariantCheck, PriceVersion, ShardEpoch, Tenant, UsageEvent
from billing.money import nano_ceil
from billing.operations import rebuild
from billing.prices import versions as prices
from tests.billing import desk as desks
from tests.billing.desk import Desk


def publish(since: datetime, *, sku: str = "acme/swift-1") -> PriceVersion:
    """The desk's price, in force from then on."""
    return prices.publish(
        sku_code=sku,
        input_pico=desks.INPUT_PICO,
        cache_read_pico=desks.INPUT_PICO // 10,
        cache_write_5m_pico=desks.INPUT_PICO,
        cache_write_1h_pico=desks.INPUT_PICO,
        output_pico=desks.OUTPUT_PICO,
        reasoning_pico=desks.OUTPUT_PICO,
        valid_from=since,
        source="test",
        recorded_by="test",
    )


def opened(client: redis.Redis, tenant: Tenant, price: PriceVersion) -> "Books":
    """A tenant's books, on a shard that was rebuilt from Postgres."""
    shard = registers.shard_of(tenant.pk)
    rebuild.rebuild(client, shard, now=desks.at(desks.NOON_MS))
    epoch = ShardEpoch.objects.get(shard=shard).epoch
    desk = Desk(client=client, tenant=tenant.pk, epoch=epoch, price=price.pk)
    return Books(desk=desk, tenant=tenant, price=price)


def write_posted(tenant: Tenant, price: PriceVersion, *, output_tokens: int, at: datetime) -> int:
    """One charge as a drain of that moment writes and posts it, without Redis; its cost."""
    cost_pico = output_tokens * price.output_pico
    (transfer_id,) = ledger.new_ids(1)
    request_id = desks.request_id_at(int(at.timestamp() * 1000))
    UsageEvent.objects.create(
        request_id=request_id,
        attempt=0,
        day=at.date(),
        tenant=tenant,
        sku=price.sku.code,
        price_version=price,
        supplier="acme",
        model="swift-1",
        outcome="ok",
        usage_source="provider",
        output_tokens=output_tokens,
        rated_pico=cost_pico,
        tenant_cost_pico=cost_pico,
        hold_nano=nano_ceil(cost_pico),
        charged_nano=nano_ceil(cost_pico),
        occurred_at=at,
        settled_at=at,
        stream_id=request_id,
        body_hash=bytes(32),
        transfer_id=transfer_id,
    )
    ledger.post_all(
        [
            ledger.Draft(
                code=ledger.Code.USAGE,
                legs=(
                    ledger.Leg(AccountKey(ledger.Kind.TENANT_CREDIT, tenant.pk), cost_pico),
                    ledger.Leg(AccountKey(ledger.Kind.REVENUE), -cost_pico),
                ),
                idempotency_key=f"usage:{request_id}:0",
                tenant_id=tenant.pk,
                transfer_id=transfer_id,
            )
        ]
    )
    return cost_pico


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
