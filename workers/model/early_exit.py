"""Early exit: a token that half the layers are sure of skips the others.

After `layer` layers the head is read; where every text of the step is that sure of its next token,
the step ends there. The skipped layers still get keys and values, computed from the hidden state
they did not refine (state propagation, arXiv 2207.07061), so later tokens can attend to it. The
text changes wherever an early guess is wrong: this is off unless asked for, and
workers/model/computing-less.md has what it costs. Prompts are always computed in full.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.cache.kv import KVCache
from workers.model.attention_heads import GroupedHeads
from workers.model.decoder import Batch, BuildModel, Model
from workers.model.shape import ModelConfig, UnsupportedModel
from workers.weights.checkpoint import ReadWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRule:
    """Leave after `layer` layers when the best token's probability is at least `confidence`."""

    layer: int
    confidence: float


class EarlyExitModel(Model):
    """A decoder that may stop early; `steps` and `exits` count what it did."""

    def __init__(self, config: ModelConfig, read: ReadWeights, rule: ExitRule) -> None:
        if rule.layer >= config.layers:
            raise UnsupportedModel(f"an exit after layer {rule.layer} of {config.layers} is none")
        if config.latent is not None:
            raise UnsupportedModel("early exit is not there for latent attention")
        self._rule = rule
        self.steps = self.exits = 0
        self._decided: Tensor | None = None
        super().__init__(config, read)

    @torch.inference_mode()
    def hidden_states(self, batch: Batch, cache: KVCache, *, depth: int | None = None) -> Tensor:
        """Those of the exit, where it is taken: for `logits`, which knows them already."""
        self._decided = None
        if depth is not None or len(batch.logit_rows) < len(batch.tokens):
            return super().hidden_states(batch, cache, depth=depth)
        self.steps += 1
        step = self._step(batch, cache)
        hidden = self._run(self._embed(batch), step, range(self._rule.layer))
        logits = super().logits(hidden)
        rest = range(self._rule.layer, self.config.layers)
        if float(logits.softmax(-1).amax(-1).min()) < self._rule.confidence:
            return self._run(hidden, step, rest)
        self.exits += 1
        self._decided = logits
        for index in rest:
            layer = self._layers[index]
            assert isinstance(layer.heads, GroupedHeads)
            layer.heads.remember(layer.input_norm(hidden), index, step)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        if self._decided is None:
            return super().logits(hidden)
        decided, self._decided = self._decided, None
        return decided


def build_early_exit(rule: ExitRule) -> BuildModel:
    """For `load_model`."""
    return lambda config, read: EarlyExitModel(config, read, rule)
