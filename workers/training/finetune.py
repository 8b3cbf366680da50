"""Trains the last layers' MLPs of a model folder on text: how upcycled experts grow apart.

Only the MLPs (experts and gates where there are any) of the last layers learn, so a few minutes on
a CPU do something. A balancing loss keeps experts from starving. It runs transformers' modelling
code, for its gradients; the folder is replaced when training has ended. The same for a dense
folder is the control: what training alone gives, without experts.
Run as `python -m workers.training.finetune MODEL_DIR`.
"""

import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from workers.device import Clock
from workers.json_values import read_object
from workers.text.tokenizer import Tokenizer
from workers.training import command
from workers.training.upcycle import MARKER

STATE = "finetune.pt"
REPORT = "finetune.json"
WINDOW = 128
WINDOWS_PER_STEP = 4
HELD_OUT_EVERY = 8
HELD_OUT_WINDOWS_MAX = 48
LEARNING_RATE = 1e-4
BALANCE = 0.01
# A gate of zeros and equal experts give each other no gradient: a little noise breaks the tie.
GATE_NOISE = 0.02
SAVE_EVERY_S = 60.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Losses are nats per token of held-out text; `expert_shares` are of the last layer."""

    loss_before: float
    loss_after: float
    steps: int
    tokens: int
    cpu_minutes: float
    layers: int
    divergence: float
    expert_shares: list[float]


def windows(tokenizer: Tokenizer, documents: list[str]) -> tuple[Tensor, Tensor]:
    """Token windows [n, WINDOW + 1] to learn from and, of other documents, to be judged by."""
    parts: tuple[list[int], list[int]] = ([], [])
    for index, document in enumerate(documents):
        parts[index % HELD_OUT_EVERY == 0].extend(tokenizer.encode(document))
    cut = [torch.tensor(part[: len(part) // (WINDOW + 1) * (WINDOW + 1)]) for part in parts]
    learn, judge = (part.view(-1, WINDOW + 1) for part in cut)
    if not len(learn) or not len(judge):
        raise ValueError("there is too little text to learn from and be judged by")
    spread = torch.linspace(0, len(judge) - 1, min(HELD_OUT_WINDOWS_MAX, len(judge))).long()
    return learn, judge[spread]


class Gates:
    """Watches the gates that learn: their scores of the last forward, for balance and report."""

    def __init__(self, model: PreTrainedModel, first_layer: int) -> None:
        self.scores: list[Tensor] = []
        layers = list(model.model.layers)[first_layer:]
        self.gates = [layer.mlp.gate for layer in layers if hasattr(layer.mlp, "gate")]
        for gate in self.gates:
            gate.register_forward_hook(self._note)

    def _note(self, gate: torch.nn.Module, inputs: object, outputs: tuple[Tensor, ...]) -> None:
        self.scores.append(outputs[0].softmax(-1))

    def imbalance(self, top_k: int) -> Tensor:
        """Switch Transformer's balancing loss (arXiv 2101.03961, eq. 4): 1 when all is even."""
        losses = [
            shares(scores, top_k) @ scores.mean(0) * scores.shape[1] for scores in self.scores
        ]
        return torch.stack(losses).mean()


def shares(scores: Tensor, top_k: int) -> Tensor:
    """Part of all choices that fell on each expert: [experts], sums to one."""
    chosen = scores.topk(top_k).indices.flatten()
    return torch.bincount(chosen, minlength=scores.shape[1]).float() / len(chosen)


