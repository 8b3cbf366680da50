"""What a tenant demands of its members when they sign in."""

from datetime import datetime

from django.db import transaction

from billing import audit
from billing.models import Tenant
from gateway.models import SignInRule


def demands_second_factor(tenant: Tenant) -> bool:
    return SignInRule.objects.filter(tenant=tenant, second_factor=True).exists()


def set_second_factor(*, tenant: Tenant, is_demanded: bool, actor: str, now: datetime) -> None:
    """Demand a second factor of every member from the next page on, or no longer."""
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        before = demands_second_factor(tenant)
        SignInRule.objects.update_or_create(tenant=tenant, defaults={"second_factor": is_demanded})
        audit.record(
            actor=actor,
            action="tenant.second_factor",
            subject=str(tenant),
            tenant=tenant,
            before={"is_demanded": before},
            after={"is_demanded": is_demanded},
            now=now,
        )
