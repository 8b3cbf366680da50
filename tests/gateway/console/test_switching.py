"""Before you switch: an export is re-priced at every offer, exactly; bad files are told."""

import io
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from billing.models import PriceList
from billing.prices import lists as price_lists
from billing.prices import plans
from billing.prices import versions as prices
from gateway.console import switching
from providers.imports import usage_files
from providers.models import Model, Offer, Provider
from tests.people import Person
from tests.providers.imports.test_usage_files import OPENAI, OPENROUTER

NOW = timezone.now()


@pytest.fixture
def market(db: None) -> None:
    """gpt-4o at a pool that can be called, and dearer and cheaper where it cannot."""
    model = Model.objects.create(slug="gpt-4o-2024-08-06", name="GPT-4o")
    for slug, kind, input_pico in (
        ("pool", Provider.Kind.POOL, 2_000_000),
        ("openai", Provider.Kind.EXTERNAL, 2_500_000),
        ("cheap", Provider.Kind.EXTERNAL, 1_000_000),
    ):
        provider = Provider.objects.create(
            slug=slug, name=slug.title(), kind=kind, wire="openai", base_url="http://10.0.0.9"
        )
        sku = f"{slug}/gpt-4o"
        Offer.objects.create(
            provider=provider, model=model, sku=sku, upstream_model="x", capabilities=["chat"]
        )
        prices.publish(
            sku_code=sku,
            input_pico=input_pico,
            cache_read_pico=input_pico // 2,
            cache_write_5m_pico=input_pico,
            cache_write_1h_pico=input_pico,
            output_pico=4 * input_pico,
            reasoning_pico=4 * input_pico,
            request_pico=7,
            valid_from=NOW - timedelta(days=1),
            source="test",
            recorded_by="test",
        )


def cost(input_pico: int) -> int:
    """12 requests, 38 uncached and 3,962 cached tokens in, 50 out."""
    return 38 * input_pico + 3962 * (input_pico // 2) + 50 * 4 * input_pico + 12 * 7


def test_each_offer_is_priced_to_the_pico_dollar_those_that_can_serve_first(
    market: None, alice: Person
) -> None:
    # given
    found = usage_files.read(io.BytesIO(OPENAI.encode()))
    # when
    comparison = switching.compare(found, tenant_id=alice.tenant.pk, now=NOW)
    # then
    (row,) = comparison.rows
    assert [(c.sku, c.cost_pico, bool(c.needs)) for c in row.choices] == [
        ("pool/gpt-4o", cost(2_000_000), False),
        ("cheap/gpt-4o", cost(1_000_000), True),
        ("openai/gpt-4o", cost(2_500_000), True),
    ]
    assert (row.is_stated, comparison.before_pico) == (False, cost(2_500_000))
    assert comparison.after_pico == cost(2_000_000)


def test_a_tenant_sees_the_prices_that_it_would_pay(market: None, alice: Person) -> None:
    # given
    plan = PriceList.objects.create(slug="startup", name="Startup")
    price_lists.set_rule(price_list=plan, pattern="pool/", change_ppm=-500_000, actor="op", now=NOW)
    plans.assign(tenant=alice.tenant, plan=plan, actor="op", now=NOW)
    found = usage_files.read(io.BytesIO(OPENAI.encode()))
    # when
    comparison = switching.compare(found, tenant_id=alice.tenant.pk, now=NOW + timedelta(seconds=1))
    # then
    assert comparison.after_pico == cost(1_000_000) - 12 * 3  # 7 pico-dollars halved are 4


def test_a_model_that_nobody_sells_is_named_and_left_out(market: None, alice: Person) -> None:
    # given
    found = usage_files.read(io.BytesIO(OPENROUTER.encode()))
    # when
    comparison = switching.compare(found, tenant_id=alice.tenant.pk, now=NOW)
    # then
    assert [used.model for used in comparison.unknown] == ["openai/gpt-4o-mini"]
    assert (comparison.rows, comparison.before_pico, comparison.after_pico) == ([], 0, 0)


def upload(text: str) -> dict[str, SimpleUploadedFile]:
    return {"file": SimpleUploadedFile("usage.csv", text.encode())}


def test_the_page_compares_labels_aggregates_and_lists_bad_lines(
    client: Client, alice: Person, market: None, redis_client: object
) -> None:
    client.force_login(alice.user)
    page = client.post("/switching/", upload(OPENAI + "1,2,p,-1,gpt-4o,False,1,1,0,0,0\n"))
    text = page.content.decode()
    assert page.status_code == 200
    assert "These are aggregates" in text
    assert "pool/gpt-4o" in text
    assert "takes something back" in text


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\x00", "<svg onload=alert(1)>", "{"])
def test_a_file_that_is_no_export_is_told_so(
    client: Client, alice: Person, redis_client: object, text: str
) -> None:
    client.force_login(alice.user)
    answer = client.post("/switching/", upload(text))
    assert answer.status_code == 422
    assert "<svg onload" not in answer.content.decode()


def test_only_members_compare(client: Client) -> None:
    assert client.post("/switching/", upload(OPENAI)).status_code == 302
