"""One tenant with more credit than a bench can spend, one key, and the mock attached as a pool.

Made through the services that an operator's pages use.
"""

from decimal import Decimal
from typing import Final

from django.utils import timezone

from billing.credit import balances as credit
from billing.models import Tenant
from gateway.runtime import services
from gateway.tenants import keys
from providers.machines import pools

CREDIT_PICO: Final = 1_000_000 * 10**12


def make(*, upstream_port: int) -> dict[str, object]:
    """Returns key and tenant, and the very command with which `make up` starts a data plane."""
    now = timezone.now()
    tenant = Tenant.objects.create(slug="bench", name="Bench")
    credit.grant(tenant=tenant, amount_pico=CREDIT_PICO, reason="bench", created_by="bench")
    issued = keys.issue(tenant=tenant, name="bench", created_by="bench", now=now)
    pools.attach(
        name="bench",
        base_url=f"http://127.0.0.1:{upstream_port}/v1",
        bearer="",
        terms=pools.Terms(input_usd=Decimal("0.15"), output_usd=Decimal("0.60")),
        recorded_by="bench",
        now=now,
    )
    program = services.data_plane().program
    return {
        "api_key": issued.plain,
        "tenant": tenant.pk,
        "command": list(program.command),
        "settings_module": program.environment["DJANGO_SETTINGS_MODULE"],
    }
