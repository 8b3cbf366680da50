"""Ranks by what a mix costs, not by what a list says; figures with too few samples say so."""

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from billing.events import AttemptDetail
from billing.usage import CanonicalUsage
from providers.boards import leaderboards, measurements
from providers.boards import rows as board_rows
from providers.boards.rows import Mix
from providers.boards.windows import WINDOWS
from providers.machines import workers
from providers.market import offers
from providers.models import Leaderboard, Offer
from tests.providers.made_offers import (
    NOW,
    attempt,
    make_offer,
    post,
    publish,
    registration,
    worker_key,
)

pytestmark = pytest.mark.django_db(transaction=True)
MILLION = 1_000_000
GOLDEN_MIX = Mix(MILLION, 2 * MILLION, MILLION, 0, "traffic")


def _serve(offer: Offer, times: int, **changed: Any) -> None:
    post(*(attempt(offer, number, **changed) for number in range(times)))
    measurements.record(now=NOW)


def _two_sellers() -> tuple[Offer, Offer]:
    """A is dearer by list and cheaper in effect."""
    a, b = make_offer("acme/small"), make_offer("beta/small")
    publish(a.sku, ("0.10", "0.05", "0.40"))
    publish(b.sku, ("0.30", "0.10", "0.35"))
    return a, b


def test_the_golden_board() -> None:
    # given: both measured on two thirds cached input, one million of each kind of token
    golden = CanonicalUsage(input_tokens=150_000, cache_read_tokens=100_000, output_tokens=50_000)
    a, b = _two_sellers()
    for offer in (a, b):
        _serve(offer, 20, usage=golden)

    # when
    board = leaderboards.compute(a.model, WINDOWS["1h"], now=NOW, mix=GOLDEN_MIX)

    # then
    assert [(r["rank"], r["sku"], r["effective"]["pico"]) for r in board.rows] == [
        (1, "acme/small", 600_000),
        (2, "beta/small", 850_000),
    ]
    assert {r["effective"]["basis"] for r in board.rows} == {"measured"}


def test_the_mix_is_everything_served_in_the_window() -> None:
    # given
    a, b = _two_sellers()
    _serve(a, 15)
    _serve(b, 5)

    # when
    board = leaderboards.compute(a.model, WINDOWS["1h"], now=NOW)

    # then
    assert board.mix["source"] == "traffic"
    assert (board.mix["uncached_tokens"], board.mix["cached_tokens"]) == (2_000, 4_000)
    assert (board.mix["output_tokens"], board.mix["requests"]) == (2_000, 20)


def test_one_request_too_few_and_the_standard_mix_and_list_prices_stand_in() -> None:
    # given
    a, _ = _two_sellers()
    _serve(a, 9)

    # when
    board = leaderboards.compute(a.model, WINDOWS["1h"], now=NOW)

    # then
    first = board.rows[0]
    assert board.mix["source"] == "standard"
    assert first["effective"] == {"pico": 700_000, "basis": "list", "cache_share": 0.0}
    assert first["too_few"] == ["ttft_ms", "output_tps", "e2e_ms", "uptime"]
    assert first["ttft_ms"] is None


def test_a_cache_hit_rate_settles_before_percentiles_do() -> None:
    # given
    a, _ = _two_sellers()
    _serve(a, 10)

    # when
    row = leaderboards.compute(a.model, WINDOWS["1h"], now=NOW).rows[0]

    # then
    assert row["effective"]["basis"] == "measured"
    assert row["too_few"] == ["ttft_ms", "output_tps", "e2e_ms", "uptime"]


def test_enough_requests_and_the_measured_figures_appear() -> None:
    # given
    a, _ = _two_sellers()
    _serve(a, 20)

    # when
    row = leaderboards.compute(a.model, WINDOWS["1h"], now=NOW).rows[0]

    # then
    assert row["ttft_ms"]["n"] == 20
    assert row["ttft_ms"]["p50"] == pytest.approx(50, rel=0.03)
    assert row["output_tps"]["p5"] == pytest.approx(80, rel=0.03)
    assert row["uptime"] == {"percent": 100.0, "minutes": 1}
    assert row["paid_pico"] == 10
    assert row["too_few"] == []


