"""Payouts and sellers' statements by the operators' API."""

from datetime import date
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from billing.books import ledger, payouts
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.models import AuditEntry, Payout
from gateway.models import ApiKey, Seller
from gateway.tenants import keys, sellers
from providers.models import Provider
from tests.people import Person

PAYOUTS = "/api/v1/payouts/"
EARNED = 12_345_678_000_000  # $12.345678


@pytest.fixture
def seller(alice: Person) -> Seller:
    provider = Provider.objects.create(
        slug="pool-lab", name="Lab", kind=Provider.Kind.POOL, wire="openai"
    )
    made = sellers.register(
        team=alice.team, provider=provider, house_share_ppm=0, actor="op", now=timezone.now()
    )
    ledger.post(
        Draft(
            code=Code.USAGE,
            legs=(
                Leg(AccountKey(Kind.COST_OF_SALES, supplier="pool-lab"), EARNED),
                Leg(AccountKey(Kind.PROVIDER_PAYABLE, supplier="pool-lab"), -EARNED),
            ),
            idempotency_key="earned",
        )
    )
    return made


@pytest.fixture
def operator(charlie: Person, redis_client: redis.Redis) -> Client:
    """A key of the house, kept with Charlie's tenant."""
    issued = keys.issue_for_operators(
        tenant=charlie.tenant, name="pay", created_by="op", now=timezone.now(), expires_at=None
    )
    return Client(headers={"Authorization": f"Bearer {issued.plain}"})


def asked(**changed: Any) -> dict[str, Any]:
    facts = {"seller": "pool-lab", "amount_usd": "10.00", "reference": "bank-1"}
    return {**facts, "paid_on": timezone.now().date().isoformat(), **changed}


def post(client: Client, body: Any, **headers: str) -> Any:
    return client.post(PAYOUTS, body, content_type="application/json", headers=headers)


def test_a_payout_is_recorded_and_is_in_the_list_and_the_statement(
    operator: Client, seller: Seller
) -> None:
    # given
    (listed,) = operator.get("/api/v1/sellers/").json()
    assert (listed["seller"], listed["owed_usd"]) == ("pool-lab", "12.345678")
    # when
    answer = post(operator, asked())
    # then
    assert answer.status_code == 201
    made = answer.json()
    key = ApiKey.objects.get()
    assert (made["amount_usd"], made["created_by"]) == ("10", f"key {key.public_id}")
    assert AuditEntry.objects.get(action="seller.payout").actor == f"key {key.public_id}"
    assert operator.get(PAYOUTS).json() == [made]
    assert operator.get(PAYOUTS, {"seller": "somebody"}).json() == []
    statement = operator.get("/api/v1/sellers/pool-lab/statement/").json()
    assert statement["payouts"] == [made]
    assert (statement["paid_out_usd"], statement["owed_usd"]) == ("10", "2.345678")


def test_the_same_idempotency_key_gets_the_first_answer_again(
    operator: Client, seller: Seller
) -> None:
    # when
    first, again = (post(operator, asked(), **{"Idempotency-Key": "one"}) for _ in range(2))
    other = post(operator, asked(amount_usd="1"), **{"Idempotency-Key": "one"})
    without = post(operator, asked())
    # then
    assert (first.status_code, again.json()) == (201, first.json())
    assert again["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    # The bank's reference counts once by itself.
    assert (without.status_code, without.json()) == (201, first.json())
    assert Payout.objects.count() == 1


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"amount_usd": "12.35"}, 422),
        ({"amount_usd": "0"}, 422),
        ({"amount_usd": "-1"}, 422),
        ({"amount_usd": "1.001"}, 400),
        ({"amount_usd": 1.5}, 400),
        ({"amount_usd": "NaN"}, 400),
        ({"amount_usd": "9" * 40}, 400),
        ({"reference": ""}, 400),
        ({"reference": "x" * 91}, 400),
        ({"reference": "a\u0000b"}, 400),
        ({"reference": "a\u200eb"}, 422),
        ({"paid_on": "2999-01-01"}, 422),
        ({"paid_on": "yesterday"}, 400),
        ({"seller": "nobody"}, 404),
        ({"seller": ""}, 400),
    ],
)
def test_what_is_no_payout_is_a_problem_and_books_nothing(
    changed: dict[str, Any], status: int, operator: Client, seller: Seller
) -> None:
    # when
    answer = post(operator, asked(**changed))
    # then
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert not Payout.objects.exists()
    assert payouts.owed_pico("pool-lab") == EARNED


def test_a_long_list_comes_in_pages(operator: Client, seller: Seller) -> None:
    # given
    for number in range(5):
        post(operator, asked(amount_usd="1", reference=f"bank-{number}"))
    # when
    seen, url = [], f"{PAYOUTS}?limit=2&seller=pool-lab"
    while url:
        answer = operator.get(url)
        seen += [each["reference"] for each in answer.json()]
        link = answer.headers.get("Link", "")
        url = link.partition(">")[0].removeprefix("<")
    # then
    assert seen == [f"bank-{number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("month", ["2026-13", "2026", "０２６-01", "x" * 100])
def test_a_month_that_is_none_is_a_problem(month: str, operator: Client, seller: Seller) -> None:
    answer = operator.get("/api/v1/sellers/pool-lab/statement/", {"month": month})
    assert answer.status_code == 400
    assert operator.get("/api/v1/sellers/nobody/statement/").status_code == 404


def test_an_operators_key_is_good_for_nothing_else(operator: Client, charlie: Person) -> None:
    for path in ("balance", "keys", "invoices"):
        assert operator.get(f"/api/v1/tenants/{charlie.tenant.slug}/{path}/").status_code == 403
    assert ApiKey.objects.get().scopes == [keys.OPERATOR]


def test_no_tenant_makes_itself_an_operators_key(
    client: Client, alice: Person, redis_client: redis.Redis
) -> None:
    # given
    client.force_login(alice.user)
    path = f"/api/v1/tenants/{alice.tenant.slug}/keys/"
    body = {"name": "pay", "scopes": ["operator"]}
    # when / then
    assert client.post(path, body, content_type="application/json").status_code == 400
    client.post("/keys/new/", {"name": "pay", "scopes": ["operator"], "expires": ""})
    with pytest.raises(keys.KeyRefused, match="scopes are"):
        keys.issue(
            tenant=alice.tenant,
            name="pay",
            created_by="alice",
            now=timezone.now(),
            scopes=("operator",),
        )
    assert not ApiKey.objects.exists()


def test_a_revoked_operators_key_opens_nothing(operator: Client, seller: Seller) -> None:
    keys.revoke(key=ApiKey.objects.get(), actor="op", now=timezone.now())
    assert post(operator, asked()).status_code == 401
    assert not Payout.objects.exists()


def test_staff_make_an_operators_key_in_the_admin_console(
    admin_client: Client, charlie: Person, redis_client: redis.Redis
) -> None:
    # given
    form = {"tenant": charlie.tenant.pk, "team": "", "name": "pay", "for_operators": "on"}
    # when
    shown = admin_client.post("/admin/gateway/apikey/add/", form).content.decode()
    refused = admin_client.post(
        "/admin/gateway/apikey/add/", {**form, "team": charlie.team.pk}, follow=True
    )
    # then
    assert ApiKey.objects.get().scopes == [keys.OPERATOR]
    assert "It pays sellers" in shown
    assert "Nothing was changed" in refused.content.decode()


def test_a_day_long_ago_is_a_day(operator: Client, seller: Seller) -> None:
    answer = post(operator, asked(paid_on=date(1, 1, 1).isoformat()))
    assert answer.status_code == 201
