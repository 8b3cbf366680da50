"""From an identity provider's claims to a person here, and from its groups to memberships.

A person is found by issuer and subject, never by mail address: whoever controls an address at the
provider must not become somebody who has an account here. Memberships that came from groups follow
the groups at every sign-in; those that were made here are left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.contrib.auth.models import User
from django.db import transaction

from billing import audit
from billing.models import Tenant
from gateway.kinds import Role
from gateway.models import GroupMapping, Identity, Member
from gateway.tenants.members import REMOVED

# Two groups may give different roles in one tenant: the greater one holds.
RANK: Final = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.ADMIN: 2, Role.OWNER: 3}
BY_SIGN_ON: Final = "single sign-on"
USERNAME_LENGTH_MAX: Final = 150
GROUPS_MAX: Final = 1_000


class IdentityRefused(ValueError):
    """The text says why this person does not get in."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What is read of what an identity provider says of a person. `name`: what the person would
    like to be called, or whatever else is known of them."""

    subject: str
    name: str
    email: str
    groups: frozenset[str]


def claims_in(said: Mapping[str, object], *, groups_claim: str) -> Claims:
    email = said.get("email")
    return Claims(
        subject=str(said["sub"]),
        name=str(said.get("preferred_username") or email or said["sub"]),
        email=email if isinstance(email, str) else "",
        groups=frozenset(_groups(said.get(groups_claim) or [])),
    )


def _groups(said: object) -> list[str]:
    """The groups in a claim, which providers send as a list or as one text."""
    listed = [said] if isinstance(said, str) else said
    if not isinstance(listed, list):
        return []
    return [group for group in listed[:GROUPS_MAX] if isinstance(group, str)]


def sign_in(*, issuer: str, claims: Claims, now: datetime) -> User:
    """The person behind these claims, with the memberships that the groups give."""
    with transaction.atomic():
        user = _person(issuer, claims)
        if not user.is_active:
            raise IdentityRefused("This account is closed.")
        _follow_groups(user, claims.groups, now)
    return user


def _person(issuer: str, claims: Claims) -> User:
    subject = claims.subject
    known = Identity.objects.select_related("user").filter(issuer=issuer, subject=subject).first()
    if known is not None:
        return known.user
    user = User(username=_free_name(claims.name), email=claims.email)
    user.set_unusable_password()
    user.save()
    Identity.objects.create(user=user, issuer=issuer, subject=subject)
    return user


def _free_name(wanted: str) -> str:
    allowed = "".join(letter for letter in wanted if letter.isalnum() or letter in "@.+-_")
    base = allowed[: USERNAME_LENGTH_MAX - 6] or "person"
    name, number = base, 1
    while User.objects.filter(username=name).exists():
        number += 1
        name = f"{base}-{number}"
    return name


def _follow_groups(user: User, groups: frozenset[str], now: datetime) -> None:
    wanted = _wanted(groups)
    mine = {
        member.tenant_id: member
        for member in Member.objects.select_related("tenant", "team").filter(user=user)
    }
    for tenant_id, mapping in wanted.items():
        member = mine.get(tenant_id)
        if member is None:
            _join(user, mapping, now)
        elif member.by_sign_on and (member.role, member.team_id) != (mapping.role, mapping.team_id):
            _change(member, mapping, now)
    for tenant_id, member in mine.items():
        if member.by_sign_on and tenant_id not in wanted:
            _leave(member, now)


def _wanted(groups: frozenset[str]) -> dict[int, GroupMapping]:
    """Per tenant the mapping that gives most."""
    found: dict[int, GroupMapping] = {}
    rows = GroupMapping.objects.select_related("tenant", "team").filter(group__in=groups)
    for mapping in rows.order_by("pk"):
        best = found.get(mapping.tenant_id)
        if best is None or RANK[Role(mapping.role)] > RANK[Role(best.role)]:
            found[mapping.tenant_id] = mapping
    return found


def _facts(role: str, team: Any) -> dict[str, str | None]:
    return {"role": str(role), "team": team.slug if team else None}


def _join(user: User, mapping: GroupMapping, now: datetime) -> None:
    Member.objects.create(
        user=user, tenant=mapping.tenant, team=mapping.team, role=mapping.role, by_sign_on=True
    )
    _record("member.join", user, mapping.tenant, now, after=_facts(mapping.role, mapping.team))


def _change(member: Member, mapping: GroupMapping, now: datetime) -> None:
    if member.role == Role.OWNER and mapping.role != Role.OWNER and _is_last_owner(member):
        return
    before = _facts(member.role, member.team)
    member.role, member.team = Role(mapping.role), mapping.team
    member.save(update_fields=["role", "team"])
    after = _facts(member.role, member.team)
    _record("member.change", member.user, member.tenant, now, before=before, after=after)


def _leave(member: Member, now: datetime) -> None:
    """Out of the group, out of the tenant; a tenant without an owner could not be managed."""
    if member.role == Role.OWNER and _is_last_owner(member):
        return
    before = _facts(member.role, member.team)
    member.delete()
    _record(REMOVED, member.user, member.tenant, now, before=before)


def _is_last_owner(member: Member) -> bool:
    owners = Member.objects.filter(tenant_id=member.tenant_id, role=Role.OWNER)
    return not owners.exclude(pk=member.pk).exists()


def _record(action: str, user: User, tenant: Tenant, now: datetime, **facts: Any) -> None:
    audit.record(
        actor=BY_SIGN_ON,
        action=action,
        subject=user.get_username(),
        tenant=tenant,
        now=now,
        **facts,
    )