def test_a_seller_without_a_price_has_no_rank() -> None:
    # given
    _two_sellers()
    unpriced = make_offer("zeta/small")

    # when
    board = leaderboards.compute(unpriced.model, WINDOWS["24h"], now=NOW)

    # then
    last = board.rows[-1]
    assert (last["sku"], last["rank"], last["effective"]) == ("zeta/small", None, None)
    assert last["not_routable"] == "no price in force"
    assert [r["rank"] for r in board.rows] == [1, 2, None]


def test_who_calls_a_seller_does_not_move_its_rank() -> None:
    # given: A serves long prompts only
    a, _ = _two_sellers()
    long = CanonicalUsage(input_tokens=30_000, output_tokens=10)
    _serve(a, 40, usage=long)

    # when
    board = leaderboards.compute(a.model, WINDOWS["1h"], now=NOW)

    # then: both are priced on the same long prompts
    costs = {row["sku"]: row["effective"]["pico"] for row in board.rows}
    assert costs == {"acme/small": 300_400_000, "beta/small": 900_350_000}


def test_windows_slide() -> None:
    # given
    a, _ = _two_sellers()
    _serve(a, 25)

    # when
    later = NOW + timedelta(minutes=10)
    counts = {
        name: leaderboards.compute(a.model, window, now=later).facts["requests"]
        for name, window in WINDOWS.items()
    }

    # then
    assert counts == {"5m": 0, "1h": 25, "24h": 25, "7d": 25, "30d": 25}


def test_what_speculation_saved_is_measured_on_both() -> None:
    # given: the same engine, twice as fast at output with speculation
    key, _ = worker_key()
    plain = workers.register(key=key, registration=registration(), now=NOW).offer
    calibration = registration().calibration | {"output_tokens_per_s": 100.0}
    fast = workers.register(
        key=key,
        registration=registration(
            name="fast", techniques=("ngram-speculation",), calibration=calibration
        ),
        now=NOW,
    ).offer
    detail = AttemptDetail(speculation={"drafted": 60, "accepted": 30, "steps": 70})
    _serve(plain, 20)
    before = leaderboards.compute(plain.model, WINDOWS["1h"], now=NOW + timedelta(seconds=1))
    _serve(fast, 20, detail=detail)

    # when
    board = leaderboards.compute(plain.model, WINDOWS["1h"], now=NOW + timedelta(seconds=1))

    # then: per output token 1 uncached × 0.25 + 2 cached × 0.025 + 2.00, against 1.00
    assert before.facts["speculation"] is None
    assert board.facts["speculation"] == {
        "percent": 43.5,
        "plain_sku": plain.sku,
        "fast_sku": fast.sku,
        "plain_effective_pico": 2_300_000,
        "fast_effective_pico": 1_300_000,
        "n": 40,
    }
    assert board.rows[0]["speculation"] == {"acceptance_rate": 0.5, "acceptance_length": 1.429}


def test_a_refresh_computes_only_what_can_have_changed() -> None:
    # given
    a, _ = _two_sellers()
    quiet = make_offer("acme/other", model="other")
    publish(quiet.sku, ("1", "1", "1"))
    _serve(a, 20)

    # when
    done = [leaderboards.refresh(now=NOW + timedelta(seconds=s)) for s in (0, 16, 20, 40)]

    # then: all windows of the touched model, again within the overlap, none, those of minutes
    assert done == [5, 5, 0, 2]
    assert set(Leaderboard.objects.values_list("model__slug", flat=True)) == {"small"}


def test_a_board_without_traffic_is_computed_when_it_is_read() -> None:
    # given
    _two_sellers()

    # when
    board = leaderboards.board("small", "24h", now=NOW)

    # then
    assert board is not None
    assert [row.sku for row in board.rows] == ["acme/small", "beta/small"]
    assert leaderboards.board("no-such-model", now=NOW) is None
    assert leaderboards.board("small", "2y", now=NOW) is None


@pytest.mark.parametrize(("late_s", "skus"), [(-16, 1), (-15, 2), (0, 2), (1, 2)])
def test_a_board_that_was_read_before_an_offer_came_is_not_shown_after_it(
    late_s: int, skus: int
) -> None:
    # given: a board stored by a refresh that began so many seconds before an offer was attached, or
    # after, for whoever attaches it may commit later than that
    a, b = _two_sellers()
    b.delete()
    _serve(a, 20)
    leaderboards.refresh(now=NOW)
    make_offer("beta/small", state_changed_at=NOW + timedelta(seconds=late_s))

    # when
    board = leaderboards.board("small", "24h", now=NOW + timedelta(seconds=2))

    # then
    assert board is not None
    assert len(board.rows) == skus
    assert board.computed_at == (NOW if skus == 1 else NOW + timedelta(seconds=2))


