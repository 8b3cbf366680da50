"""The house of the drain's bench: tenants with credit and caps, and a market of priced offers."""

from datetime import UTC, datetime
from typing import Final

import redis
from django.core.management import call_command

from bench.drain.stream import KEYS_PER_TENANT, Market
from billing.credit import balances as credit
from billing.kinds import Window
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import Tenant
from billing.operations import rebuild
from billing.prices import versions as prices
from tests.providers.made_offers import make_offer

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
SUPPLIERS: Final = 6
MODELS: Final = 10
LONG_CONTEXT: Final = 8_000


def prepare(client: redis.Redis, *, tenants: int) -> Market:
    """Prices of 0.05 to 3 $/M, some of them finer than a nano-dollar per token."""
    call_command("migrate", verbosity=0)
    now = datetime.now(UTC)
    offers = {}
    for number in range(SUPPLIERS * MODELS):
        sku = f"supplier-{number % SUPPLIERS}/model-{number // SUPPLIERS}"
        for context_over in (0, LONG_CONTEXT):
            _publish(sku, 50_000 * (number + 1) + 37 * (number % 5), context_over)
        offers[sku] = make_offer(sku, model=sku.partition("/")[2]).pk
    market = prices.in_force(now)
    payers = [Tenant.objects.create(slug=f"t{i}", name=f"T{i}") for i in range(tenants)]
    rebuild.rebuild_cold(client, now=now)
    for payer in payers:
        credit.grant(tenant=payer, amount_pico=10**18, reason="bench", created_by="bench")
        for key in range(payer.pk * 100 + 1, payer.pk * 100 + KEYS_PER_TENANT, 2):
            quotas.set_quota(
                tenant=payer,
                cap=Cap(
                    scope_kind="key",
                    scope_id=str(key),
                    window=Window.DAY,
                    limit_pico=10**18,
                ),
                actor="bench",
                now=now,
                client=client,
            )
    return Market(tenants=tuple(payer.pk for payer in payers), prices=market, offers=offers)


def _publish(sku: str, input_pico: int, context_over: int) -> None:
    dearer = 2 if context_over else 1
    prices.publish(
        sku_code=sku,
        input_pico=input_pico * dearer,
        cache_read_pico=input_pico * dearer // 10,
        cache_write_5m_pico=input_pico * dearer,
        cache_write_1h_pico=input_pico * dearer,
        output_pico=4 * input_pico * dearer,
        reasoning_pico=4 * input_pico * dearer,
        valid_from=LONG_AGO,
        source="bench",
        recorded_by="bench",
        context_over=context_over,
    )
