"""1,051 usage blocks of real answers, rated as an independent library rates them.

`tests/data/usage_bodies.json` is from genai-prices (MIT, see LICENSE-genai-prices beside it); so
are the prices, which our import turns into versions in PostgreSQL first. The counts below are
exact: a row that stops being explained, or starts to be excused, fails.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest

from billing import rating
from billing.money import usd
from billing.prices import imports as price_import
from billing.prices import versions as prices
from billing.rating import Price
from billing.usage import CanonicalUsage
from tests.providers import ground_truth
from tests.providers.ground_truth import ROWS, SAME, WHEN, judge, listings

SOURCE = "genai-prices"
EXPECTED = {
    SAME: 1_008,
    "not in the catalogue": 8,
    "another seller's price": 3,
    "no price at all": 1,
    "embeddings": 13,
    "wrong total": 1,
    "searches": 6,
    "tools of the vendor": 1,
    "pictures in the output": 5,
    "audio at the text price": 2,
    "a pass by another model": 2,
    "several passes": 1,
}


@pytest.fixture
def stored(db: None) -> Mapping[str, tuple[Price, ...]]:
    """The prices in force at WHEN, out of the versions that our import stored."""
    wanted = {ground_truth.sku_of(row) for row in ROWS}
    history = {
        listing.sku: listing.versions
        for listing in listings().values()
        if listing.sku in wanted and listing.versions
    }
    price_import.import_history(history, source=SOURCE, recorded_by="test")
    return prices.in_force(WHEN)


def test_real_answers_cost_what_an_independent_library_says_or_it_is_known_why(
    stored: Mapping[str, tuple[Price, ...]],
) -> None:
    # when
    reasons = Counter(judge(row, ground_truth.rated(row, stored)) for row in ROWS)

    # then
    assert len(ROWS) == 1_051
    assert dict(reasons) == EXPECTED


def test_a_cost_is_reproduced_from_the_stored_version_and_the_stored_usage(
    stored: Mapping[str, tuple[Price, ...]],
) -> None:
    # given
    every = [ground_truth.rated(row, stored) for row in ROWS]
    kept = [
        (msgspec.json.encode(each.usage), each.price.version, each.ours)
        for each in every
        if each.usage is not None and each.price is not None and each.ours is not None
    ]

    # when
    by_version = prices.by_version({version for _, version, _ in kept})
    again = [
        usd(rating.rate(msgspec.json.decode(usage, type=CanonicalUsage), by_version[version]))
        for usage, version, _ in kept
    ]

    # then
    assert len(kept) > 1_000
    assert again == [cost for _, _, cost in kept]
