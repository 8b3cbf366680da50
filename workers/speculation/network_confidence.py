"""What a network guesses, and how certain it is of it, as a kind of evidence."""

import torch
from torch import Tensor

# How finely certainty is told apart; 0 is kept for "before it was asked".
CERTAINTIES = 10


def best_guesses(logits: Tensor) -> tuple[Tensor, list[int]]:
    """For logits [rows, tokens] the likeliest of each row [rows], and the class of its share of the
    softmax, 1 to `CERTAINTIES`."""
    shares, guesses = torch.softmax(logits, -1).max(-1)
    classes = (shares * CERTAINTIES).long().clamp_(max=CERTAINTIES - 1).add_(1)
    return guesses, classes.tolist()
