"""The demo seed: complete on the first run, silent on the second."""

import json
from io import StringIO

import pytest
import redis
from django.contrib.auth import authenticate
from django.core.management import call_command

from billing.credit import balances as credit
from billing.models import Tenant
from gateway.models import ApiKey, Member
from gateway.tenants import keys
from providers.machines import workers

pytestmark = pytest.mark.django_db


def _seed() -> str:
    out = StringIO()
    call_command("seed_demo", "--print-json", stdout=out)
    return out.getvalue()


def test_everything_that_is_printed_works(redis_client: redis.Redis) -> None:
    # when
    made = json.loads(_seed())

    # then
    assert set(made["api_keys"]) == {"Aurora Labs", "Borealis"}
    key = keys.find(made["api_key"])
    assert key is not None
    assert key.tenant.name == "Aurora Labs"
    assert workers.authenticate(made["worker_key"]) is not None
    for who in ("demo", "admin"):
        user = authenticate(username=made[f"{who}_user"], password=made[f"{who}_password"])
        assert user is not None
        assert user.is_superuser == (who == "admin")
    for tenant in Tenant.objects.all():
        assert credit.credit_pico(tenant) == 5 * 10**12


def test_a_second_run_makes_and_prints_nothing(redis_client: redis.Redis) -> None:
    # given
    _seed()
    before = (Tenant.objects.count(), ApiKey.objects.count(), Member.objects.count())

    # when
    printed = _seed()

    # then
    assert printed == ""
    assert (Tenant.objects.count(), ApiKey.objects.count(), Member.objects.count()) == before
