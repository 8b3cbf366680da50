"""What computing less costs SmolLM2: an oracle that skips neurons, and exits before the last layer.

SwiGLU neurons are seldom silent, so even an oracle, which sees every activation and leaves out only
the smallest, changes texts: an upper bound on what any predictor could reach. Exits are judged by
the engine's own texts. Run as `python -m bench.engine.dynamic`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from bench.engine.prompts import CLASSES
from workers.config import DEFAULT_MODEL_DIR, EngineConfig
from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest
from workers.model.sampler import SamplingParams
from workers.text.tokenizer import Tokenizer
from workers.training.finetune import read_documents, windows

KEPT = (0.9, 0.75, 0.5)
EXITS = ((15, 0.9), (20, 0.9), (24, 0.9), (27, 0.9), (27, 0.99))
WINDOWS = 8
TOKENS = 48


class Oracle:
    """Keeps only the neurons of each layer that are largest for a token.

    It judges them by their gate, which a predictor would stand for, or by the whole product.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.kept, self.by = 1.0, "gate"
        for layer in model.model.layers:
            layer.mlp.gate_proj.register_forward_hook(self._cut_gate)
            layer.mlp.down_proj.register_forward_pre_hook(self._cut_product)

    def _cut_gate(self, module: torch.nn.Module, inputs: object, gate: Tensor) -> Tensor | None:
        if self.kept == 1.0 or self.by != "gate":
            return None
        return gate.masked_fill(self._is_small(F.silu(gate)), 0.0)

    def _cut_product(self, module: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.kept == 1.0 or self.by != "product":
            return None
        return (inputs[0].masked_fill(self._is_small(inputs[0]), 0.0),)

    def _is_small(self, active: Tensor) -> Tensor:
        count = max(1, round(self.kept * active.shape[-1]))
        limit = active.abs().topk(count, dim=-1).values[..., -1:]
        return active.abs() < limit


@torch.no_grad()
def oracle_cost(model_dir: Path) -> list[dict[str, float | str]]:
    """Change of loss (nats per token) and of the best next token, by share of neurons kept."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    oracle = Oracle(model)
    _, judge = windows(Tokenizer(model_dir), read_documents(None))
    batch = judge[:WINDOWS]
    wanted = batch[:, 1:].flatten()

    def logits_at(kept: float, by: str) -> Tensor:
        oracle.kept, oracle.by = kept, by
        logits: Tensor = model(batch[:, :-1], use_cache=False).logits
        return logits.flatten(0, 1)

    whole = logits_at(1.0, "gate")
    rows: list[dict[str, float | str]] = []
    for by, kept in product(("gate", "product"), KEPT):
        cut = logits_at(kept, by)
        changed = (whole.argmax(-1) != cut.argmax(-1)).float().mean()
        more = F.cross_entropy(cut, wanted) - F.cross_entropy(whole, wanted)
        rows.append(
            {
                "judged_by": by,
                "kept": kept,
                "top_token_changed": round(float(changed), 4),
                "loss_added": round(float(more), 4),
                "tokens": len(wanted),
            }
        )
    return rows


def exit_cost(model_dir: Path, report: Callable[[str], None]) -> list[dict[str, float]]:
    """Texts with exits against the whole model's, one stream: agreement, exits, time."""
    texts = [prompts[0] for prompts in CLASSES.values()]
    whole, whole_s = generate(Engine.load(EngineConfig(model_dir=model_dir)), texts)
    rows = []
    for layer, confidence in EXITS:
        config = EngineConfig(model_dir=model_dir, exit_layer=layer, exit_confidence=confidence)
        engine = Engine.load(config)
        found, seconds = generate(engine, texts)
        same = [agreement(a, b) for a, b in zip(found, whole, strict=True)]
        rows.append(
            {
                "layer": layer,
                "confidence": confidence,
                "exits": round(engine.model.exits / engine.model.steps, 3),
                "same_tokens": round(sum(same) / len(same), 3),
                "texts_unchanged": sum(part == 1 for part in same),
                "texts": len(same),
                "speed_up": round(whole_s / seconds, 3),
            }
        )
        report(json.dumps(rows[-1]))
    return rows


def agreement(found: list[int], wanted: list[int]) -> float:
    """Share of the wanted text that was reproduced before the first other token."""
    same = 0
    for a, b in zip(found, wanted, strict=False):
        if a != b:
            break
        same += 1
    return same / len(wanted)


def generate(engine: Engine, texts: list[str]) -> tuple[list[list[int]], float]:
    """Greedy tokens of each text, one after the other, and the CPU seconds they took."""
    found: list[list[int]] = []
    started = time.process_time()
    for index, content in enumerate(texts):
        engine.add(
            GenerationRequest(
                request_id=str(index),
                prompt=engine.tokenizer.encode_chat([{"role": "user", "content": content}]),
                max_tokens=TOKENS,
                sampling=SamplingParams(temperature=0.0, logprobs=0),
                ignore_eos=True,
            )
        )
        tokens: list[int] = []
        while engine.has_work:
            for progress in engine.step():
                tokens += [entry.token for entry in progress.logprobs]
        found.append(tokens)
    return found, time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.dynamic", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def report(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    for row in oracle_cost(options.model_dir):
        report(json.dumps(row))
    exit_cost(options.model_dir, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
