"""Contextual sparsity for ReLU models: compute only the neurons that a token will fire.

In a ReLU MLP a neuron that stays below zero adds nothing, and for one token most do. A small
predictor per layer guesses from the layer's input which will fire (Deja Vu, arXiv 2310.17157), and
only their rows and columns are read. A neuron guessed silent in error changes the text, so this is
off unless asked for, and its cost in quality is measured when the predictors are trained. Long
steps, whose tokens together fire nearly all neurons, are computed in full.
`workers.training.train_contextual` trains the predictors.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workers.model.decoder import MLP, BuildModel, Model
from workers.model.mlp import ReluMLP
from workers.model.shape import ModelConfig, UnsupportedModel
from workers.weights.checkpoint import BadWeights, ReadWeights

PREDICTORS = "contextual.safetensors"
TOKENS_MAX = 4


@dataclass(frozen=True, slots=True)
class Predictor:
    """Scores of a layer's neurons: above zero means that it is expected to fire."""

    down: Tensor  # [rank, hidden]
    up: Tensor  # [width, rank]
    bias: Tensor  # [width], which carries the threshold

    def __call__(self, normed: Tensor) -> Tensor:
        return F.linear(F.linear(normed, self.down), self.up, self.bias)


class ContextualMLP:
    """The MLP over the neurons expected to fire for any of the step's tokens."""

    def __init__(
        self,
        dense: ReluMLP,
        up: tuple[Tensor, Tensor],
        down: tuple[Tensor, Tensor],
        guess: Predictor,
    ) -> None:
        self._dense, self._guess = dense, guess
        self._up, self._up_bias = up
        self._down, self._down_bias = down[0].t().contiguous(), down[1]  # both by neuron

    def __call__(self, normed: Tensor, hidden: Tensor) -> Tensor:
        if len(normed) > TOKENS_MAX:
            return self._dense(normed, hidden)
        firing = (self._guess(normed) > 0).any(0).nonzero()[:, 0]
        up = self._up.index_select(0, firing)
        inner = F.linear(normed, up, self._up_bias.index_select(0, firing)).relu_()
        return torch.addmm(hidden, inner, self._down.index_select(0, firing)).add_(self._down_bias)


class ContextualModel(Model):
    """An OPT whose MLPs are contextually sparse in short steps; both forms stay in memory."""

    def __init__(self, config: ModelConfig, read: ReadWeights, predictors: list[Predictor]) -> None:
        self._predictors = predictors
        super().__init__(config, read)

    def _load_mlp(self, read: ReadWeights, prefix: str, index: int) -> MLP:
        dense = super()._load_mlp(read, prefix, index)
        assert isinstance(dense, ReluMLP)
        width, hidden = self.config.mlp_width, self.config.hidden_size
        up = read(f"{prefix}.fc1.weight", (width, hidden)), read(f"{prefix}.fc1.bias", (width,))
        down = read(f"{prefix}.fc2.weight", (hidden, width)), read(f"{prefix}.fc2.bias", (hidden,))
        return ContextualMLP(dense, up, down, self._predictors[index])


def build_contextual(model_dir: Path) -> BuildModel:
    """For `load_model`. The model is refused unless it is an OPT with trained predictors."""

    def build(config: ModelConfig, read: ReadWeights) -> Model:
        if config.family != "OPT":
            raise UnsupportedModel(
                f"contextual sparsity needs a ReLU model such as OPT: a {config.family} has no "
                "neurons that stay silent (workers/model/computing-less.md has what skipping costs)"
            )
        return ContextualModel(config, read, read_predictors(model_dir, config))

    return build


def read_predictors(model_dir: Path, config: ModelConfig) -> list[Predictor]:
    path = model_dir / PREDICTORS
    if not path.is_file():
        raise BadWeights(
            f"{path} is missing: run python -m workers.training.train_contextual {model_dir}"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            predictors = [
                Predictor(
                    *(opened.get_tensor(f"{index}.{part}") for part in ("down", "up", "bias"))
                )
                for index in range(config.layers)
            ]
    except (OSError, SafetensorError) as error:
        raise BadWeights(f"{path} is damaged or of another model: {error}") from error
    for index, guess in enumerate(predictors):
        if guess.down.shape[1] != config.hidden_size or len(guess.bias) != config.mlp_width:
            raise BadWeights(f"{path}: layer {index} has the shape of another model")
    return predictors
