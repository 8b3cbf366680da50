"""Two demo tenants with people, teams, keys, credit and limits; an admin; a worker key.

Idempotent: what exists is left alone, and only what was newly made is returned, since passwords
and keys can be shown only once.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from django.contrib.auth.models import User
from django.db import transaction

from billing.credit import balances as credit
from billing.kinds import Window
from billing.limits import quotas
from billing.models import Quota, ScopeKind, Tenant
from billing.money import PICO_PER_USD
from gateway.kinds import Role
from gateway.models import ApiKey, Member, Team
from gateway.tenants import keys
from providers.machines import workers
from providers.models import WorkerKey

RECORDED_BY = "seed_demo"
CREDIT_PICO = 5 * PICO_PER_USD
TEAM_MONTH_PICO = 3 * PICO_PER_USD
REQUESTS_PER_MINUTE = 600
TOKENS_PER_MINUTE = 1_000_000
OPEN_REQUESTS = 64
LOCAL_NETWORK = "127.0.0.0/8"
KEY_NAME = "Demo key"


# By name: of what was made, its user's name, password or key; and the tenants' keys by theirs.
Made: TypeAlias = dict[str, str | dict[str, str]]


@dataclass(frozen=True, slots=True)
class Company:
    slug: str
    name: str
    teams: Sequence[tuple[str, str]]
    people: Sequence[tuple[str, str]] = field(default=())  # user name, role


COMPANIES = (
    Company(
        slug="aurora",
        name="Aurora Labs",
        teams=(("product", "Product"), ("research", "Research")),
        people=(("demo", Role.OWNER), ("aurora-dev", Role.DEVELOPER)),
    ),
    Company(
        slug="borealis",
        name="Borealis",
        teams=(("platform", "Platform"),),
        people=(("borealis", Role.OWNER),),
    ),
)


@transaction.atomic
def seed(*, now: datetime) -> Made:
    """Make what is missing; returns what can be shown only now."""
    made: Made = {}
    api_keys = {}
    for company in COMPANIES:
        tenant, teams = _tenant(company, now)
        made |= _people(company, tenant, teams)
        plain = _key(tenant, teams[0], now)
        if plain is not None:
            api_keys[company.name] = plain
    if api_keys:
        made |= {"api_key": next(iter(api_keys.values())), "api_keys": api_keys}
    return made | _admin() | _worker_key(now)


def _tenant(company: Company, now: datetime) -> tuple[Tenant, list[Team]]:
    tenant, is_new = Tenant.objects.get_or_create(
        slug=company.slug, defaults={"name": company.name}
    )
    teams = [
        Team.objects.get_or_create(tenant=tenant, slug=slug, defaults={"name": name})[0]
        for slug, name in company.teams
    ]
    if is_new:
        credit.grant(
            tenant=tenant, amount_pico=CREDIT_PICO, reason="Demo credit", created_by=RECORDED_BY
        )
        _limit(tenant, teams[0], now)
    return tenant, teams


def _limit(tenant: Tenant, team: Team, now: datetime) -> None:
    quotas.set_rate_limit(
        tenant=tenant,
        scope_kind=ScopeKind.TENANT,
        scope_id=tenant.pk,
        rpm=REQUESTS_PER_MINUTE,
        tpm=TOKENS_PER_MINUTE,
        concurrency=OPEN_REQUESTS,
        actor=RECORDED_BY,
        now=now,
    )
    # Written straight: nothing is spent yet, and at the first start Redis is still cold.
    Quota.objects.create(
        tenant=tenant,
        scope_kind=ScopeKind.TEAM,
        scope_id=str(team.pk),
        window=Window.MONTH,
        limit_pico=TEAM_MONTH_PICO,
    )


def _people(company: Company, tenant: Tenant, teams: Sequence[Team]) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, role in company.people:
        if User.objects.filter(username=name).exists():
            continue
        password = keys.random_text(16)
        user = User.objects.create_user(username=name, password=password)
        Member.objects.create(user=user, tenant=tenant, team=teams[0], role=role)
        if role == Role.OWNER:
            made |= {f"{name}_user": name, f"{name}_password": password}
    return made


def _key(tenant: Tenant, team: Team, now: datetime) -> str | None:
    if ApiKey.objects.filter(tenant=tenant, name=KEY_NAME).exists():
        return None
    issued = keys.issue(tenant=tenant, team=team, name=KEY_NAME, created_by=RECORDED_BY, now=now)
    return issued.plain


def _admin() -> dict[str, str]:
    if User.objects.filter(is_superuser=True).exists():
        return {}
    password = secrets.token_urlsafe(15)
    User.objects.create_superuser(username="admin", password=password)
    return {"admin_user": "admin", "admin_password": password}


def _worker_key(now: datetime) -> dict[str, str]:
    """The key of the workers that run beside the gateway; other machines need one of their own."""
    if WorkerKey.objects.exists():
        return {}
    _, plain = workers.issue_key(
        label="This machine", allowed_network=LOCAL_NETWORK, created_by=RECORDED_BY, now=now
    )
    return {"worker_key": plain}
