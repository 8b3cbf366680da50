"""Three standing people, each with a tenant of their own: Alice owns, Bob works beside her,
Charlie is an outsider whose requests for Alice's things must find nothing.
"""

from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User

from billing.models import Tenant
from gateway.kinds import Role
from gateway.models import Member, Team


@dataclass(frozen=True, slots=True)
class Person:
    user: User
    tenant: Tenant
    team: Team
    member: Member


def owner(name: str, company: str) -> Person:
    tenant = Tenant.objects.create(slug=company.lower(), name=company)
    team = Team.objects.create(tenant=tenant, slug="main", name="Main")
    return _join(name, tenant, team, Role.OWNER)


def _join(name: str, tenant: Tenant, team: Team, role: Role) -> Person:
    user = User.objects.create_user(
        username=name, email=f"{name}@example.org", password="correct horse"
    )
    member = Member.objects.create(user=user, tenant=tenant, team=team, role=role)
    return Person(user=user, tenant=tenant, team=team, member=member)


@pytest.fixture
def alice(db: None) -> Person:
    return owner("alice", "Aurora")


@pytest.fixture
def bob(alice: Person) -> Person:
    return _join("bob", alice.tenant, alice.team, Role.DEVELOPER)


@pytest.fixture
def charlie(db: None) -> Person:
    return owner("charlie", "Cassini")
