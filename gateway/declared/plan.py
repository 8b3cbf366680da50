"""What a declarative file would change, and changing it. Applied twice, the second plan is empty.

A plan is a list of changes in an order in which they can be made. Each is made by the service that
owns it, in a transaction of its own: after a failure, applying again goes on where it stopped.
Nothing that the file does not name is touched.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import transaction

from billing import audit
from billing.credit import balances as credit
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import Quota, RateLimit, Tenant
from billing.money import usd_json
from billing.operations import rebuild
from billing.redis.connection import connection
from gateway.declared import price_plans
from gateway.declared.change import Change, Run
from gateway.declared.document import (
    DeclaredGroup,
    DeclaredKey,
    DeclaredPolicy,
    DeclaredQuota,
    DeclaredRateLimit,
    DeclaredTeam,
    DeclaredTenant,
    Document,
    DocumentRefused,
    sum_of,
)
from gateway.models import ApiKey, GroupMapping, RoutingPolicy, Team
from gateway.tenants import keys, policies, teams
from gateway.tenants.policies import PolicyTerms


def plan(document: Document, *, now: datetime) -> list[Change]:
    """Every difference between the file and what is there."""
    return [change for tenant in document.tenants for change in _tenant(tenant, now)]


def apply(changes: list[Change], run: Run) -> None:
    """Make the changes, in order."""
    for change in changes:
        change.make(run)


def _tenant(declared: DeclaredTenant, now: datetime) -> Iterator[Change]:
    there = Tenant.objects.filter(slug=declared.slug).first()
    limit = sum_of(declared.credit_limit_usd, declared.slug)
    after = _facts(name=declared.name, credit_limit_usd=_usd(limit))
    before = (
        _facts(name=there.name, credit_limit_usd=_usd(int(there.credit_limit_pico)))
        if there
        else ""
    )
    if before != after:
        yield Change(
            f"tenant {declared.slug}", before, after, lambda run: _make_tenant(declared, limit, run)
        )
    yield from price_plans.changes(declared, there, now)
    for team in declared.teams:
        yield from _team(declared.slug, there, team)
    for quota in declared.quotas:
        yield from _quota(declared.slug, there, quota)
    for limits in declared.rate_limits:
        yield from _rate_limit(declared.slug, there, limits)
    if declared.policy is not None:
        yield from _policy(declared.slug, there, declared.policy)
    for group in declared.groups:
        yield from _group(declared.slug, there, group)
    for key in declared.keys:
        yield from _key(declared.slug, there, key)


def _make_tenant(declared: DeclaredTenant, limit_pico: int, run: Run) -> None:
    with transaction.atomic():
        tenant, _ = Tenant.objects.update_or_create(
            slug=declared.slug, defaults={"name": declared.name}
        )
        audit.record(
            actor=run.actor,
            action="tenant.set",
            subject=declared.slug,
            tenant=tenant,
            after={"name": declared.name},
            now=run.now,
        )
        credit.change_terms(
            tenant=tenant, actor=run.actor, now=run.now, credit_limit_pico=limit_pico
        )
    # A new tenant's shard may have no registers yet, and a cap needs one.
    rebuild.rebuild_cold(connection(), now=run.now)


def _team(slug: str, there: Tenant | None, declared: DeclaredTeam) -> Iterator[Change]:
    team = Team.objects.filter(tenant=there, slug=declared.slug).first() if there else None
    wanted = {"name": declared.name}
    if declared.cost_centre is not None:
        wanted["cost_centre"] = declared.cost_centre
    standing = {name: getattr(team, name) for name in wanted} if team else {}
    if standing != wanted:

        def make(run: Run) -> None:
            facts = {"slug": declared.slug, **wanted}
            teams.write(tenant=_there(slug), facts=facts, actor=run.actor, now=run.now)

        was, will_be = (", ".join(filter(None, each.values())) for each in (standing, wanted))
        yield Change(f"{slug}, team {declared.slug}", was, will_be, make)


def _scope(tenant: Tenant, scope: str) -> tuple[str, str]:
    """The kind and id behind a scope's words."""
    kind, _, name = scope.partition(" ")
    if kind in ("tenant", "session") and not name:
        return kind, str(tenant.pk)
    if kind == "team" and name:
        team = Team.objects.filter(tenant=tenant, slug=name).first()
        return kind, str(team.pk) if team else ""
    if kind in ("model", "provider") and name:
        return kind, name
    raise DocumentRefused(
        f"{tenant.slug}: {scope!r} is none of tenant, session, team …, model …, provider …"
    )


