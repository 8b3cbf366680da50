"""The audit log: every change that people and services make to prices, keys, quotas and members.

An entry is written in the transaction of its change, or the change does not happen. PostgreSQL
refuses to alter or delete one.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q

from billing.models import AuditEntry, Tenant

# What a person typed may be long; what is kept of it fits its column.
REASON_LENGTH_MAX = 400
NAME_LENGTH_MAX = 150
SUBJECT_LENGTH_MAX = 200


def record(
    *,
    actor: str,
    action: str,
    subject: str,
    now: datetime,
    tenant: Tenant | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> AuditEntry | None:
    """Write down one change; None where nothing differs. Call it inside the change's transaction.

    `actor` is a user name, or the name of a key or a task; `action` is noun.verb ("quota.set");
    `subject` says in words what was changed. Never a secret in `before` or `after`.
    """
    assert connection.in_atomic_block, "an audit entry belongs into the transaction of its change"
    if before is not None and before == after:
        return None
    return AuditEntry.objects.create(
        tenant=tenant,
        actor=actor[:NAME_LENGTH_MAX],
        action=action,
        subject=subject[:SUBJECT_LENGTH_MAX],
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
        reason=reason[:REASON_LENGTH_MAX],
        occurred_at=now,
    )


def newest(tenant: Tenant, *, actions: Sequence[str], limit: int) -> list[AuditEntry]:
    """The latest changes in a tenant whose action begins with one of these words."""
    wanted = Q()
    for action in actions:
        wanted |= Q(action__startswith=action)
    found = AuditEntry.objects.filter(wanted, tenant=tenant)
    return list(found.order_by("-occurred_at", "-pk")[:limit])
