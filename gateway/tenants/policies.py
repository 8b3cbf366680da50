"""Routing policies: how a tenant's or a team's requests choose among offers.

A team's own policy wins over the tenant's; without either, the cheapest offer serves.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict, Unpack

from django.db import transaction

from billing import audit
from billing.models import Tenant
from gateway.models import RoutingPolicy, Team
from gateway.routing.policies import PolicyKind
from providers.models import Offer, Provider

PINNED_MAX = 20
PROVIDERS_MAX = 100


class PolicyRefused(ValueError):
    """A policy that could not route anything as meant; the text is for the person who set it."""


class PolicyTerms(TypedDict, total=False):
    """What a policy says; what is left out has its default. Ceilings are pico-dollars per token."""

    kind: str
    pinned_skus: Sequence[str]
    providers_allowed: Sequence[str]
    max_input_pico: int | None
    max_output_pico: int | None
    allow_fallbacks: bool


def policy_of(tenant: Tenant, team: Team | None = None) -> RoutingPolicy:
    """The policy in force, unsaved defaults where nobody set one."""
    own = RoutingPolicy.objects.filter(tenant=tenant, team=team).first()
    if own is None and team is not None:
        own = RoutingPolicy.objects.filter(tenant=tenant, team=None).first()
    return own or RoutingPolicy(tenant=tenant, team=team)


@transaction.atomic
def set_policy(
    *,
    tenant: Tenant,
    actor: str,
    now: datetime,
    team: Team | None = None,
    **terms: Unpack[PolicyTerms],
) -> RoutingPolicy:
    """Replace the policy of a tenant (team None) or of one of its teams."""
    policy = RoutingPolicy.objects.filter(tenant=tenant, team=team).first()
    before = _facts(policy) if policy else None
    policy = policy or RoutingPolicy(tenant=tenant, team=team)
    policy.kind = terms.get("kind", PolicyKind.CHEAPEST.value)
    policy.pinned_skus = list(terms.get("pinned_skus", ()))
    policy.providers_allowed = list(terms.get("providers_allowed", ()))
    policy.max_input_pico = terms.get("max_input_pico")
    policy.max_output_pico = terms.get("max_output_pico")
    policy.allow_fallbacks = terms.get("allow_fallbacks", True)
    _check(policy)
    policy.save()
    _record(tenant, team, actor, now, before=before, after=_facts(policy))
    return policy


@transaction.atomic
def reset_policy(*, tenant: Tenant, team: Team | None, actor: str, now: datetime) -> None:
    """Back to the tenant's policy for a team, to the cheapest offer for a tenant."""
    standing = RoutingPolicy.objects.filter(tenant=tenant, team=team).first()
    if standing is None:
        return
    _record(tenant, team, actor, now, before=_facts(standing), after=None)
    standing.delete()


def _record(
    tenant: Tenant,
    team: Team | None,
    actor: str,
    now: datetime,
    *,
    before: PolicyTerms | None,
    after: PolicyTerms | None,
) -> None:
    audit.record(
        actor=actor,
        action="policy.set",
        subject=f"team {team.slug}" if team else tenant.slug,
        tenant=tenant,
        before=before,
        after=after,
        now=now,
    )


def _facts(policy: RoutingPolicy) -> PolicyTerms:
    return {
        "kind": policy.kind,
        "pinned_skus": policy.pinned_skus,
        "providers_allowed": policy.providers_allowed,
        "max_input_pico": policy.max_input_pico,
        "max_output_pico": policy.max_output_pico,
        "allow_fallbacks": policy.allow_fallbacks,
    }


def _check(policy: RoutingPolicy) -> None:
    if policy.team is not None and policy.team.tenant_id != policy.tenant_id:
        raise PolicyRefused("the team belongs to another tenant")
    if policy.kind not in PolicyKind.values():
        raise PolicyRefused(f"a policy is one of {', '.join(PolicyKind.values())}")
    if policy.kind == PolicyKind.PINNED and not policy.pinned_skus:
        raise PolicyRefused("a pinned policy names at least one offer")
    _check_known("offers", policy.pinned_skus, PINNED_MAX, _skus(policy.pinned_skus))
    known = set(Provider.objects.values_list("slug", flat=True))
    _check_known("providers", policy.providers_allowed, PROVIDERS_MAX, known)
    for ceiling in (policy.max_input_pico, policy.max_output_pico):
        if ceiling is not None and not 0 <= ceiling < 2**63:
            raise PolicyRefused("a price ceiling is not negative")


def _skus(wanted: Sequence[str]) -> set[str]:
    return set(Offer.objects.filter(sku__in=wanted).values_list("sku", flat=True))


def _check_known(what: str, wanted: Sequence[str], most: int, known: set[str]) -> None:
    if len(wanted) > most:
        raise PolicyRefused(f"at most {most} {what} can be named")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise PolicyRefused(f"unknown {what}: {', '.join(unknown[:5])}")
