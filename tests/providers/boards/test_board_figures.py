"""Every figure of a board and of the home board, against a slow path over the events themselves."""

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from billing import outcomes
from billing.events import AttemptDetail
from billing.models import UsageEvent
from billing.usage import CanonicalUsage
from providers.boards import leaderboards, measurements
from providers.boards.windows import WINDOWS
from providers.models import Offer
from tests.providers import slow_board
from tests.providers.made_offers import NOW, attempt, make_offer, post, publish, request_id_of

pytestmark = pytest.mark.django_db(transaction=True)

PRICES = {"acme/small": (100_000, 50_000, 400_000), "beta/small": (300_000, 100_000, 350_000)}
ERRORS = ("upstream_timeout", "gateway_trouble", "upstream_credential_refused", "")
SPANS_S = (240, 3_000, 80_000, 6 * 86_400, 40 * 86_400)
# Most of the traffic is of one tenant, as on a day when somebody wants to move a board.
TENANTS = (1,) * 12 + tuple(range(2, 14))


def _detail(chance: random.Random) -> AttemptDetail:
    return AttemptDetail(
        ttft_ms=chance.lognormvariate(4, 1) if chance.random() < 0.8 else None,
        e2e_ms=chance.lognormvariate(7, 1),
        output_tps=chance.lognormvariate(4, 0.7) if chance.random() < 0.8 else None,
        error=chance.choice(ERRORS),
        output_bytes=chance.choice((0, 500)),
        speculation=chance.choice(
            (
                None,
                {"drafted": 20, "accepted": chance.randrange(8), "steps": 9},
                {"drafted": 1, "accepted": 10**9, "steps": 1},
                {"drafted": 10**9, "accepted": 0, "steps": 1},
            )
        ),
    )


def _usage(chance: random.Random) -> CanonicalUsage:
    entered = int(chance.lognormvariate(6, 1.5))
    return CanonicalUsage(
        input_tokens=entered,
        cache_read_tokens=chance.randint(0, entered),
        output_tokens=int(chance.lognormvariate(5, 1.5)) * chance.choice((1, 1, 1, 1, 1, 500)),
    )


def _happen(chance: random.Random, offers: list[Offer], times: int) -> None:
    """Traffic of every kind, in the order of nobody's clock."""
    made: dict[tuple[str, str], list[Any]] = {}
    for _ in range(times):
        at = NOW - timedelta(seconds=chance.uniform(0, chance.choice(SPANS_S)))
        event = attempt(
            chance.choice(offers),
            tenant=chance.choice(TENANTS),
            outcome=chance.choice(("ok",) * 12 + tuple(outcomes.OUTCOMES)),
            usage=_usage(chance),
            tenant_cost_pico=chance.choice((0, chance.randrange(10**9))),
            occurred_ms=int(at.timestamp() * 1000),
            detail=_detail(chance),
        )
        state = chance.choice(
            (("posted", ""),) * 8 + (("quarantined", "beyond"), ("posted", "decided"))
        )
        made.setdefault(state, []).append(event)
    for (state, reason), group in made.items():
        post(*group, state=state, quarantine_reason=reason)
    for number in range(5):
        one_id = request_id_of(int(NOW.timestamp() * 1000))
        so_far = CanonicalUsage(input_tokens=50, output_tokens=20)
        offer, tenant = chance.choice(offers), chance.choice(TENANTS)
        expired = attempt(offer, attempt=-1, tenant=tenant, outcome="unknown", usage=so_far)
        post(expired, request_id=one_id)
        if number:
            post(attempt(offer, tenant=tenant), request_id=one_id)


def _percentiles(row: dict[str, Any], name: str, *parts: str) -> list[tuple[float, int]] | None:
    figure = row[name]
    return None if figure is None else [(figure[part], figure["n"]) for part in parts]


def _slow_percentiles(
    events: list[UsageEvent], figure: str, *shares: float
) -> list[tuple[float, int]] | None:
    found = [slow_board.percentile(events, figure, share) for share in shares]
    return None if found[0] is None else [each for each in found if each is not None]


