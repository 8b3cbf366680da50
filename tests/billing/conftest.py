"""Fixtures of the money tests."""

import pytest
import redis

from tests.billing import desk as desks
from tests.billing.desk import Desk

CREDIT_NANO = 10_000


@pytest.fixture
def desk(redis_client: redis.Redis) -> Desk:
    """A tenant with 10,000 nano-dollars of credit on a warm shard."""
    desks.warm(redis_client, tenant=71, credit_nano=CREDIT_NANO)
    return Desk(client=redis_client)
