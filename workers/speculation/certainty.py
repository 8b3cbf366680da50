"""How certain a network is of its guess, as a kind of evidence."""

from torch import Tensor

# How finely certainty is told apart; 0 is kept for "before it was asked".
CERTAINTIES = 10


def certainties_of(shares: Tensor) -> list[int]:
    """Shares [rows] in 0..1 as classes of evidence, 1 to `CERTAINTIES`."""
    classes: list[int] = (shares * CERTAINTIES).long().clamp_(max=CERTAINTIES - 1).add_(1).tolist()
    return classes
