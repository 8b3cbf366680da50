"""Sums of what an engine did, as prices are made of them."""

from dataclasses import dataclass


@dataclass(slots=True)
class Totals:
    """Sums since the engine started. Seconds are engine time, split by who the tokens were for."""

    input_tokens_uncached: int = 0
    input_tokens_cached: int = 0
    output_tokens: int = 0
    input_seconds: float = 0.0
    output_seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0
    steps: int = 0
    audits_same: int = 0
    audits_tie: int = 0
    audits_different: int = 0
    audit_seconds: float = 0.0
    # Parts of the seconds above: choosing drafts; experts beside their products.
    draft_seconds: float = 0.0
    dispatch_seconds: float = 0.0
    joules: float = 0.0
