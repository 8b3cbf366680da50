"""Drafts under a grammar: what it forces is proposed, and what it forbids is not."""

from workers.speculation.protocol import Draft
from workers.structured import Grammar

# Beyond every length of a match, so that forced text has an acceptance rate of its own.
FORCED = 1_000


def constrained(proposed: Draft, grammar: Grammar, limit: int) -> Draft:
    """Forced text is certain, but not its tokens: the model may spell it otherwise."""
    forced = grammar.forced()[:limit]
    if forced:
        return Draft(tokens=forced, evidence=FORCED)
    return Draft(tokens=grammar.permitted(proposed.tokens), evidence=proposed.evidence)
