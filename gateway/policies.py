"""Routing policies: how a tenant's or a team's requests choose among offers.

A team's own policy wins over the tenant's; without either, the cheapest offer serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from billing.models import Tenant
from gateway.models import RoutingPolicy, Team
from gateway.snapshot_signal import bump
from providers.models import Offer, Provider

PINNED_MAX = 20
PROVIDERS_MAX = 100
Kind = RoutingPolicy.Kind


class PolicyRefused(ValueError):
    """A policy that could not route anything as meant; the text is for the person who set it."""


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """What a policy says. Ceilings are pico-dollars per token; None means none."""

    kind: str = Kind.CHEAPEST
    pinned_skus: Sequence[str] = ()
    providers_allowed: Sequence[str] = ()
    max_input_pico: int | None = None
    max_output_pico: int | None = None
    allow_fallbacks: bool = True


def policy_of(tenant: Tenant, team: Team | None = None) -> RoutingPolicy:
    """The policy in force, unsaved defaults where nobody set one."""
    own = RoutingPolicy.objects.filter(tenant=tenant, team=team).first()
    if own is None and team is not None:
        own = RoutingPolicy.objects.filter(tenant=tenant, team=None).first()
    return own or RoutingPolicy(tenant=tenant, team=team)


@transaction.atomic
def set_policy(*, tenant: Tenant, team: Team | None, terms: PolicyTerms) -> RoutingPolicy:
    """Replace the policy of a tenant (team None) or of one of its teams."""
    _check(tenant, team, terms)
    policy, _ = RoutingPolicy.objects.update_or_create(
        tenant=tenant,
        team=team,
        defaults={
            "kind": terms.kind,
            "pinned_skus": list(terms.pinned_skus),
            "providers_allowed": list(terms.providers_allowed),
            "max_input_pico": terms.max_input_pico,
            "max_output_pico": terms.max_output_pico,
            "allow_fallbacks": terms.allow_fallbacks,
        },
    )
    bump()
    return policy


def reset_policy(*, tenant: Tenant, team: Team | None) -> None:
    """Back to the tenant's policy for a team, to the cheapest offer for a tenant."""
    RoutingPolicy.objects.filter(tenant=tenant, team=team).delete()
    bump()


def _check(tenant: Tenant, team: Team | None, terms: PolicyTerms) -> None:
    if team is not None and team.tenant_id != tenant.pk:
        raise PolicyRefused("the team belongs to another tenant")
    if terms.kind not in Kind.values:
        raise PolicyRefused(f"a policy is one of {', '.join(Kind.values)}")
    if terms.kind == Kind.PINNED and not terms.pinned_skus:
        raise PolicyRefused("a pinned policy names at least one offer")
    _check_known("offers", terms.pinned_skus, PINNED_MAX, _skus(terms.pinned_skus))
    known = set(Provider.objects.values_list("slug", flat=True))
    _check_known("providers", terms.providers_allowed, PROVIDERS_MAX, known)
    for ceiling in (terms.max_input_pico, terms.max_output_pico):
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