def _quota(slug: str, there: Tenant | None, declared: DeclaredQuota) -> Iterator[Change]:
    limit = sum_of(declared.limit_usd, slug)
    quota = None
    if there is not None:
        kind, scope_id = _scope(there, declared.scope)
        quota = Quota.objects.filter(
            tenant=there, scope_kind=kind, scope_id=scope_id, window=declared.window
        ).first()
    after = _facts(limit_usd=_usd(limit), shadow=declared.shadow)
    before = _facts(limit_usd=_usd(int(quota.limit_pico)), shadow=quota.shadow) if quota else ""
    if before != after:

        def make(run: Run) -> None:
            tenant = _there(slug)
            kind, scope_id = _scope(tenant, declared.scope)
            cap = Cap(
                scope_kind=kind,
                scope_id=scope_id,
                window=declared.window,
                limit_pico=limit,
                shadow=declared.shadow,
            )
            quotas.set_quota(tenant=tenant, cap=cap, actor=run.actor, now=run.now)

        subject = f"{slug}, quota of {declared.scope} per {declared.window}"
        yield Change(subject, before, after, make)


def _rate_limit(slug: str, there: Tenant | None, declared: DeclaredRateLimit) -> Iterator[Change]:
    wanted = {"rpm": declared.rpm, "tpm": declared.tpm, "concurrency": declared.concurrency}
    known: dict[str, int | None] = {}
    if there is not None:
        kind, scope_id = _rated_scope(there, declared.scope)
        found = RateLimit.objects.filter(scope_kind=kind, scope_id=scope_id or 0)
        known = found.values(*wanted).first() or {}
    before = _facts(**known) if known else ""
    after = _facts(**wanted)
    if before != after:

        def make(run: Run) -> None:
            tenant = _there(slug)
            kind, scope_id = _rated_scope(tenant, declared.scope)
            quotas.set_rate_limit(
                tenant=tenant,
                scope_kind=kind,
                scope_id=int(scope_id),
                actor=run.actor,
                now=run.now,
                rpm=declared.rpm,
                tpm=declared.tpm,
                concurrency=declared.concurrency,
            )

        yield Change(f"{slug}, rate limit of {declared.scope}", before, after, make)


def _rated_scope(tenant: Tenant, scope: str) -> tuple[str, str]:
    kind, scope_id = _scope(tenant, scope)
    if kind not in ("tenant", "team"):
        raise DocumentRefused(f"{tenant.slug}: rates are limited per tenant or team, not {scope}")
    return kind, scope_id


def _policy(slug: str, there: Tenant | None, declared: DeclaredPolicy) -> Iterator[Change]:
    wanted: PolicyTerms = {
        "kind": declared.kind,
        "pinned_skus": list(declared.pinned_skus),
        "providers_allowed": list(declared.providers_allowed),
        "allow_fallbacks": declared.allow_fallbacks,
    }
    found = RoutingPolicy.objects.filter(tenant=there, team=None) if there else None
    known = found.values(*wanted).first() if found is not None else None
    if known != wanted:
        yield Change(
            f"{slug}, routing policy",
            _facts(**known) if known else "",
            _facts(**wanted),
            lambda run: _set_policy(slug, wanted, run),
        )


def _set_policy(slug: str, terms: PolicyTerms, run: Run) -> None:
    policies.set_policy(tenant=_there(slug), actor=run.actor, now=run.now, **terms)


def _group(slug: str, there: Tenant | None, declared: DeclaredGroup) -> Iterator[Change]:
    found = GroupMapping.objects.select_related("team").filter(tenant=there, group=declared.group)
    mapping = found.first() if there else None
    after = _facts(role=declared.role, team=declared.team)
    before = (
        _facts(role=mapping.role, team=mapping.team.slug if mapping.team else None)
        if mapping
        else ""
    )
    if before != after:

        def make(run: Run) -> None:
            tenant = _there(slug)
            facts = {"role": declared.role, "team": _team_of(tenant, declared.team)}
            with transaction.atomic():
                GroupMapping.objects.update_or_create(
                    tenant=tenant, group=declared.group, defaults=facts
                )
                audit.record(
                    actor=run.actor,
                    action="group.set",
                    subject=declared.group,
                    tenant=tenant,
                    after={"role": declared.role, "team": declared.team},
                    now=run.now,
                )

        yield Change(f"{slug}, group {declared.group}", before, after, make)


def _key(slug: str, there: Tenant | None, declared: DeclaredKey) -> Iterator[Change]:
    """A key's terms never change: another name makes another key."""
    live = ApiKey.objects.filter(tenant=there, name=declared.name, revoked_at=None)
    if there is None or not live.exists():

        def make(run: Run) -> None:
            tenant = _there(slug)
            issued = keys.issue(
                tenant=tenant,
                team=_team_of(tenant, declared.team),
                name=declared.name,
                scopes=declared.scopes,
                models_allowed=declared.models,
                created_by=run.actor,
                now=run.now,
            )
            run.secrets[f"{slug}/{declared.name}"] = issued.plain

        terms = _facts(team=declared.team, scopes=", ".join(declared.scopes))
        yield Change(f"{slug}, key {declared.name}", "", terms, make)


def _there(slug: str) -> Tenant:
    return Tenant.objects.get(slug=slug)


def _team_of(tenant: Tenant, slug: str | None) -> Team | None:
    return Team.objects.get(tenant=tenant, slug=slug) if slug else None


def _facts(**facts: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


def _usd(pico: int) -> str:
    return usd_json(pico).decode()
