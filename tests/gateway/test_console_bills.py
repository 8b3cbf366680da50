"""A provider's bill in the admin console: uploaded, compared, accepted; and what is no bill."""

from datetime import timedelta

import pytest
import redis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from billing import ledger
from billing.ledger import AccountKey, Kind
from billing.models import ProviderBill
from tests.gateway.console_rows import offer, served
from tests.people import Person

ADD = "/admin/billing/providerbill/add/"


@pytest.fixture
def operator(admin_client: Client, redis_client: redis.Redis) -> Client:
    return admin_client


def upload(operator: Client, text: str, provider: str) -> str:
    """Where the upload leads; empty where it was refused."""
    file = SimpleUploadedFile("march.csv", text.encode(), content_type="text/csv")
    answer = operator.post(ADD, {"provider": provider, "file": file})
    return answer.get("Location", "")


def test_a_bill_is_compared_by_our_names_of_models_and_accepted(
    operator: Client, alice: Person
) -> None:
    # given
    sold = offer()
    day = timezone.now() - timedelta(days=3)
    event = served(alice.tenant, sold, at=day)
    owed = event.supplier_cost_pico + 10**9
    row = f"{day:%Y-%m-%d},{sold.offer.upstream_model},1204,318,{owed / 10**12:.12f}"
    # when
    page = upload(
        operator,
        f"date,model,input_tokens,output_tokens,cost_usd\n{row}\n",
        sold.offer.provider.slug,
    )
    shown = operator.get(page).content.decode()
    # then
    assert "same tokens, another price" in shown
    assert sold.offer.model.slug in shown
    before = ledger.balance(AccountKey(Kind.PROVIDER_PAYABLE, supplier=sold.offer.provider.slug))
    operator.post(page)
    operator.post(page)
    after = ledger.balance(AccountKey(Kind.PROVIDER_PAYABLE, supplier=sold.offer.provider.slug))
    assert after - before == -(10**9)
    assert ProviderBill.objects.get().accepted_at is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00\x00",
        "a,b\n1,2\n",
        "date,model,input_tokens,output_tokens,cost_usd\n2026-03-01,m,-1,2,0.1\n",
        "date,model,input_tokens,output_tokens,cost_usd\n2026-03-01,m,1,2,NaN\n",
        "date,model,input_tokens,output_tokens,cost_usd\n2026-03-01,m,1,2,1e400\n",
        "date,model,input_tokens,output_tokens,cost_usd\n,m,1,2,0.1\n",
        "date,model,input_tokens,output_tokens,cost_usd,currency\n2026-03-01,m,1,2,0.1,EUR\n",
    ],
)
def test_what_is_no_bill_is_refused(text: str, operator: Client, alice: Person) -> None:
    slug = offer().offer.provider.slug
    assert upload(operator, text, slug) == ""
    assert ProviderBill.objects.count() == 0
