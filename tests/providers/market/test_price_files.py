"""Price files of others, read exactly and with suspicion, and held against our prices."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from billing.models import InvariantCheck, PriceDisagreement, PriceVersion
from billing.prices import second_source as price_check
from billing.prices import versions as prices
from providers.market import price_files
from providers.market.price_files import PriceFileRefused, read

NOW = timezone.now()


def models(*pricing: dict[str, Any]) -> bytes:
    data = [{"id": f"acme/m{n}", "name": "M", "pricing": p} for n, p in enumerate(pricing)]
    return json.dumps({"data": data}).encode()


def test_openrouter_s_models_are_read_to_the_pico_dollar() -> None:
    # given
    body = models(
        {"prompt": "0.00000015", "completion": "0.0000006", "input_cache_read": "0.000000075",
         "request": "0", "image": "0", "discount": 0}
    )  # fmt: skip
    # when / then
    assert read(body).stated == {
        "openrouter/acme/m0": {
            "input_pico": 150_000,
            "output_pico": 600_000,
            "cache_read_pico": 75_000,
        }
    }


def test_litellm_s_map_is_read_without_a_float() -> None:
    # given
    body = b"""{
        "sample_spec": {"input_cost_per_token": 0.0},
        "gpt-5": {"litellm_provider": "openai", "input_cost_per_token": 1.25e-06,
                  "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 1.25e-07},
        "gemini/gemini-2.5-pro": {"litellm_provider": "gemini",
                  "input_cost_per_token": 0.0000012500000000000001, "output_cost_per_token": 1e-5}
    }"""
    # when
    found = read(body)
    # then
    assert found.format == "litellm"
    assert found.stated["openai/gpt-5"] == {
        "input_pico": 1_250_000,
        "output_pico": 10_000_000,
        "cache_read_pico": 125_000,
    }
    assert found.stated["google/gemini-2.5-pro"]["input_pico"] == 1_250_000
    assert found.skipped == {"no seller": 1}


@pytest.mark.parametrize(
    ("pricing", "why"),
    [
        ({"prompt": "NaN"}, "not a price"),
        ({"prompt": "Infinity"}, "not a price"),
        ({"prompt": "1e400"}, "not a price"),
        ({"prompt": "-1"}, "not a price"),
        ({"prompt": "0.5"}, "not a price"),
        ({"prompt": "\u0661"}, "not a price"),
        ({"prompt": "1" * 50}, "not a price"),
        ({"prompt": True}, "not a price"),
        ({"prompt": ["1"]}, "not a price"),
        ({"prompt": "0", "completion": "0"}, "no price, or free"),
        ({"prompt": "0.000001", "currency": "EUR"}, "not in US dollars"),
    ],
)
def test_what_is_no_price_is_left_out_and_counted(pricing: dict[str, Any], why: str) -> None:
    found = read(models(pricing))
    assert (found.stated, found.skipped) == ({}, {why: 1})


def test_a_number_beyond_every_float_is_no_price_either() -> None:
    assert read(b'{"data":[{"id":"a/b","pricing":{"prompt":1e400}}]}').stated == {}
    assert read(b'{"data":[{"id":7,"pricing":{}}, 5]}').skipped == {"not a model": 2}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"data": 5}', b"\xff\xfe", b"{}", b'{"a":' * 2_000 + b"1"]
)
def test_what_is_no_price_list_is_refused(body: bytes) -> None:
    with pytest.raises(PriceFileRefused):
        read(body)


def test_a_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_files, "FILE_BYTES_MAX", 10)
    monkeypatch.setattr(price_files, "ENTRIES_MAX", 1)
    with pytest.raises(PriceFileRefused, match="larger than"):
        read(models({}))
    monkeypatch.setattr(price_files, "FILE_BYTES_MAX", 10_000)
    with pytest.raises(PriceFileRefused, match="more than 1 entries"):
        read(models({}, {}))


@pytest.mark.parametrize(
    ("ours", "theirs", "apart"),
    [(100, 100, False), (100, 99, False), (1_000, 989, True), (100, 101, False), (0, 1, True),
     (1_000_000, 990_000, False), (1_000_000, 989_999, True), (0, 0, False)],
)  # fmt: skip
def test_more_than_one_per_cent_of_the_greater_is_apart(
    ours: int, theirs: int, apart: bool
) -> None:
    assert price_check.differs(ours, theirs) == price_check.differs(theirs, ours) == apart


@pytest.fixture
def sold(db: None) -> PriceVersion:
    return prices.publish(
        sku_code="openrouter/acme/m0",
        input_pico=150_000,
        cache_read_pico=75_000,
        cache_write_5m_pico=150_000,
        cache_write_1h_pico=150_000,
        output_pico=600_000,
        reasoning_pico=600_000,
        valid_from=NOW - timedelta(days=1),
        source="test",
        recorded_by="test",
    )


def test_a_disagreement_is_an_alert_until_both_agree_again(
    sold: PriceVersion, tmp_path: Path
) -> None:
    # given
    file = tmp_path / "models.json"
    file.write_bytes(
        models({"prompt": "0.00000015", "completion": "0.0000007"}, {"prompt": "1e-7"})
    )
    # when
    call_command("compare_prices", file)
    call_command("compare_prices", file)
    # then
    (row,) = PriceDisagreement.objects.all()
    assert (row.rate, row.ours_pico, row.theirs_pico) == ("output_pico", 600_000, 700_000)
    alert = InvariantCheck.objects.get(name=price_check.ALERT)
    assert (alert.holds, alert.detail) == (False, "1 rates are apart")
    assert PriceVersion.objects.count() == 1

    file.write_bytes(models({"prompt": "0.00000015", "completion": "0.000000603"}))
    call_command("compare_prices", file)
    row.refresh_from_db()
    assert row.ended_at is not None
    assert InvariantCheck.objects.get(name=price_check.ALERT).holds


def test_a_file_that_cannot_be_read_is_an_error_and_no_alert(tmp_path: Path, db: None) -> None:
    (tmp_path / "bad.json").write_bytes(b"not json")
    for name in ("bad.json", "missing.json"):
        with pytest.raises(CommandError):
            call_command("compare_prices", tmp_path / name)
    assert not InvariantCheck.objects.exists()
