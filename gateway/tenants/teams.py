"""Teams of a tenant: made, renamed, charged to another cost centre, each noted in the audit log."""

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction

from billing import audit
from billing.models import Tenant
from gateway.models import Team


def write(*, tenant: Tenant, facts: Mapping[str, str], actor: str, now: datetime) -> Team:
    """Make the team of this `slug`, or change what is named of it."""
    slug, wanted = facts["slug"], {name: facts[name] for name in facts if name != "slug"}
    with transaction.atomic():
        before = Team.objects.filter(tenant=tenant, slug=slug).values(*wanted).first()
        team, is_new = Team.objects.update_or_create(tenant=tenant, slug=slug, defaults=wanted)
        audit.record(
            actor=actor,
            action="team.set",
            subject=f"team {slug}",
            tenant=tenant,
            before=None if is_new else before,
            after=wanted,
            now=now,
        )
    return team
