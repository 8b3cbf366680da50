"""Makes tenants as an operator would in the admin console, inside a running installation.

Run by `manage.py shell`; a JSON list of what is wanted in, a list of what was made out.
"""

import json
import sys
from typing import Any

from django.utils import timezone

from billing.credit import balances
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import Tenant
from billing.redis.connection import connection
from gateway.models import Team
from gateway.tenants import keys


def main() -> None:
    made = [
        grant(asked) if "grant_pico" in asked else found(asked) for asked in json.load(sys.stdin)
    ]
    # Or the jobs tell Redis of a tenant without a grant while somebody compares its registers.
    balances.push_stale(connection(), tenants=[each["tenant"] for each in made if "tenant" in each])
    sys.stdout.write(json.dumps(made) + "\n")


def found(asked: dict[str, Any]) -> dict[str, Any]:
    """A tenant with a team, credit, caps, rate limits, and a key for calls and for managing."""
    now = timezone.now()
    tenant = Tenant.objects.create(slug=asked["slug"], name=asked["slug"].title())
    team = Team.objects.create(tenant=tenant, slug="main", name="Main")
    if asked["credit_pico"]:
        balances.grant(
            tenant=tenant, amount_pico=asked["credit_pico"], reason="story", created_by="story"
        )
    issued = keys.issue(
        tenant=tenant,
        team=team,
        name="story",
        created_by="story",
        now=now,
        scopes=(keys.INFERENCE, keys.MANAGEMENT),
    )
    scopes = {"tenant": tenant.pk, "team": team.pk, "key": issued.key.pk}
    for kind, window, limit_pico in asked["quotas"]:
        quotas.set_quota(
            tenant=tenant,
            cap=Cap(
                scope_kind=kind,
                scope_id=str(scopes.get(kind, kind)),
                window=window,
                limit_pico=limit_pico,
            ),
            actor="story",
            now=now,
        )
    for kind, limits in asked["rates"].items():
        quotas.set_rate_limit(
            tenant=tenant, scope_kind=kind, scope_id=scopes[kind], actor="story", now=now, **limits
        )
    return {
        "tenant": tenant.pk,
        "slug": tenant.slug,
        "team": team.pk,
        "key_id": issued.key.pk,
        "key": issued.plain,
    }


def grant(asked: dict[str, Any]) -> dict[str, Any]:
    tenant = Tenant.objects.get(pk=asked["tenant"])
    made = balances.grant(
        tenant=tenant, amount_pico=asked["grant_pico"], reason="story", created_by="story"
    )
    return {"id": made.pk}
