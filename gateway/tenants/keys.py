"""API keys `tk-<public id>-<secret>`: issued once, kept as a hash, revoked everywhere at once.

The hold script reads a key's status from Redis, so that revocation holds at the next call
whatever a process still has in memory.
"""

import hashlib
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, QuerySet

from billing import audit
from billing.holding import key_makers, key_status
from billing.models import Tenant
from billing.redis.connection import connection
from gateway.kinds import INFERENCE, MANAGEMENT, OPERATOR, SCOPES
from gateway.models import ApiKey, Team


def is_managing(scopes: Sequence[str]) -> bool:
    """Whether a key with these scopes does more than call models."""
    return not set(scopes) <= {INFERENCE}


# A key that the playground makes for one visit; it lives only in the page that uses it.
VISIT_NAME: Final = "playground"
VISIT_LIFETIME: Final = timedelta(hours=1)

ALPHABET = string.ascii_letters + string.digits
PUBLIC_ID_LENGTH = 12
SECRET_LENGTH = 43  # 43 letters out of 62 are 256 bits
MODELS_ALLOWED_MAX = 200


class KeyRefused(ValueError):
    """What was asked of a new key does not fit; the text is for the person who asked."""

    def __init__(self, message: str, *, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A fresh key. `plain` exists only here: show it once and forget it."""

    key: ApiKey
    plain: str


def hash_of(plain: str) -> bytes:
    return hashlib.sha256(plain.encode()).digest()


def random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def issue(
    *,
    tenant: Tenant,
    name: str,
    created_by: str | ApiKey,
    now: datetime,
    team: Team | None = None,
    scopes: Sequence[str] = (INFERENCE,),
    models_allowed: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Make a key and return its plain text, once. It is made by somebody, or by a key, which hands
    out no more than it has: the caps and rates that bind it bind what it made, which is of its team
    and its models."""
    maker = created_by if isinstance(created_by, ApiKey) else None
    if maker is not None:
        team, models_allowed = _within(maker, team, models_allowed, expires_at)
    _check(tenant, name, team, scopes, models_allowed, expires_at, now)
    wanted = ApiKey(
        tenant=tenant,
        team=team,
        name=name.strip(),
        scopes=sorted(set(scopes)),
        models_allowed=sorted(set(models_allowed)),
        expires_at=expires_at,
        created_by=caller_of(created_by),
    )
    return _make(wanted, now, maker)


def caller_of(maker: str | ApiKey) -> str:
    """By what name somebody, or a key, acts."""
    return f"key {maker.public_id}" if isinstance(maker, ApiKey) else maker


def issue_for_operators(
    *, tenant: Tenant, name: str, created_by: str, now: datetime, expires_at: datetime | None
) -> IssuedKey:
    """Make a key of the operators' API, kept with the house's own tenant. The caller has checked
    that `created_by` may pay sellers."""
    _check(tenant, name, None, (MANAGEMENT,), (), expires_at, now)
    wanted = ApiKey(
        tenant=tenant,
        name=name.strip(),
        scopes=[OPERATOR],
        models_allowed=[],
        expires_at=expires_at,
        created_by=created_by,
    )
    return _make(wanted, now)


def _within(
    maker: ApiKey,
    team: Team | None,
    models_allowed: Sequence[str],
    expires_at: datetime | None,
) -> tuple[Team | None, Sequence[str]]:
    """The team and the models of a key that this key makes."""
    if maker.team is not None and team not in (None, maker.team):
        raise KeyRefused("a key of a team makes keys of that team", code="beyond_its_maker")
    if maker.models_allowed and not set(models_allowed) <= set(maker.models_allowed):
        raise KeyRefused("a key makes none for models it may not use", code="beyond_its_maker")
    if maker.expires_at is not None and (expires_at is None or expires_at > maker.expires_at):
        raise KeyRefused("a key cannot make one that outlives it", code="outlives_its_maker")
    return maker.team or team, models_allowed or maker.models_allowed


def _make(key: ApiKey, now: datetime, maker: ApiKey | None = None) -> IssuedKey:
    public_id = random_text(PUBLIC_ID_LENGTH)
    plain = f"tk-{public_id}-{random_text(SECRET_LENGTH)}"
    with transaction.atomic():
        if maker is not None and not is_live(_locked(maker), now):
            raise KeyRefused("the key that makes it was revoked or has expired")
        key.public_id, key.key_hash = public_id, hash_of(plain)
        key.save()
        if maker is not None:
            key_makers.record(tenant=key.tenant, api_key_id=key.pk, maker_id=maker.pk)
        audit.record(
            actor=key.created_by,
            action="key.issue",
            subject=f"key {public_id}",
            tenant=key.tenant,
            after={
                "name": key.name,
                "team": key.team.slug if key.team else None,
                "scopes": key.scopes,
                "models_allowed": key.models_allowed,
                "expires_at": key.expires_at.isoformat() if key.expires_at else None,
            },
            now=now,
        )
    return IssuedKey(key=key, plain=plain)


def _check(
    tenant: Tenant,
    name: str,
    team: Team | None,
    scopes: Sequence[str],
    models_allowed: Sequence[str],
    expires_at: datetime | None,
    now: datetime,
) -> None:
    if not name.strip() or len(name) > 80:
        raise KeyRefused("a key needs a name of 1 to 80 characters")
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise KeyRefused(f"scopes are one or more of {', '.join(SCOPES)}")
    if team is not None and team.tenant_id != tenant.pk:
        raise KeyRefused("the team belongs to another tenant")
    if len(models_allowed) > MODELS_ALLOWED_MAX or any(len(m) > 160 for m in models_allowed):
        raise KeyRefused(f"at most {MODELS_ALLOWED_MAX} models can be listed")
    if expires_at is not None and expires_at <= now:
        raise KeyRefused("the expiry lies in the past")


def revoke(*, key: ApiKey, actor: str, now: datetime) -> None:
    """Revoke at once and for good; doing it twice changes nothing.

    Redis is written before Postgres commits: if Redis cannot be reached the caller gets the
    error and nothing changed, and if the commit fails the key is dead until the next rebuild,
    which is the safe side.
    """
    with transaction.atomic():
        locked = _locked(key)
        if locked.revoked_at is None:
            locked.revoked_at = now
            locked.save(update_fields=["revoked_at"])
            audit.record(
                actor=actor,
                action="key.revoke",
                subject=f"key {locked.public_id}",
                tenant=locked.tenant,
                before={"name": locked.name},
                now=now,
            )
        key_status.revoke(connection(), tenant_id=locked.tenant_id, api_key_id=locked.pk)
    key.revoked_at = locked.revoked_at


def _locked(key: ApiKey) -> ApiKey:
    return ApiKey.objects.select_for_update().get(pk=key.pk)


def of_people(found: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
    """Without those that the playground makes for a visit of its own."""
    return found.exclude(name=VISIT_NAME, expires_at__lte=F("created_at") + VISIT_LIFETIME)


def is_live(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def find(plain: str) -> ApiKey | None:
    """The key with this plain text, whatever its state; not for the hot path."""
    return ApiKey.objects.select_related("tenant", "team").filter(key_hash=hash_of(plain)).first()