def test_a_board_that_tells_of_an_offer_that_comes_and_goes_is_shown_as_it_is_kept() -> None:
    # given: an offer whose checks fail again and again, each time until the next
    a, b = _two_sellers()
    _serve(a, 20)
    leaderboards.refresh(now=NOW)
    moved, kept, read = (NOW + timedelta(seconds=s) for s in (10, 12, 14))
    offers.set_state(offer_id=b.pk, state=Offer.State.DEMOTED, reason="silent", now=moved)

    # when
    before = leaderboards.board("small", "24h", now=moved)
    leaderboards.refresh(now=kept)
    after = leaderboards.board("small", "24h", now=read)
    offers.set_state(offer_id=b.pk, state=Offer.State.LIVE, reason="", now=read)
    again = leaderboards.board("small", "24h", now=read)

    # then: computed for whoever looks only until a refresh has stored the same
    boards = [(board.computed_at, board.rows[1].state) for board in (before, after, again) if board]
    assert boards == [(moved, "demoted"), (kept, "demoted"), (read, "live")]


def test_a_board_without_an_offer_that_was_switched_off_is_shown_as_it_is_kept() -> None:
    # given
    a, b = _two_sellers()
    _serve(a, 20)
    leaderboards.refresh(now=NOW)
    off, kept = NOW + timedelta(seconds=10), NOW + timedelta(seconds=12)
    offers.set_enabled(offer=b, enabled=False, actor="ada", now=off)

    # when
    before = leaderboards.board("small", "24h", now=off)
    leaderboards.refresh(now=kept)
    after = leaderboards.board("small", "24h", now=kept + timedelta(seconds=1))

    # then
    boards = [(board.computed_at, len(board.rows)) for board in (before, after) if board]
    assert boards == [(off, 1), (kept, 1)]


def test_a_machine_that_registers_is_on_the_board_at_once() -> None:
    # given: the board of a model that somebody else sells as well
    other = make_offer("acme/smollm", model="smollm2-135m-instruct")
    publish(other.sku, ("1", "1", "1"))
    _serve(other, 20)
    leaderboards.refresh(now=NOW)
    key, _ = worker_key()

    # when
    worker = workers.register(key=key, registration=registration(), now=NOW)

    # then
    board = leaderboards.board("smollm2-135m-instruct", "24h", now=NOW)
    assert board is not None
    assert {row.sku for row in board.rows} == {other.sku, worker.offer.sku}


def test_price_history_is_steps() -> None:
    # given
    make_offer("acme/small")
    old, cut = NOW - timedelta(days=500), NOW - timedelta(days=10)
    publish("acme/small", ("1", "1", "4"), since=old)
    publish("acme/small", ("1", "1", "2"), since=cut)

    # when
    since = NOW - timedelta(days=365)
    (series,) = leaderboards.price_history("small", since, now=NOW)

    # then
    assert series.steps == [(since.isoformat(), 4_000_000), (cut.isoformat(), 2_000_000)]


def test_the_home_of_the_board() -> None:
    # given
    a, _ = _two_sellers()
    publish(a.sku, ("0.10", "0.05", "0.20"), since=NOW - timedelta(days=5))
    make_offer("zeta/other", model="other")

    # when
    (row,) = leaderboards.home(now=NOW)

    # then
    assert (row.model, row.sellers, row.routable, row.requests) == ("small", 2, 0, 0)
    assert row.cheapest is not None
    assert (row.cheapest.sku, row.cheapest.effective_pico) == ("acme/small", 500_000)
    assert row.spread == 2.5
    assert row.change_30d_percent == -42.9
    assert [pico for _, pico in row.spark] == [350_000, 200_000]
    assert row.fastest is None


def test_effective_prices_round_half_up() -> None:
    # given
    class Listed:
        input_pico, cache_read_pico, output_pico, request_pico = 1, 0, 1, 0

    # then
    mix = Mix(1, 0, 2, 0, "traffic")
    assert board_rows.effective_pico(mix, Listed, cached_share=Fraction(0)) == 2  # type: ignore[arg-type]