class Finetuning:
    """One training run over a model folder, which resumes from its last saved state."""

    def __init__(self, model_dir: Path, documents: list[str], *, layers: int, seed: int = 0):
        torch.manual_seed(seed)
        self._dir = model_dir
        self._model = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=torch.float32, local_files_only=True
        )
        if hasattr(self._model.config, "num_local_experts"):
            self._model.set_experts_implementation("eager")
        self._learn, self._judge = windows(Tokenizer(model_dir), documents)
        self._layers = layers
        first = self._model.config.num_hidden_layers - layers
        self._gates = Gates(self._model, first)
        self._learning = list(self._choose_parameters(first))
        self._optimizer = torch.optim.AdamW(self._learning, lr=LEARNING_RATE, weight_decay=0.0)
        self._steps, self._cpu_s = 0, 0.0
        self._loss_before = math.nan

    def run(
        self, minutes: float, *, progress: Progress, clock: Clock = time.process_time
    ) -> Report:
        """Train for so many CPU-minutes in all, earlier runs that were cut off included."""
        if not self._resume():
            self._loss_before = self.held_out_loss()
            for gate in self._gates.gates:
                torch.nn.init.normal_(gate.weight, std=GATE_NOISE)
        progress(f"held-out loss {self._loss_before:.4f} at the start, step {self._steps}")
        before, started, saved = self._cpu_s, clock(), clock()
        while self._cpu_s < minutes * 60:
            loss, imbalance = self._step()
            self._cpu_s = before + clock() - started
            if self._steps % 10 == 0:
                progress(
                    f"step {self._steps}: loss {loss:.3f}, imbalance {imbalance:.3f}, "
                    f"{self._cpu_s / 60:.1f} of {minutes:.1f} CPU-minutes"
                )
            if clock() - saved > SAVE_EVERY_S:
                self._save_state()
                saved = clock()
        return self._finish()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean nats per token."""
        batches = torch.split(self._judge, WINDOWS_PER_STEP)
        total = sum(float(self._loss(batch)) * len(batch) for batch in batches)
        return total / len(self._judge)

    def _choose_parameters(self, first_layer: int) -> Iterator[torch.nn.Parameter]:
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        for layer in list(self._model.model.layers)[first_layer:]:
            for parameter in layer.mlp.parameters():
                yield parameter.requires_grad_(True)

    def _loss(self, batch: Tensor) -> Tensor:
        self._gates.scores.clear()
        logits = self._model(batch[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    def _step(self) -> tuple[float, float]:
        # The order depends on the step alone, so that a resumed run sees what it would have seen.
        order = torch.Generator().manual_seed(self._steps)
        picked = torch.randint(len(self._learn), (WINDOWS_PER_STEP,), generator=order)
        loss = self._loss(self._learn[picked])
        imbalance = torch.ones(())
        if self._gates.gates:
            imbalance = self._gates.imbalance(self._model.config.num_experts_per_tok)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + BALANCE * imbalance)
        torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        self._optimizer.step()
        self._steps += 1
        return float(loss.detach()), float(imbalance.detach())

    def _save_state(self) -> None:
        state = {
            "steps": self._steps,
            "cpu_s": self._cpu_s,
            "loss_before": self._loss_before,
            "layers": self._layers,
            "parameters": [parameter.detach() for parameter in self._learning],
            "optimizer": self._optimizer.state_dict(),
        }
        partial = self._dir / f"{STATE}.part"
        torch.save(state, partial)
        partial.rename(self._dir / STATE)

    def _resume(self) -> bool:
        path = self._dir / STATE
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        if state["layers"] != self._layers:
            raise ValueError(
                f"{path} is of a run over {state['layers']} layers: finish or delete it"
            )
        for parameter, saved in zip(self._learning, state["parameters"], strict=True):
            parameter.data.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps, self._cpu_s = state["steps"], state["cpu_s"]
        self._loss_before = state["loss_before"]
        return True

    def _finish(self) -> Report:
        loss_after = self.held_out_loss()
        used: list[float] = []
        if self._gates.scores:
            scores = self._gates.scores[-1]
            used = shares(scores, self._model.config.num_experts_per_tok).tolist()
        report = Report(
            loss_before=self._loss_before,
            loss_after=loss_after,
            steps=self._steps,
            tokens=self._steps * WINDOWS_PER_STEP * WINDOW,
            cpu_minutes=round(self._cpu_s / 60, 2),
            layers=self._layers,
            divergence=self._divergence(),
            expert_shares=[round(share, 3) for share in used],
        )
        self._replace_folder(report)
        return report

    def _divergence(self) -> float:
        """How far the last layer's experts are from their mean, relative to it; 0 if dense."""
        mlp = list(self._model.model.layers)[-1].mlp
        if not hasattr(mlp, "experts"):
            return 0.0
        stacked: Tensor = mlp.experts.down_proj.detach()
        mean = stacked.mean(0)
        return float((stacked - mean).norm(dim=(1, 2)).mean() / mean.norm())

    def _replace_folder(self, report: Report) -> None:
        """Write everything beside the folder, then swap: there is always a whole model."""
        staging = Path(tempfile.mkdtemp(prefix=f".{self._dir.name}.", dir=self._dir.parent))
        try:
            self._model.save_pretrained(staging, max_shard_size="500MB")
            for path in self._dir.iterdir():
                stale = path.suffix in (".safetensors", ".pt") or path.name.startswith("calib")
                if not stale and path.name != "model.safetensors.index.json":
                    shutil.copyfile(path, staging / path.name)
            (staging / REPORT).write_text(json.dumps(asdict(report), indent=1))
            marker = staging / MARKER
            if marker.is_file():
                facts = {**read_object(marker), "trained_steps": report.steps}
                marker.write_text(json.dumps(facts, indent=1))
            staging.chmod(0o755)
            retired = staging.with_name(f"{staging.name}.old")
            self._dir.rename(retired)
            staging.rename(self._dir)
            shutil.rmtree(retired)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def read_documents(path: Path | None) -> list[str]:
    """A text file, split at blank lines; without one, the Python reference that comes with it."""
    if path is None:
        return [topics[name] for name in sorted(topics)]
    return [part for part in path.read_text().split("\n\n") if part.strip()]


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("finetune", __doc__, minutes=5.0)
    parser.add_argument("--layers", type=int, default=4, help="how many of the last layers learn")
    options = parser.parse_args(arguments)
    command.begin(options)
    try:
        run = Finetuning(options.model_dir, read_documents(options.text), layers=options.layers)
        result = run.run(options.minutes, progress=command.report)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    command.report(
        f"held-out loss {result.loss_before:.4f} -> {result.loss_after:.4f} after {result.steps} "
        f"steps of {WINDOWS_PER_STEP * WINDOW} tokens; experts differ from their mean by "
        f"{100 * result.divergence:.2f} %, shares {result.expert_shares}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
