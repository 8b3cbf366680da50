"""Rows of money that may change: what is changed past the triggers is found, and named."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from importlib import import_module
from typing import Any

import pytest
from django.db import Error, connection, transaction

from billing.credit import balances as credit
from billing.integrity import row_seals, row_versions, sealing
from billing.integrity.row_kinds import KINDS
from billing.integrity.row_versions import KEPT
from billing.models import (
    Account,
    BillingProfile,
    BillRate,
    Claim,
    Dispute,
    Finding,
    NumberSeries,
    PlanAssignment,
    PriceList,
    PriceRule,
    PriceVersion,
    ProviderBill,
    RebateScale,
    ReRating,
    RowVersion,
    Tenant,
    TopUp,
    VolumeRebate,
)
from billing.prices import versions as prices
from tests.billing import altering
from tests.billing.open_books import publish
from tests.people import Person

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 4, 2, 9, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
BY = {"reason": "seen", "resolved_by": "ada", "now": NOW}


@dataclass(frozen=True)
class Try:
    """How a row of a kind is altered, and what another one must not share with it."""

    altered: str
    words: str
    unlike: Mapping[str, Any] = field(default_factory=dict)


TRIES = {
    "purchases of credit": Try(
        "returned_cents = 1", "returned_cents is 1, on record 0", {"key": str(uuid.UUID(int=7))}
    ),
    "disputes": Try(
        """stages = '["won"]'""",
        'stages is ["won"], on record ["opened", "won"]',
        {"dispute_id": "dp_2"},
    ),
    "sellers' claims": Try("owed_pico = 5", "owed_pico is 5, on record 0", {"attempt": 1}),
    "prices": Try("output_pico = 5", "output_pico is 5, on record 8000000", {"context_over": 9}),
    "discounts and margins": Try(
        "change_ppm = 7", "change_ppm is 7, on record 50000", {"pattern": "b/"}
    ),
    "price lists": Try("slug = 'x'", 'slug is "x", on record "gold"', {"slug": "tin"}),
    "rates of bills": Try(
        "pico_per_unit = 5", "pico_per_unit is 5, on record 7", {"currency": "CHF"}
    ),
    "billing profiles": Try(
        "tax_ppm = 0", "tax_ppm is 0, on record 190000", {"tenant_id": "other tenant"}
    ),
    "terms of tenants": Try(
        "time_zone = 'Asia/Tokyo'", 'time_zone is "Asia/Tokyo", on record "UTC"', {"slug": "y"}
    ),
    "numbers of documents": Try("last = 3", "last is 3, on record 4", {"year": 2027}),
    "price corrections": Try("charges_more = true", ""),
    "plans of tenants": Try(
        "assigned_by = 'z'",
        'assigned_by is "z", on record ""',
        {"assigned_at": "2026-05-01T00:00:00Z"},
    ),
    "scales of rebates": Try("tiers = '[]'", "", {"from_month": "2026-05-01"}),
    "rebates": Try("due_pico = -due_pico", "", {"grant_id": "other grant"}),
    "skus": Try("code = 'z'", "", {"code": "q"}),
    "accounts": Try("supplier = 'z'", "", {"supplier": "y"}),
    "versions": Try("""facts = '{"last": 3}'""", ""),
}


@pytest.fixture
def rows(alice: Person) -> dict[str, int]:
    """A row of each kind that a bill rests on, by the name of its kind."""
    tenant, at = Tenant.objects.get(pk=alice.tenant.pk), {"created_at": NOW}
    plan = PriceList.objects.create(slug="gold", name="Gold")
    version = publish(MARCH, sku="a/one")
    topup = TopUp.objects.create(tenant=tenant, net_cents=2_000, created_by="a", **at)
    bill = ProviderBill.objects.create(
        supplier="acme",
        first_day=MARCH.date(),
        last_day=MARCH.date(),
        file_hash=bytes(32),
        uploaded_at=NOW,
    )
    since = {"since": MARCH, "until": NOW, "rates": {}, "reason": "typo"}
    scale = RebateScale.objects.create(
        plan=plan, from_month=date(2026, 4, 1), mode="volume", tiers=[[None, 5, 0]], recorded_at=NOW
    )
    grant = credit.grant(tenant=tenant, amount_pico=4, reason="rebate", created_by="a")
    claimed = {f"{x}_{y}_tokens": 1 for x in ("claimed", "billed") for y in ("input", "output")}
    made = {
        "purchases of credit": topup,
        "disputes": Dispute.objects.create(
            dispute_id="dp_1",
            topup=topup,
            amount_cents=9,
            stages=["opened", "won"],
            opened_at=NOW,
        ),
        "sellers' claims": Claim.objects.create(
            request_id=uuid.UUID(int=1), attempt=0, tenant=tenant, occurred_at=NOW, **claimed
        ),
        "prices": version,
        "discounts and margins": PriceRule.objects.create(
            price_list=plan, pattern="a/", change_ppm=50_000, begins_at=MARCH
        ),
        "price lists": plan,
        "rates of bills": BillRate.objects.create(
            bill=bill, currency="EUR", pico_per_unit=7, day=MARCH.date(), stated_at=NOW
        ),
        "billing profiles": BillingProfile.objects.create(
            tenant=tenant, tax_name="VAT", tax_ppm=190_000
        ),
        "terms of tenants": tenant,
        "numbers of documents": NumberSeries.objects.create(document="X", year=2026, last=4),
        "price corrections": ReRating.objects.create(sku="a/one", created_at=NOW, **since),
        "plans of tenants": PlanAssignment.objects.create(
            tenant=tenant, plan=plan, assigned_at=NOW
        ),
        "scales of rebates": scale,
        "rebates": VolumeRebate.objects.create(
            tenant=tenant,
            month=date(2026, 4, 1),
            scale=scale,
            spent_pico=8,
            due_pico=4,
            grant=grant,
        ),
        "skus": version.sku,
        "accounts": Account.objects.create(kind=Account.Kind.PROVIDER_PAYABLE, supplier="x"),
    }
    last = RowVersion.objects.filter(table_name="billing_numberseries").latest("pk")
    more = {
        "versions": last,
        "other tenant": Tenant.objects.create(slug="other", name="Other"),
        "other grant": credit.grant(tenant=tenant, amount_pico=4, reason="x", created_by="a"),
    }
    return {what: row.pk for what, row in {**made, **more}.items()}


def table_of(what: str) -> str:
    return KEPT[what].table if what in KEPT else KINDS[what].table


def found() -> list[tuple[str, str]]:
    """What a full audit finds; it is resolved, so that the next one begins anew."""
    sealing.read_seals_again(now=NOW, everything=True)
    known = Finding.objects.filter(resolved_at=None).order_by("pk")
    answer = [(finding.what, finding.detail) for finding in known]
    sealing.resolve([finding.pk for finding in known], **BY)  # type: ignore[arg-type]
    row_seals.seal_new(now=NOW)
    return answer


def put_in(what: str, rows: dict[str, int], row_id: int) -> str:
    named = {name: rows.get(str(value), value) for name, value in TRIES[what].unlike.items()}
    return altering.copy_of(table_of(what), rows[what], {**named, "id": row_id})


def with_another(rows: dict[str, int]) -> dict[str, int]:
    """A second row of each kind, as the program would have written it."""
    others = {what: rows[what] + 1_000 for what in TRIES if what != "versions"}
    with connection.cursor() as cursor:
        for what, row_id in others.items():
            cursor.execute(put_in(what, rows, row_id))
    first = RowVersion.objects.filter(table_name="billing_topup").order_by("pk")[0]
    return {**others, "versions": first.pk}


def test_a_row_of_each_kind_is_found_altered_swapped_taken_out_and_put_in(
    rows: dict[str, int],
) -> None:
    assert set(rows) >= set(TRIES) >= KEPT.keys()
    others = with_another(rows)
    row_seals.seal_new(now=NOW)
    assert found() == []
    for what, attempt in TRIES.items():
        table, row_id = table_of(what), rows[what]
        # altered
        altering.execute(table, f"UPDATE {table} SET {attempt.altered} WHERE id = {row_id}")
        ((name, words),) = found()
        assert name == what
        assert words == attempt.words or (not attempt.words and "altered since" in words)
        assert found() == []
        # swapped
        altering.swap_rows(table, row_id, others[what])
        assert {name for name, _ in found()} == {what}
        # taken out
        altering.swap_rows(table, row_id, others[what])
        found()
        altering.execute(table, f"DELETE FROM {table} WHERE id = {others[what]}")
        ((name, words),) = found()
        assert name == what
        assert words == "taken out past its record" or "altered since it was sealed" in words
        # put in
        altering.execute(table, put_in(what, rows, -5))
        past = "put in past its record" if what in KEPT else "1 rows were put in before the first"
        ((name, words),) = found()
        assert (name, words.startswith(past)) == (what, True)
    assert found() == []


def test_what_the_program_itself_changes_is_on_record_and_no_finding(
    rows: dict[str, int],
) -> None:
    # when
    prices.close(PriceVersion.objects.get(pk=rows["prices"]), at=datetime(2126, 1, 1, tzinfo=UTC))
    ProviderBill.objects.all().delete()
    TopUp.objects.update(tries=3, due_at=NOW)
    NumberSeries.objects.update(last=5)
    # then: each version once, and none for the tries of a purchase
    assert found() == []
    kept = RowVersion.objects.order_by("pk").values_list("table_name", "row_id", "facts")
    of = {
        what: [f for t, pk, f in kept if (t, pk) == (table_of(what), rows[what])] for what in KEPT
    }
    assert [facts["last"] for facts in of["numbers of documents"]] == [4, 5]
    assert [facts is None for facts in of["rates of bills"]] == [False, True]
    assert ["2126" in facts["during"] for facts in of["prices"]] == [False, True]
    assert len(of["purchases of credit"]) == 1
    assert "tries" not in of["purchases of credit"][0]


def test_an_audit_reads_what_changed_lately_and_a_thirtieth_of_the_rest(
    rows: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: rows changed long ago, none of them among the newest
    monkeypatch.setattr(row_versions, "NEWEST_ROWS", 0)
    NumberSeries.objects.bulk_create(NumberSeries(document="Y", year=n) for n in range(2000, 2035))
    altering.execute("billing_rowversion", f"UPDATE billing_rowversion SET kept_at = '{MARCH}'")
    altering.execute("billing_numberseries", "UPDATE billing_numberseries SET last = 9")
    # when
    row_versions.compare(now=NOW)
    # then: those whose turn it is
    turn = NOW.toordinal() % row_versions.AUDITS_PER_ROUND
    ids = set(NumberSeries.objects.values_list("pk", flat=True))
    due = {pk for pk in ids if pk % row_versions.AUDITS_PER_ROUND == turn}
    assert set(Finding.objects.values_list("first", flat=True)) == due
    # when: one was changed by the program meanwhile, and is altered again
    one = min(ids - due)
    NumberSeries.objects.filter(pk=one).update(last=10)
    altering.execute(
        "billing_rowversion",
        f"UPDATE billing_rowversion SET kept_at = '{NOW}' WHERE row_id = {one}",
    )
    altering.execute(
        "billing_numberseries", f"UPDATE billing_numberseries SET last = 11 WHERE id = {one}"
    )
    row_versions.compare(now=NOW)
    assert set(Finding.objects.values_list("first", flat=True)) == due | {one}


STANDS = (
    ("topup", "net_cents = 1"),
    ("topup", "tenant_id = 5"),
    ("dispute", "stages = '[]'"),
    ("dispute", "amount_cents = 1"),
    ("claim", "claimed_input_tokens = 5"),
    ("sku", "code = 'z'"),
    ("account", "supplier = 'z'"),
    ("rowversion", "facts = NULL"),
)


def test_postgres_itself_refuses_what_the_program_never_does(rows: dict[str, int]) -> None:
    for name, change in STANDS:
        for sql in (f"UPDATE billing_{name} SET {change}", f"DELETE FROM billing_{name}"):
            with pytest.raises(Error, match="stands|append|goes on|once|deleted"):
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute(sql)
    TopUp.objects.update(refunded_cents=7)
    with pytest.raises(Error, match="stays refunded"), transaction.atomic():
        TopUp.objects.update(refunded_cents=6)


def test_each_kept_table_has_its_trigger_with_the_same_columns_left_out() -> None:
    migration = import_module("billing.migrations.0056_row_versions")
    assert migration.KEPT == {kept.table: kept.without for kept in KEPT.values()}
    assert not set(KEPT) & set(KINDS)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'version_kept'"
        )
        assert {row[0] for row in cursor.fetchall()} == set(migration.KEPT)
