"""Draws the tokens of one request's step: edited logits, what may not come here, verification."""

import math

import torch
from torch import Tensor

from workers.engine.redraw_verdict import compare
from workers.engine.sequence import Sequence
from workers.model.sampler import Peak, Softmax, draw, edit_logits, uniform, verify


def choose(sequence: Sequence, logits: Tensor, peaks: list[Peak], softmax: Softmax) -> list[int]:
    """The tokens that the step emits: [1 + len(draft)] rows of logits, at least one token.

    `peaks` are those of the rows. Every drawn token is emitted, so a grammar can step along with
    the draws and never has to go back. Raises `GrammarFailed`.
    """
    request, grammar, output = sequence.request, sequence.grammar, sequence.output
    params = request.sampling

    def draw_at(index: int) -> int:
        position = len(output) + index
        chance = uniform(params.seed, position)
        too_early = position < request.min_tokens and bool(sequence.end_tokens)
        if params.is_greedy and not params.edits_logits and grammar is None and not too_early:
            row, token = logits[index], peaks[index].token
        else:
            row = edit_logits(
                logits[index], params, prompt=request.prompt, output=output + sequence.draft[:index]
            )
            if too_early:
                row = row.index_fill(0, torch.tensor(sorted(sequence.end_tokens)), -math.inf)
            if grammar is not None:
                row = row.masked_fill(~grammar.allowed(len(row)), -math.inf)
            token = draw(row, params, chance, softmax)
        if request.expected is not None:
            expected = request.expected[position]
            sequence.verdict = compare(
                row, params, chance=chance, drawn=token, expected=expected, softmax=softmax
            )
        if grammar is not None:
            grammar.accept(token)
        return token

    return verify(sequence.draft, draw_at)
