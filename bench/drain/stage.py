"""Fills the streams with settled requests of one priced sku, and drains them."""

from datetime import UTC, datetime

import redis
from django.core.management import call_command

from billing import credit, holds, invariants, metering, prices, rebuild
from billing.metering import Drained
from billing.models import ShardEpoch, Tenant
from billing.money import nano_ceil
from tests.billing import desk as desks
from tests.billing.desk import Desk

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def prepare(client: redis.Redis, *, events: int, tenants: int) -> None:
    call_command("migrate", verbosity=0)
    now = datetime.now(UTC)
    price = prices.publish(
        sku_code="acme/swift-1",
        input_pico=desks.INPUT_PICO,
        cache_read_pico=desks.INPUT_PICO,
        cache_write_5m_pico=desks.INPUT_PICO,
        cache_write_1h_pico=desks.INPUT_PICO,
        output_pico=desks.OUTPUT_PICO,
        reasoning_pico=desks.OUTPUT_PICO,
        valid_from=LONG_AGO,
        source="bench",
        recorded_by="bench",
    )
    payers = [Tenant.objects.create(slug=f"t{i}", name=f"T{i}") for i in range(tenants)]
    rebuild.rebuild_cold(client, now=now)
    epochs = dict(ShardEpoch.objects.values_list("shard", "epoch"))
    for payer in payers:
        credit.grant(tenant=payer, amount_pico=10**17, reason="bench", created_by="bench")
    now_ms = int(now.timestamp() * 1000)
    for number in range(events):
        payer = payers[number % tenants]
        desk = Desk(
            client=client,
            tenant=payer.pk,
            epoch=epochs[payer.shard],
            now_ms=now_ms,
            price=price.pk,
        )
        request_id = desks.request_id_at(now_ms)
        event = desk.event(request_id, supplier_pico=1_000_000)
        call = holds.settle_call(
            tenant=payer.pk,
            request_id=request_id,
            now_ms=now_ms,
            attempts=[holds.SettledAttempt(desks.encode(event), nano_ceil(event.tenant_cost_pico))],
            epoch=desk.epoch,
        )
        desks.run(client, call)


def drain(client: redis.Redis, *, now: datetime) -> Drained:
    return metering.drain_all(client, now=now)


def check(client: redis.Redis) -> bool:
    return invariants.check_all(client, now=datetime.now(UTC), since=LONG_AGO)
