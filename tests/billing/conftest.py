"""Fixtures of the money tests: a desk on Redis alone, and books with Postgres behind it."""

from datetime import UTC, datetime

import pytest
import redis

from billing import credit, prices, rebuild, registers
from billing.models import ShardEpoch, Tenant
from tests.billing import desk as desks
from tests.billing.books import Books
from tests.billing.desk import Desk

CREDIT_NANO = 10_000
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def desk(redis_client: redis.Redis) -> Desk:
    """A tenant with 10,000 nano-dollars of credit on a warm shard."""
    desks.warm(redis_client, tenant=71, credit_nano=CREDIT_NANO)
    return Desk(client=redis_client)


@pytest.fixture
def books(redis_client: redis.Redis, transactional_db: None) -> Books:
    """A tenant with $1 of credit, a price, and a shard that was rebuilt from Postgres."""
    tenant = Tenant.objects.create(slug="aurora", name="Aurora")
    price = prices.publish(
        sku_code="acme/swift-1",
        input_pico=desks.INPUT_PICO,
        cache_read_pico=desks.INPUT_PICO // 10,
        cache_write_5m_pico=desks.INPUT_PICO,
        cache_write_1h_pico=desks.INPUT_PICO,
        output_pico=desks.OUTPUT_PICO,
        reasoning_pico=desks.OUTPUT_PICO,
        valid_from=MARCH,
        source="test",
        recorded_by="test",
    )
    credit.grant(tenant=tenant, amount_pico=10**12, reason="start", created_by="test")
    shard = registers.shard_of(tenant.pk)
    rebuild.rebuild(redis_client, shard, now=desks.at(desks.NOON_MS))
    desk = Desk(
        client=redis_client,
        tenant=tenant.pk,
        epoch=ShardEpoch.objects.get(shard=shard).epoch,
        price=price.pk,
    )
    return Books(desk=desk, tenant=tenant, price=price)
