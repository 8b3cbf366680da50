"""Whatever an operator changes in the admin console is in the append-only log, with who it was."""

from typing import Any

import pytest
import redis
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory

from billing.admin.audited import AuditedAdmin
from billing.admin.base_admin import ReadOnlyAdmin, ServiceAdmin
from billing.models import AuditEntry, BillingProfile, Tenant
from gateway.kinds import Role
from gateway.models import ApiKey
from gateway.tenants import keys
from providers.models import Credential, Offer
from tests.people import Person
from tests.providers.made_offers import make_offer

# They write through services, each of which writes its own entry.
THROUGH_SERVICES = (ReadOnlyAdmin, ServiceAdmin)


@pytest.fixture
def operator(admin_client: Client, redis_client: redis.Redis) -> Client:
    return admin_client


def entries(action: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action=action).order_by("pk"))


def test_a_page_that_writes_rows_itself_is_an_audited_one(admin_user: User) -> None:
    # given
    request = RequestFactory().get("/")
    request.user = admin_user
    # when
    writing = {
        model.__name__: page
        for model, page in admin.site._registry.items()
        if page.has_add_permission(request)
        or page.has_change_permission(request)
        or page.has_delete_permission(request)
    }
    # then
    careless = {
        name
        for name, page in writing.items()
        if not isinstance(page, (AuditedAdmin, *THROUGH_SERVICES))
    }
    assert careless == set()
    assert len(writing) > 10


def test_a_tenants_terms_say_who_changed_them_from_what_to_what(
    operator: Client, alice: Person
) -> None:
    # given
    page = f"/admin/billing/tenant/{alice.tenant.pk}/change/"
    asked = {
        "name": "Another name",
        "slug": alice.tenant.slug,
        "status": "suspended",
        "time_zone": "UTC",
        "hold_mode": alice.tenant.hold_mode,
        "max_output_tokens": alice.tenant.max_output_tokens,
        "credit_limit_usd": "25",
        "overdraft_usd": "0",
    }
    # when
    answer = operator.post(page, asked)
    # then
    assert answer.status_code == 302
    (terms,) = entries("tenant.terms")
    assert (terms.actor, terms.tenant_id) == ("admin", alice.tenant.pk)
    assert terms.before == {"credit_limit_pico": 0, "status": "active"}
    assert terms.after == {"credit_limit_pico": 25 * 10**12, "status": "suspended"}
    (renamed,) = entries("tenant.set")
    assert renamed.before
    assert renamed.after
    assert (renamed.before["name"], renamed.after["name"]) == (alice.tenant.name, "Another name")


def test_terms_that_are_refused_leave_no_entry(operator: Client, alice: Person) -> None:
    page = f"/admin/billing/tenant/{alice.tenant.pk}/change/"
    operator.post(page, {"name": "", "credit_limit_usd": "-1"})
    assert not AuditEntry.objects.exists()
    assert Tenant.objects.get(pk=alice.tenant.pk).name == alice.tenant.name


def test_credit_that_is_given_is_an_entry(operator: Client, alice: Person) -> None:
    asked = {"tenant": alice.tenant.pk, "reason": "welcome", "amount_usd": "12"}
    operator.post("/admin/billing/creditgrant/add/", asked)
    (entry,) = entries("credit.grant")
    assert (entry.actor, entry.reason) == ("admin", "welcome")
    assert entry.after == {"amount_pico": 12 * 10**12}


def test_a_role_changed_by_an_operator_is_an_entry(operator: Client, alice: Person) -> None:
    # given
    page = f"/admin/gateway/member/{alice.member.pk}/change/"
    asked = {
        "user": alice.user.pk,
        "tenant": alice.tenant.pk,
        "team": alice.team.pk if alice.member.team else "",
        "role": Role.VIEWER,
    }
    before = str(alice.member.role)
    # when
    assert operator.post(page, asked).status_code == 302
    assert operator.post(page, asked).status_code == 302
    # then: saved twice, changed once
    (entry,) = entries("member.set")
    assert (entry.before, entry.after) == ({"role": before}, {"role": "viewer"})
    assert entry.tenant_id == alice.tenant.pk


def test_a_membership_ended_by_an_operator_is_an_entry(operator: Client, alice: Person) -> None:
    operator.post(f"/admin/gateway/member/{alice.member.pk}/delete/", {"post": "yes"})
    (entry,) = entries("member.remove")
    assert (entry.actor, entry.tenant_id, entry.after) == ("admin", alice.tenant.pk, None)


def test_a_new_password_is_an_entry_without_the_password(operator: Client, alice: Person) -> None:
    # given
    page = f"/admin/auth/user/{alice.user.pk}/password/"
    word = "correct-horse-battery"
    # when
    answer = operator.post(page, {"password1": word, "password2": word})
    # then
    assert answer.status_code == 302
    (entry,) = entries("user.set")
    assert entry.after == {"password": "(hidden)"}
    assert word not in str(entry.after)


def test_a_sellers_secret_is_an_entry_without_the_secret(operator: Client) -> None:
    # given
    provider = make_offer("acme/small").provider
    asked = {"provider": provider.pk, "label": "main", "secret": "sk-very-secret"}
    # when
    operator.post("/admin/providers/credential/add/", asked)
    credential = Credential.objects.get()
    operator.post(f"/admin/providers/credential/{credential.pk}/delete/", {"post": "yes"})
    # then
    (made,), (removed,) = entries("credential.set"), entries("credential.remove")
    assert made.after == {"provider": provider.pk, "label": "main", "secret": "(hidden)"}
    assert removed.before == {"id": credential.pk}


def test_an_offer_that_is_switched_off_is_an_entry(operator: Client) -> None:
    chosen = make_offer("acme/small")
    asked: dict[str, Any] = {"action": "switch_off", "_selected_action": [chosen.pk]}
    operator.post("/admin/providers/offer/", asked)
    (entry,) = entries("offer.switch")
    assert (entry.subject, entry.after) == (chosen.sku, {"state": Offer.State.DISABLED})


def test_a_key_is_an_entry_when_it_is_made_and_when_it_is_revoked(
    operator: Client, alice: Person
) -> None:
    # given
    asked = {"tenant": alice.tenant.pk, "team": "", "name": "ci"}
    operator.post("/admin/gateway/apikey/add/", asked)
    key = ApiKey.objects.get()
    revoke: dict[str, Any] = {"action": "revoke", "_selected_action": [key.pk]}
    # when
    operator.post("/admin/gateway/apikey/", revoke)
    operator.post("/admin/gateway/apikey/", revoke)
    # then: the second time revokes nothing
    (made,), (revoked,) = entries("key.issue"), entries("key.revoke")
    assert (made.actor, made.subject) == ("admin", f"key {key.public_id}")
    assert made.after
    assert made.after["scopes"] == [keys.INFERENCE]
    assert (revoked.actor, revoked.before) == ("admin", {"name": "ci"})


def test_whom_invoices_are_addressed_to_is_an_entry(operator: Client, alice: Person) -> None:
    asked = {
        "tenant": alice.tenant.pk,
        "legal_name": "Acme Ltd",
        "address": "1 Road",
        "country": "IE",
        "terms_days": "30",
        "tax_name": "VAT",
        "tax_percent": "20",
    }
    operator.post("/admin/billing/billingprofile/add/", asked)
    profile = BillingProfile.objects.get()
    (entry,) = entries("billingprofile.set")
    assert (entry.tenant_id, entry.before) == (profile.tenant_id, None)
    assert entry.after
    assert entry.after["tax_percent"] == "20"
