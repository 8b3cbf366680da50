"""Routing policies: a team's own wins, and none can be set that could not route."""

from datetime import UTC, datetime

import pytest

from gateway.models import RoutingPolicy
from gateway.routing.policies import PolicyKind
from gateway.tenants import policies
from gateway.tenants.policies import PolicyRefused
from tests.people import Person
from tests.providers.made_offers import make_offer

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def test_without_a_policy_the_cheapest_serves(alice: Person) -> None:
    assert policies.policy_of(alice.tenant, alice.team).kind == PolicyKind.CHEAPEST


def test_a_teams_policy_wins_over_the_tenants(alice: Person) -> None:
    # given
    policies.set_policy(tenant=alice.tenant, actor="alice", now=NOW, kind=PolicyKind.FASTEST)
    policies.set_policy(
        tenant=alice.tenant, actor="alice", now=NOW, team=alice.team, kind=PolicyKind.IN_HOUSE_FIRST
    )

    # when
    own = policies.policy_of(alice.tenant, alice.team).kind
    policies.reset_policy(tenant=alice.tenant, team=alice.team, actor="alice", now=NOW)

    # then
    assert own == PolicyKind.IN_HOUSE_FIRST
    assert policies.policy_of(alice.tenant, alice.team).kind == PolicyKind.FASTEST


def test_setting_a_policy_replaces_all_of_it(alice: Person) -> None:
    # given
    make_offer("acme/small")
    policies.set_policy(
        tenant=alice.tenant,
        actor="alice",
        now=NOW,
        kind=PolicyKind.PINNED,
        pinned_skus=["acme/small"],
        max_output_pico=5,
    )

    # when
    policy = policies.set_policy(
        tenant=alice.tenant, actor="alice", now=NOW, kind=PolicyKind.CHEAPEST
    )

    # then
    assert RoutingPolicy.objects.count() == 1
    assert (policy.pinned_skus, policy.max_output_pico) == ([], None)


@pytest.mark.parametrize(
    "terms",
    [
        {"kind": "best"},
        {"kind": PolicyKind.PINNED},
        {"kind": PolicyKind.PINNED, "pinned_skus": ["acme/none"]},
        {"providers_allowed": ["nobody"]},
        {"max_input_pico": -1},
    ],
)
def test_a_policy_that_could_not_route_is_refused(alice: Person, terms: dict[str, object]) -> None:
    with pytest.raises(PolicyRefused):
        policies.set_policy(tenant=alice.tenant, actor="alice", now=NOW, **terms)  # type: ignore[arg-type]
    assert not RoutingPolicy.objects.exists()


def test_a_team_of_another_tenant_is_refused(alice: Person, charlie: Person) -> None:
    with pytest.raises(PolicyRefused, match="another tenant"):
        policies.set_policy(
            tenant=alice.tenant, actor="alice", now=NOW, team=charlie.team, kind=PolicyKind.FASTEST
        )
