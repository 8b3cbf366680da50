"""Trains the predictors of contextual sparsity (`workers.model.contextual`) and measures what they
cost.

They learn from the model's own neurons over a text; thresholds are set on held-out text so that
nearly all neurons that fire are found. The report stands in the file's metadata. Run as
`python -m workers.training.train_contextual MODEL_DIR`.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from workers.model.contextual import PREDICTORS
from workers.model.shape import UnsupportedModel
from workers.text.tokenizer import Tokenizer
from workers.training import command
from workers.training.finetune import read_documents, windows

RANK = 64
# Of the neurons that fire, how many the predictors must find on held-out text.
RECALL = 0.99
BATCH_TOKENS = 256
LEARNING_RATE = 2e-3

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Of held-out text. `firing` and `kept`: shares of all neurons; losses: nats per token."""

    firing: float
    kept: float
    recall: float
    loss_dense: float
    loss_contextual: float
    top_token_changed: float
    tokens: int
    cpu_minutes: float


class Guess(torch.nn.Module):
    """A predictor while it learns."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down = torch.nn.Linear(hidden, RANK, bias=False)
        self.up = torch.nn.Linear(RANK, width)

    def forward(self, normed: Tensor) -> Tensor:
        scores: Tensor = self.up(self.down(normed))
        return scores


class Training:
    """Trains one predictor per layer on what the model's own neurons do over a text."""

    def __init__(self, model_dir: Path, documents: list[str], *, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self._dir = model_dir
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=torch.float32, local_files_only=True
        )
        self._model.train(False)
        if self._model.config.model_type != "opt":
            raise UnsupportedModel(f"{model_dir} is no OPT: contextual sparsity needs ReLU")
        self._learn, self._judge = windows(Tokenizer(model_dir), documents)
        self._layers = list(self._model.model.decoder.layers)
        hidden, width = self._model.config.hidden_size, self._model.config.ffn_dim
        self._guesses = [Guess(hidden, width) for _ in self._layers]
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._silent: list[Tensor] | None = None
        for index, layer in enumerate(self._layers):
            layer.fc1.register_forward_hook(self._watch(index))

    def run(self, minutes: float, *, progress: Progress) -> Report:
        """Train for so many CPU-minutes, set the thresholds, measure, and write the predictors."""
        parameters = [weight for guess in self._guesses for weight in guess.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
        started, step = time.process_time(), 0
        while time.process_time() - started < minutes * 60 or step < 2:
            batch = torch.randint(len(self._learn), (max(1, BATCH_TOKENS // self._learn.shape[1]),))
            self._observe(self._learn[batch])
            loss = torch.stack([self._loss(index) for index in range(len(self._layers))]).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                spent = (time.process_time() - started) / 60
                progress(f"step {step}: loss {float(loss.detach()):.4f}, {spent:.1f} CPU-minutes")
        return self._finish((time.process_time() - started) / 60)

    def _watch(self, index: int) -> Callable[[torch.nn.Module, tuple[Tensor], Tensor], Tensor]:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            normed = inputs[0].flatten(0, -2)
            self._seen.append((normed, output.flatten(0, -2) > 0))
            if self._silent is None:
                return output
            kept = self._guesses[index](normed) > self._silent[index]
            return output.masked_fill(~kept.view_as(output), 0.0)

        return hook

    @torch.no_grad()
    def _observe(self, batch: Tensor) -> Tensor:
        """Logits of a batch; what its neurons were given and did is in `_seen`, layer by layer."""
        self._seen.clear()
        logits: Tensor = self._model(batch, use_cache=False).logits
        return logits

    def _loss(self, index: int) -> Tensor:
        normed, fired = self._seen[index]
        return F.binary_cross_entropy_with_logits(self._guesses[index](normed), fired.float())

    @torch.no_grad()
    def _finish(self, cpu_minutes: float) -> Report:
        dense = self._observe(self._judge[:, :-1])
        judged = list(self._seen)
        scores = [guess(normed) for guess, (normed, _) in zip(self._guesses, judged, strict=True)]
        fired = [neurons for _, neurons in judged]
        thresholds = [
            # The score that all but 1 in 100 of the firing neurons are above.
            score[mask].kthvalue(max(1, int((1 - RECALL) * int(mask.sum())))).values
            for score, mask in zip(scores, fired, strict=True)
        ]
        self._silent = thresholds
        sparse = self._observe(self._judge[:, :-1])
        self._silent = None
        kept = [score > limit for score, limit in zip(scores, thresholds, strict=True)]
        hits = sum(int((keep & mask).sum()) for keep, mask in zip(kept, fired, strict=True))
        total, firing = sum(mask.numel() for mask in fired), sum(int(mask.sum()) for mask in fired)
        wanted = self._judge[:, 1:].flatten()
        report = Report(
            firing=round(firing / total, 4),
            kept=round(sum(int(keep.sum()) for keep in kept) / total, 4),
            recall=round(hits / firing, 4),
            loss_dense=round(float(F.cross_entropy(dense.flatten(0, 1), wanted)), 4),
            loss_contextual=round(float(F.cross_entropy(sparse.flatten(0, 1), wanted)), 4),
            top_token_changed=round(
                float((dense.argmax(-1) != sparse.argmax(-1)).float().mean()), 4
            ),
            tokens=wanted.numel(),
            cpu_minutes=round(cpu_minutes, 2),
        )
        self._write(thresholds, report)
        return report

    def _write(self, thresholds: list[Tensor], report: Report) -> None:
        tensors = {}
        for index, (guess, threshold) in enumerate(zip(self._guesses, thresholds, strict=True)):
            tensors[f"{index}.down"] = guess.down.weight.detach()
            tensors[f"{index}.up"] = guess.up.weight.detach()
            tensors[f"{index}.bias"] = guess.up.bias.detach() - threshold
        partial = self._dir / f"{PREDICTORS}.part"
        save_file(tensors, partial, metadata={"report": json.dumps(asdict(report))})
        partial.rename(self._dir / PREDICTORS)


def main(arguments: list[str] | None = None) -> int:
    options = command.parser("train_contextual", __doc__, minutes=2.0).parse_args(arguments)
    command.begin(options)
    try:
        training = Training(options.model_dir, read_documents(options.text))
        found = training.run(options.minutes, progress=command.report)
        command.report(json.dumps(asdict(found), indent=1))
    except (OSError, ValueError, UnsupportedModel) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
