"""Drafts under a grammar: what it forces is proposed, and what it forbids is not."""

from workers.speculation.protocol import Draft, Evidence
from workers.text.structured import Grammar

FORCED = Evidence("grammar", strength=0, depth=0)


def constrained(proposed: Draft, grammar: Grammar, limit: int) -> Draft:
    """Forced text is certain, but not its tokens: the model may spell it otherwise."""
    forced = grammar.forced()[:limit]
    if forced:
        return Draft(tokens=forced, evidence=[FORCED] * len(forced))
    permitted = grammar.permitted(proposed.tokens)
    return Draft(tokens=permitted, evidence=proposed.evidence[: len(permitted)])
