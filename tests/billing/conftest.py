"""Fixtures of the money tests: a desk on Redis alone, and books with Postgres behind it."""

from datetime import UTC, datetime

import pytest
import redis

from billing.credit import balances as credit
from billing.models import Tenant
from tests.billing import desk as desks
from tests.billing.desk import Desk
from tests.billing.open_books import Books, opened, publish

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
    price = publish(MARCH)
    credit.grant(tenant=tenant, amount_pico=10**12, reason="start", created_by="test")
    return opened(redis_client, tenant, price)