def _assert_row(
    row: dict[str, Any],
    events: list[UsageEvent],
    every: list[UsageEvent],
    mix: slow_board.Mix,
) -> None:
    def how_many(verdict: str) -> int:
        return slow_board.count(events, lambda e: slow_board.verdict(e) == verdict)

    assert row["requests"] == slow_board.attempts(events, every)
    assert row["succeeded"] == how_many("served")
    assert (row["failed"], row["cancelled"]) == (how_many("failed"), how_many("left"))
    failed = [e for e in events if slow_board.verdict(e) == "failed"]
    assert row["errors"] == Counter(e.detail.get("error") or e.outcome for e in failed)
    assert row["paid_pico"] == slow_board.paid_pico(events, every)
    served = slow_board.served(events)
    assert row["tokens"] == {
        "input": sum(e.input_tokens for e in served),
        "cached": sum(e.cache_read_tokens for e in served),
        "output": sum(e.output_tokens for e in served),
    }
    whole = [e for e in events if slow_board.verdict(e) == "served"]
    assert _percentiles(row, "ttft_ms", "p50", "p95") == _slow_percentiles(
        events, "ttft_ms", 0.5, 0.95
    )
    assert _percentiles(row, "e2e_ms", "p50", "p95") == _slow_percentiles(
        whole, "e2e_ms", 0.5, 0.95
    )
    assert _percentiles(row, "output_tps", "p50", "p5") == _slow_percentiles(
        served, "output_tps", 0.5, 0.05
    )
    up = slow_board.uptime(events)
    assert row["uptime"] == (None if up is None else {"percent": up[0], "minutes": up[1]})
    said = slow_board.acceptance(events)
    assert row["speculation"] == (
        None if said is None else {"acceptance_rate": said[0], "acceptance_length": said[1]}
    )
    last = max((e.occurred_at for e in events), default=None)
    assert row["last_at"] == (None if last is None else last.isoformat())
    _assert_prices(row, events, mix)


def _assert_prices(row: dict[str, Any], events: list[UsageEvent], mix: slow_board.Mix) -> None:
    if row["sku"] not in PRICES:
        assert (row["effective"], row["blended_3_1_pico"], row["rank"]) == (None, None, None)
        return
    entered, cached, out = PRICES[row["sku"]]
    assert row["blended_3_1_pico"] == (3 * entered + out + 2) // 4
    assert row["blended_7_2_1_pico"] == (7 * cached + 2 * entered + out + 5) // 10
    own = slow_board.mix_of(events)
    share = own.cached / own.input if own else 0.0
    cost = mix.input * ((1 - share) * entered + share * cached) + mix.output * out
    assert row["effective"]["basis"] == ("measured" if own else "list")
    assert row["effective"]["cache_share"] == pytest.approx(share, abs=0.0006)
    assert row["effective"]["pico"] == pytest.approx(cost / mix.output, rel=1e-5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_figure_is_what_the_events_say(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # given: traffic of all kinds over 40 days, counted in uneven parts
    chance = random.Random(seed)  # noqa: S311
    offers = [make_offer(sku) for sku in ("acme/small", "beta/small", "zeta/small")]
    publish("acme/small", ("0.10", "0.05", "0.40"))
    publish("beta/small", ("0.30", "0.10", "0.35"))
    monkeypatch.setattr(measurements, "BATCH_SIZE", 113)
    _happen(chance, offers, 500)
    while measurements.record(now=NOW):
        pass
    post(*(attempt(offer, tenant=3) for offer in offers))
    measurements.record(now=NOW)
    every = list(UsageEvent.objects.order_by("pk"))

    for window in WINDOWS.values():
        # when
        board = leaderboards.compute(offers[0].model, window, now=NOW)

        # then
        events = slow_board.within(every, window.name, NOW)
        mix = slow_board.mix_of(events) or slow_board.Mix(0, 3e6, 0.0, 1e6)
        assert board.mix["requests"] == mix.requests
        assert board.mix["output_tokens"] == pytest.approx(mix.output, abs=1)
        assert board.mix["cached_tokens"] == pytest.approx(mix.cached, abs=1)
        assert board.mix["uncached_tokens"] == pytest.approx(mix.input - mix.cached, abs=1)
        assert board.facts["requests"] == slow_board.attempts(events, every)
        for row in board.rows:
            own = [e for e in events if e.offer_id == row["offer_id"]]
            _assert_row(row, own, every, mix)
        priced = [r for r in board.rows if r["effective"]]
        by_cost = sorted(priced, key=lambda r: (r["effective"]["pico"], r["sku"]))
        assert [r["rank"] for r in by_cost] == [1, 2]
        assert [r["sku"] for r in board.rows] == [r["sku"] for r in by_cost] + ["zeta/small"]

    # and: the home board is of 30 days, on the standard mix
    (home,) = leaderboards.home(now=NOW)
    month = [e for e in slow_board.within(every, "30d", NOW) if e.sku in PRICES]
    assert home.requests == slow_board.attempts(month, every)
    assert home.cheapest is not None
    assert (home.cheapest.sku, home.cheapest.effective_pico) == ("acme/small", 700_000)
    assert home.spread == round(1_250_000 / 700_000, 2)
    speeds = {
        sku: slow_board.percentile(
            slow_board.served(e for e in month if e.sku == sku), "output_tps", 0.5
        )
        for sku in PRICES
    }
    fastest = max((sku for sku in speeds if speeds[sku]), key=lambda sku: speeds[sku] or (0, 0))
    assert home.fastest is not None
    assert home.fastest.sku == fastest
    assert (home.fastest.output_tps_p50, home.fastest.n) == speeds[fastest]
