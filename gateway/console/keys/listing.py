"""The list of API keys, a page at a time: those that were not revoked first, the newest first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from django.db.models import Q, QuerySet

from billing.books import usage_sums
from gateway.models import ApiKey, Member
from gateway.tenants import keys, roles
from gateway.tenants.roles import Action

PAGE_SIZE: Final = 50
USE_LOOKS_BACK: Final = timedelta(days=90)
NAME_LENGTH_MAX: Final = 80
# Where a page ended: in which half of the list, and at which key.
PLACE: Final = re.compile(r"(open|revoked)-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Place:
    """Stays where it is when its key is revoked meanwhile."""

    is_revoked: bool
    key_id: int

    def __str__(self) -> str:
        return f"{'revoked' if self.is_revoked else 'open'}-{self.key_id}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the URL asks for; a name is part of a key's name, or how its public part begins."""

    name: str
    before: Place | None


@dataclass(frozen=True, slots=True)
class Row:
    key: ApiKey
    is_live: bool
    used_at: datetime | None
    may_revoke: bool


@dataclass(frozen=True, slots=True)
class KeyPage:
    rows: list[Row]
    asked: Asked
    next_query: str
    looks_back: datetime

    @property
    def is_part(self) -> bool:
        """Whether there are, or may be, others than these."""
        return bool(self.asked.name or self.asked.before or self.next_query)


def asked_in(parameters: Mapping[str, str]) -> Asked:
    """A place that does not parse is left out: a link of yesterday still opens."""
    found = PLACE.fullmatch(parameters.get("before", ""))
    return Asked(
        name=parameters.get("q", "").strip()[:NAME_LENGTH_MAX],
        before=Place(found[1] == "revoked", int(found[2])) if found else None,
    )


def read(member: Member, asked: Asked, *, now: datetime, limit: int = PAGE_SIZE) -> KeyPage:
    found = list(_found(member, asked)[: limit + 1])
    shown = found[:limit]
    looks_back = now - USE_LOOKS_BACK
    used = usage_sums.last_used(member.tenant_id, [key.pk for key in shown], since=looks_back)
    return KeyPage(
        rows=[
            Row(
                key=key,
                is_live=keys.is_live(key, now),
                used_at=used.get(key.pk),
                may_revoke=roles.may(member, Action.REVOKE_KEYS, roles.key_thing(key)),
            )
            for key in shown
        ],
        asked=asked,
        next_query=_next(asked, shown[-1]) if len(found) > limit else "",
        looks_back=looks_back,
    )


def _found(member: Member, asked: Asked) -> QuerySet[ApiKey]:
    found = keys.of_people(ApiKey.objects.filter(tenant=member.tenant)).select_related("team")
    is_revoked = Q(revoked_at__isnull=False)
    if asked.name:
        begins = asked.name.removeprefix("tk-")
        found = found.filter(Q(name__icontains=asked.name) | Q(public_id__startswith=begins))
    if asked.before is not None:
        older = Q(pk__lt=asked.before.key_id)
        rest = is_revoked & older if asked.before.is_revoked else is_revoked | older
        found = found.filter(rest)
    return found.alias(is_revoked=is_revoked).order_by("is_revoked", "-pk")


def _next(asked: Asked, last: ApiKey) -> str:
    place = Place(last.revoked_at is not None, last.pk)
    parts = {"q": asked.name, "before": str(place)}
    return urlencode({name: value for name, value in parts.items() if value})
