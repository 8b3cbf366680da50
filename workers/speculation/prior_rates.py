"""How often a guess is taken to be right before anything was learned.

For lookups: shares measured on greedy answers of SmolLM2; by the length of the match on those to
the 32 prompts of the calibration mix (half of them copy), of phrases on those to the bench's tuning
prompts. For proposers that run a model: what they say themselves.
"""

from workers.config import LOOKUPS
from workers.speculation.matching import AGREED, DEPTHS, SHARES
from workers.speculation.network_confidence import CERTAINTIES
from workers.speculation.phrases import NAME as PHRASES
from workers.speculation.policy import PRIOR_ACCEPTANCE, Kind
from workers.speculation.protocol import Evidence

# By the strength of a match.
LOOKUP_RATES = {1: 0.17, 2: 0.55, 3: 0.6, 4: 0.7, 5: 0.8, 6: 0.85, 7: 0.95, 8: 0.97}
# By the tenths of a phrase.
PHRASE_RATES = {2: 0.16, 3: 0.13, 4: 0.18, 5: 0.26, 6: 0.39, 7: 0.53, 8: 0.54, 9: 0.74}


def starting_rates(name: str, *, depth: int) -> dict[Kind, float]:
    """For every kind of evidence that the proposer can give, guessing up to `depth` tokens."""
    if name not in LOOKUPS:
        rates: dict[Kind, float] = {Evidence(name, 0, d): PRIOR_ACCEPTANCE for d in range(depth)}
        for certainty in range(1, CERTAINTIES + 1):
            for d in range(depth):
                rates[Evidence(name, certainty, d)] = (certainty - 0.5) / CERTAINTIES
        return rates
    measured = PHRASE_RATES if name == PHRASES else LOOKUP_RATES
    rates = {Evidence(name, strength, depth=0): rate for strength, rate in measured.items()}
    for share in range(SHARES + 1):
        for d in range(DEPTHS):
            rates[Evidence(name, AGREED + share, d)] = max(0.1, 0.9 * share / SHARES)
    return rates
