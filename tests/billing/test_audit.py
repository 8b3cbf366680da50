"""Who changed what is written down with the change, and stays."""

from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, transaction

from billing import audit
from billing.models import AuditEntry, Tenant

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(slug="acme", name="Acme")


@pytest.mark.django_db
def test_an_entry_says_who_changed_what_from_what_to_what(tenant: Tenant) -> None:
    # when
    with transaction.atomic():
        audit.record(
            actor="alice",
            action="quota.set",
            subject="team 3 per month",
            tenant=tenant,
            before={"limit_pico": 1},
            after={"limit_pico": 10**30},
            reason="a new project",
            now=NOW,
        )
    # then
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.tenant_id) == ("alice", "quota.set", tenant.pk)
    assert (entry.before, entry.after) == ({"limit_pico": 1}, {"limit_pico": 10**30})
    assert entry.occurred_at == NOW


@pytest.mark.django_db
def test_a_change_that_changes_nothing_is_no_entry(tenant: Tenant) -> None:
    same = {"limit_pico": 1}
    with transaction.atomic():
        assert (
            audit.record(actor="a", action="b", subject="c", now=NOW, before=same, after=same)
            is None
        )
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
def test_an_entry_is_neither_altered_nor_deleted(tenant: Tenant) -> None:
    # given
    with transaction.atomic():
        entry = audit.record(actor="alice", action="key.revoke", subject="key 5", now=NOW)
    assert entry is not None
    rows = AuditEntry.objects.filter(pk=entry.pk)
    # when / then
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        rows.update(actor="mallory")
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        rows.delete()
    assert AuditEntry.objects.get().actor == "alice"


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_its_changes_transaction_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        audit.record(actor="alice", action="key.revoke", subject="key 5", now=NOW)
