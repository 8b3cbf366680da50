"""Anchors: rows rewritten together with their seals are found by a text kept elsewhere; small seals
are merged, and every anchor given before still holds."""

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from billing.credit import balances as credit
from billing.errors import AnchorRefused
from billing.integrity import anchors, row_seals, seal_merging
from billing.integrity.row_kinds import KINDS
from billing.models import AuditEntry, CreditGrant, Finding, RowSeal, Tenant
from tests.billing import altering
from tests.people import Person

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 4, 2, 9, tzinfo=UTC)
GRANTS = "billing_creditgrant"
LATER = NOW + timedelta(days=2)


def granted(tenant: Tenant, *, now: datetime = NOW) -> CreditGrant:
    """A grant in a seal of its own."""
    made = credit.grant(tenant=tenant, amount_pico=7, reason="more", created_by="test")
    row_seals.seal_new(now=now)
    return made


def seals(what: str) -> list[RowSeal]:
    return list(RowSeal.objects.filter(what=what).order_by("pk"))


def seal_anew(what: str) -> None:
    """Whoever may write everything makes rows and seals agree again."""
    ranges = [(seal.first, seal.after) for seal in seals(what)]
    RowSeal.objects.filter(what=what).delete()
    made = [RowSeal(what=what, first=a, after=b, sealed_at=NOW) for a, b in ranges]
    row_seals._sealed(KINDS[what], made, row_seals.NOTHING)


REWRITTEN = (
    "UPDATE billing_creditgrant SET amount_pico = amount_pico + 1 WHERE id = {}",
    "UPDATE billing_creditgrant SET reason = 'a gift' WHERE id = {}",
    "DELETE FROM billing_creditgrant WHERE id = {}",
)


@pytest.mark.parametrize("sql", REWRITTEN)
def test_rows_rewritten_with_their_seals_are_found_by_an_anchor_alone(
    sql: str, alice: Person
) -> None:
    # given
    first = granted(alice.tenant)
    granted(alice.tenant)
    anchor = anchors.give(now=NOW, actor="ada")
    granted(alice.tenant)
    assert anchors.check(anchor, now=NOW) == []
    # when
    altering.execute(GRANTS, sql.format(first.pk))
    seal_anew("grants")
    # then: nothing in the database disagrees
    row_seals.read_again(now=NOW, everything=True)
    assert not Finding.objects.exists()
    (words,) = anchors.check(anchor, now=NOW)
    assert words.startswith("grants: sealed rows are not those of the anchor (")


def test_rows_altered_without_their_seals_are_findings_of_the_same_check(alice: Person) -> None:
    made = granted(alice.tenant)
    anchor = anchors.give(now=NOW, actor="ada")
    altering.execute(GRANTS, f"UPDATE {GRANTS} SET amount_pico = 1 WHERE id = {made.pk}")
    (words,) = anchors.check(anchor, now=NOW)
    assert words.startswith("grants")
    assert "altered since it was sealed" in words


def test_small_seals_become_one_and_anchors_of_before_still_hold(alice: Person) -> None:
    # given: an anchor within what will be merged, one behind it, and seals of today
    for n in range(5):
        granted(alice.tenant)
        if n == 2:
            within = anchors.give(now=NOW, actor="ada")
    behind = anchors.give(now=NOW, actor="ada")
    last = granted(alice.tenant, now=LATER)
    before = seals("grants")
    chains = {seal.after: bytes(seal.chain) for seal in before}
    # when
    merged = seal_merging.merge_old(now=LATER)
    # then
    old, today = seals("grants")
    assert (old.first, old.after, old.rows) == (0, before[4].after, 5)
    assert (today.first, today.after) == (before[5].first, last.pk + 1)
    assert [bytes(seal.chain) for seal in (old, today)] == [chains[old.after], chains[today.after]]
    assert merged >= 4
    row_seals.read_again(now=LATER, everything=True)
    assert not Finding.objects.exists()
    assert anchors.check(within, now=LATER) == anchors.check(behind, now=LATER) == []
    assert seal_merging.merge_old(now=LATER) == 0
    # and what is rewritten now is found by both
    altering.execute(GRANTS, f"UPDATE {GRANTS} SET reason = 'x' WHERE id < {last.pk}")
    seal_anew("grants")
    assert len(anchors.check(within, now=LATER)) == len(anchors.check(behind, now=LATER)) == 1


def test_what_somebody_resolved_is_not_merged_away(alice: Person) -> None:
    # given
    made = [granted(alice.tenant) for _ in range(5)]
    middle = seals("grants")[2]
    Finding.objects.create(
        what="grants", first=middle.first, after=middle.after, found_at=NOW, seen_at=NOW
    )
    # when
    seal_merging.merge_old(now=LATER)
    # then: its neighbours are, each side for itself
    assert [(seal.rows, seal.after) for seal in seals("grants")] == [
        (2, made[1].pk + 1),
        (1, made[2].pk + 1),
        (2, made[4].pk + 1),
    ]


def test_merged_seals_have_a_bounded_number_of_rows(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_seals, "ROWS_MAX", 3)
    for _ in range(7):
        granted(alice.tenant)
    seal_merging.merge_old(now=LATER)
    assert [seal.rows for seal in seals("grants")] == [3, 3, 1]


def test_a_text_that_is_no_anchor_is_refused(alice: Person) -> None:
    granted(alice.tenant)
    anchor = anchors.give(now=NOW, actor="ada")
    chain, seal, *_ = anchor.splitlines()[1].split(" ")
    for text in ("", "x", anchor.replace(f"{chain} {seal}", f"{chain} 99"), anchor + "\nx"):
        with pytest.raises(AnchorRefused):
            anchors.check(text, now=NOW)
    assert anchors.check("\n  " + anchor.replace("\n", "  \r\n") + "\n", now=NOW) == []


def test_operators_give_and_check_anchors(
    alice: Person, admin_client: Client, tmp_path: Path
) -> None:
    # given
    made = granted(alice.tenant)
    out = io.StringIO()
    call_command("give_anchor", stdout=out)
    (entry,) = AuditEntry.objects.filter(action="anchor.give")
    assert out.getvalue().splitlines() == [entry.subject, *(entry.after or {})["lines"]]
    file = tmp_path / "anchor.txt"
    file.write_text(out.getvalue())
    # then: by command, and by page
    call_command("check_anchor", str(file), stdout=out)
    assert "all sealed rows are as they were" in out.getvalue()
    page = admin_client.get("/admin/billing/finding/").content.decode()
    (link,) = set(re.findall(r'href="([^"]*/anchor[^"]*)"', page))
    given = admin_client.get(link)
    assert "attachment" in given["Content-Disposition"]
    assert anchors.read(given.content.decode()) == anchors.heads()
    altering.execute(GRANTS, f"UPDATE {GRANTS} SET amount_pico = 1 WHERE id = {made.pk}")
    with pytest.raises(CommandError, match="not as it was"):
        call_command("check_anchor", str(file), stdout=out)
    (tmp_path / "b").write_text("b")
    with pytest.raises(CommandError, match="no anchor"):
        call_command("check_anchor", str(tmp_path / "b"))
