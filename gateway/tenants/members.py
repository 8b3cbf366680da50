"""Who belongs to a tenant: invitations, roles, and leaving. Each change is in the audit log.

A tenant always keeps an owner, and only an owner makes or unmakes one. An invitation's secret is
shown once and kept as a hash; it is good for one person, once, for a week.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q

from billing import audit
from billing.models import AuditEntry, MadeKey, Tenant
from gateway.kinds import Role
from gateway.models import ApiKey, Invitation, Member, Team

INVITATION_LASTS: Final = timedelta(days=7)
INVITATIONS_OPEN_MAX: Final = 200
TOKEN_BYTES: Final = 32
REMOVED: Final = "member.remove"


class MemberRefused(ValueError):
    """The text says to the person what cannot be done, and why."""


@dataclass(frozen=True, slots=True)
class Invited:
    invitation: Invitation
    token: str


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def invite(*, by: Member, email: str, role: str, team: Team | None, now: datetime) -> Invited:
    """Invite somebody; the token is in the result and nowhere else. An open one is replaced."""
    _check_may_make(by, role)
    _check_team(by.tenant, team)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=by.tenant_id)
        still_open = Invitation.objects.filter(
            tenant=by.tenant, accepted_at=None, expires_at__gt=now
        )
        still_open.filter(email__iexact=email).delete()
        if still_open.count() >= INVITATIONS_OPEN_MAX:
            raise MemberRefused("too many invitations are open: withdraw some first")
        invitation = Invitation.objects.create(
            tenant=by.tenant,
            email=email,
            role=role,
            team=team,
            token_hash=hash_of(token),
            created_by=by.user.get_username(),
            expires_at=now + INVITATION_LASTS,
        )
        audit.record(
            actor=by.user.get_username(),
            action="member.invite",
            subject=email,
            tenant=by.tenant,
            after={"role": role, "team": team.slug if team else None},
            now=now,
        )
    return Invited(invitation, token)


def open_invitation(token: str, *, now: datetime) -> Invitation | None:
    """The invitation behind a token, if it can still be accepted."""
    found = Invitation.objects.select_related("tenant", "team").filter(token_hash=hash_of(token))
    return found.filter(accepted_at=None, expires_at__gt=now).first()


def accept(*, token: str, user: User, now: datetime) -> Member:
    """Join the tenant that invited; a token works once."""
    with transaction.atomic():
        invitation = (
            Invitation.objects.select_for_update().filter(token_hash=hash_of(token)).first()
        )
        if invitation is None or invitation.accepted_at or invitation.expires_at <= now:
            raise MemberRefused("this invitation was used, withdrawn, or has expired")
        if Member.objects.filter(tenant=invitation.tenant, user=user).exists():
            raise MemberRefused("you belong to this tenant already")
        member = Member.objects.create(
            user=user, tenant=invitation.tenant, team=invitation.team, role=invitation.role
        )
        invitation.accepted_at = now
        invitation.save(update_fields=["accepted_at"])
        audit.record(
            actor=user.get_username(),
            action="member.join",
            subject=user.get_username(),
            tenant=invitation.tenant,
            after=_facts(member),
            reason=f"invited by {invitation.created_by} as {invitation.email}",
            now=now,
        )
    return member


def withdraw(*, by: Member, invitation_id: int, now: datetime) -> None:
    """Take an open invitation back."""
    with transaction.atomic():
        invitation = Invitation.objects.filter(
            tenant=by.tenant, pk=invitation_id, accepted_at=None
        ).first()
        if invitation is None:
            raise MemberRefused("there is no such open invitation")
        invitation.delete()
        audit.record(
            actor=by.user.get_username(),
            action="member.withdraw",
            subject=invitation.email,
            tenant=by.tenant,
            before={"role": invitation.role},
            now=now,
        )


def change(
    *,
    tenant: Tenant,
    by: str,
    by_role: str,
    member_id: int,
    role: str,
    team: Team | None,
    now: datetime,
) -> Member:
    """Give a member another role or team."""
    _check_team(tenant, team)
    with transaction.atomic():
        member = _locked(tenant, member_id)
        before = _facts(member)
        if Role.OWNER in (member.role, role) and member.role != role and by_role != Role.OWNER:
            raise MemberRefused("only an owner makes or unmakes an owner")
        if member.role == Role.OWNER and role != Role.OWNER:
            _check_not_last_owner(tenant, member)
        member.role, member.team = Role(role), team
        member.save(update_fields=["role", "team"])
        audit.record(
            actor=by,
            action="member.change",
            subject=member.user.get_username(),
            tenant=tenant,
            before=before,
            after=_facts(member),
            now=now,
        )
    return member


def keys_left(tenant: Tenant, *, now: datetime, of: str | None = None) -> list[ApiKey]:
    """Live keys of people who have left, or `of` one of them, and what these keys made: they go on
    until revoked."""
    left = AuditEntry.objects.filter(tenant=tenant, action=REMOVED)
    removed = (left if of is None else left.filter(subject=of)).values("subject")
    still = Member.objects.filter(tenant=tenant).values("user__username")
    live = ApiKey.objects.filter(tenant=tenant, revoked_at=None).exclude(expires_at__lte=now)
    of_people = Q(created_by__in=removed) & ~Q(created_by__in=still)
    made = ApiKey.objects.filter(of_people, tenant=tenant).values("pk")
    lines = MadeKey.objects.filter(tenant=tenant, maker_id__in=made).values("api_key_id")
    found = live.filter(of_people | Q(pk__in=lines)).select_related("team")
    return list(found.order_by("created_by", "name", "pk"))


def remove(*, tenant: Tenant, by: str, by_role: str, member_id: int, now: datetime) -> None:
    """End a membership. The person's keys stay: they belong to the tenant."""
    with transaction.atomic():
        member = _locked(tenant, member_id)
        if member.role == Role.OWNER:
            if by_role != Role.OWNER:
                raise MemberRefused("only an owner makes or unmakes an owner")
            _check_not_last_owner(tenant, member)
        before, name = _facts(member), member.user.get_username()
        member.delete()
        audit.record(actor=by, action=REMOVED, subject=name, tenant=tenant, before=before, now=now)


def _locked(tenant: Tenant, member_id: int) -> Member:
    """The member under its tenant's lock, so that two owners cannot unmake each other at once."""
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    found = Member.objects.select_related("user", "team").filter(tenant=tenant, pk=member_id)
    member = found.first()
    if member is None:
        raise MemberRefused("there is no such member")
    return member


def _check_may_make(by: Member, role: str) -> None:
    if role not in Role.values():
        raise MemberRefused(f"roles are {', '.join(Role.values())}")
    if role == Role.OWNER and by.role != Role.OWNER:
        raise MemberRefused("only an owner makes or unmakes an owner")


def _check_team(tenant: Tenant, team: Team | None) -> None:
    if team is not None and team.tenant_id != tenant.pk:
        raise MemberRefused("the team belongs to another tenant")


def _check_not_last_owner(tenant: Tenant, member: Member) -> None:
    others = Member.objects.filter(tenant=tenant, role=Role.OWNER).exclude(pk=member.pk)
    if not others.exists():
        raise MemberRefused("the last owner stays: make somebody else an owner first")


def _facts(member: Member) -> dict[str, str | None]:
    return {"role": str(member.role), "team": member.team.slug if member.team else None}
