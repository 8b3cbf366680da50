"""Lists of the admin console and the keys' page: what a row says, and how it travels."""

import gzip
from collections import defaultdict
from datetime import timedelta
from html import unescape

import pytest
from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.text import capfirst

from billing.admin.base_admin import LIST_PER_PAGE, ReadOnlyAdmin
from billing.models import AuditEntry
from gateway.console.admin_look import UNFOLD
from gateway.models import ApiKey, Member
from gateway.tenants import keys
from providers.models import Offer
from tests.gateway.console_rows import offer, served
from tests.gateway.pages import said
from tests.people import Person

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(admin_client: Client) -> Client:
    return admin_client


def test_an_offer_says_whether_it_can_be_called_and_why_not(operator: Client) -> None:
    # given: a seller without a credential, and one that was switched off
    offer("acme")
    offer("other")
    Offer.objects.filter(provider__slug="other").update(
        state=Offer.State.DISABLED, state_reason="sold out"
    )

    # when
    page = operator.get("/admin/providers/offer/").content.decode()

    # then
    assert "Can be called" in page
    assert "no credential" in page
    assert "sold out" in page


def test_a_page_of_the_console_travels_compressed_and_a_feed_as_it_comes(
    operator: Client, client: Client, alice: Person
) -> None:
    # given
    offer()

    # when
    answer = operator.get("/admin/providers/offer/", headers={"accept-encoding": "gzip"})

    # then
    assert answer.headers["content-encoding"] == "gzip"
    assert b"Can be called" in gzip.decompress(answer.content)
    assert len(answer.content) < len(gzip.decompress(answer.content)) / 3
    client.force_login(alice.user)
    feed = client.get("/live/requests/", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in feed.headers


def test_an_event_is_five_cells_wide(operator: Client, alice: Person) -> None:
    # given
    served(alice.tenant, offer(), at=timezone.now())

    # when
    page = operator.get("/admin/billing/usageevent/").content.decode()

    # then
    for heading in ("When, whose", "What, outcome", "Tokens in / out", "Charged, supplier cost"):
        assert heading in page
    assert "Aurora" in page


def test_the_audit_log_says_amounts_and_names(operator: Client, alice: Person) -> None:
    # given
    AuditEntry.objects.create(
        tenant=alice.tenant,
        actor="ada",
        action="quota.set",
        subject=f"team {alice.team.pk} per day",
        after={"limit_pico": 25 * 10**11},
        occurred_at=timezone.now(),
    )

    # when
    page = operator.get("/admin/billing/auditentry/").content.decode()

    # then
    assert "team Main per day" in page
    assert "limit $2.5" in page


def make_key(alice: Person, name: str, lifetime: timedelta | None) -> ApiKey:
    now = timezone.now()
    return keys.issue(
        tenant=alice.tenant,
        team=alice.team,
        name=name,
        created_by="alice",
        now=now,
        expires_at=now + lifetime if lifetime else None,
    ).key


def test_a_young_key_was_never_used_and_an_old_one_not_lately(
    client: Client, alice: Person
) -> None:
    # given
    make_key(alice, "young", None)
    old = make_key(alice, "old", None)
    ApiKey.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=91))
    client.force_login(alice.user)

    # when
    page = client.get("/keys/").content.decode()

    # then
    assert page.count("never used") == 1
    assert page.count("not in 90 days") == 1


def test_keys_of_the_playground_are_not_among_the_team_s(client: Client, alice: Person) -> None:
    # given: one of a visit, and one that a person happened to name alike
    make_key(alice, keys.VISIT_NAME, keys.VISIT_LIFETIME)
    make_key(alice, keys.VISIT_NAME, None)

    # then
    found = keys.of_people(ApiKey.objects.filter(tenant=alice.tenant))
    assert [key.expires_at for key in found] == [None]
    client.force_login(alice.user)
    assert client.get("/keys/").content.decode().count('class="mono">tk-') == 1


@pytest.mark.parametrize(("is_member", "arrives"), [(False, "/admin/"), (True, "/overview/")])
def test_an_operator_arrives_where_there_is_something_to_see(
    client: Client, alice: Person, django_user_model, *, is_member: bool, arrives: str
) -> None:
    # given
    user = django_user_model.objects.create_superuser("root", password="correct horse")
    if is_member:
        Member.objects.create(user=user, tenant=alice.tenant, team=alice.team, role="owner")

    # when
    answer = client.post("/login/", {"username": "root", "password": "correct horse"})

    # then
    assert answer.headers["location"] == arrives


def _sidebar() -> dict[str, set[str]]:
    """Titles by the address that they lead to, without its filter."""
    titles = defaultdict(set)
    for item in (item for group in UNFOLD["SIDEBAR"]["navigation"] for item in group["items"]):
        link = item["link"](None) if callable(item["link"]) else item["link"]
        titles[str(link).partition("?")[0]].add(item["title"])
    return titles


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.label_lower)
def test_a_list_is_called_what_the_sidebar_calls_it(operator: Client, model: type[Model]) -> None:
    # given
    link = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

    # when
    page = operator.get(link)

    # then: a filtered list has a second name there
    name = capfirst(str(page.context["opts"].verbose_name_plural))
    assert name in _sidebar().get(link, {name})
    assert f">{name}<" in "".join(page.content.decode().split("\n")).replace("  ", "")


def test_a_page_of_a_list_holds_few_enough_rows_to_be_laid_out_at_once() -> None:
    long = {m.__name__: o.list_per_page for m, o in admin.site._registry.items()}

    assert set(long.values()) == {LIST_PER_PAGE}, long


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.label_lower)
def test_an_empty_list_says_why_or_what_makes_the_first(
    operator: Client, model: type[Model]
) -> None:
    # given
    if model._default_manager.exists():
        return  # Accounts of the house are there from the beginning, and who asks.
    page = admin.site._registry[model]
    link = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

    # when
    shown = operator.get(link)
    text = unescape(said(shown))

    # then
    says = getattr(page, "nothing_yet", "")
    assert (says or "There is none yet.") in text
    offered = text.partition(says or "There is none yet.")[2].partition("</div>")[0]
    assert (f"Add {model._meta.verbose_name}" in offered) == shown.context["has_add_permission"]
    assert says or not isinstance(page, ReadOnlyAdmin)


def test_a_list_that_is_narrowed_to_nothing_offers_the_whole(operator: Client) -> None:
    text = said(operator.get(reverse("admin:gateway_apikey_changelist"), {"q": "nobody's"}))

    assert "No row fits what is searched and filtered by." in text
    assert "Show all" in text
    assert "Add " not in text.partition("No row fits")[2]
