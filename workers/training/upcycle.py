"""A dense Llama made sparse: every MLP becomes several equal experts behind a gate of zeros.

The result, a Mixtral checkpoint, gives the dense model's own bits (arXiv 2212.05055 calls it sparse
upcycling): a gate of zeros makes all scores equal, so the chosen experts weigh 1, 1/2 or 1/4
exactly, and sums of halves or quarters of equal numbers are exact too. It knows nothing more than
the dense model until it is trained (`workers.training.finetune`), and says in its name what it is.
Run as `python -m workers.training.upcycle`.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, zeros

from workers.config import DEFAULT_MODEL_DIR
from workers.json_values import read_object
from workers.model.families import read_config
from workers.model.shape import UnsupportedModel
from workers.weights.checkpoint import INDEX, SINGLE, BadWeights, Weights

# Sums of more equal parts are no longer exact in whatever order they are added.
EXACT_TOP_K = (1, 2, 4)
MARKER = "upcycled.json"
EXPERT_PARTS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


class CannotUpcycle(RuntimeError):
    """The source or the numbers asked for give no bit-equal sparse model."""


def upcycle(source: Path, target: Path, *, experts: int, top_k: int) -> None:
    """Write `target` from the dense model in `source`; it appears complete or not at all."""
    if target.exists():
        raise CannotUpcycle(f"{target} exists already")
    if top_k not in EXACT_TOP_K or experts & (experts - 1) or not top_k <= experts <= 64:
        raise CannotUpcycle(
            f"{top_k} of {experts} experts would not be bit-equal to the dense model: choose 1, 2 "
            "or 4 of a power of two, at most 64"
        )
    config = read_config(source)
    if config.family != "Llama" or config.qkv_bias or config.mlp_bias:
        raise CannotUpcycle(f"{source} holds a {config.family}; only a Llama without biases can be")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _write_weights(Weights(source), staging, layers=config.layers, experts=experts)
        _copy_the_rest(source, staging, experts=experts, top_k=top_k)
        staging.chmod(0o755)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_weights(weights: Weights, staging: Path, *, layers: int, experts: int) -> None:
    """One shard per layer, and one for what stands outside the layers."""
    places: dict[str, str] = {}
    for index in range(layers):
        prefix = f"model.layers.{index}."
        names = [name for name in weights.names if name.startswith(prefix)]
        gate = zeros(experts, weights.shape(f"{prefix}mlp.gate_proj.weight")[1])
        tensors = {f"{prefix}block_sparse_moe.gate.weight": gate}
        for name in names:
            tensors.update(_copies(name, weights, experts))
        _save(tensors, staging, f"model-layer-{index:03}.safetensors", places)
    outside = [name for name in weights.names if not name.startswith("model.layers.")]
    rest = {name: _read(weights, name) for name in outside}
    _save(rest, staging, "model-rest.safetensors", places)
    listing = {"metadata": {}, "weight_map": places}
    (staging / INDEX).write_text(json.dumps(listing, indent=1))


def _copies(name: str, weights: Weights, experts: int) -> Iterator[tuple[str, Tensor]]:
    prefix, _, part = name.removesuffix(".weight").partition("mlp.")
    tensor = _read(weights, name)
    if not part:
        yield name, tensor
        return
    for expert in range(experts):
        place = f"{prefix}block_sparse_moe.experts.{expert}.{EXPERT_PARTS[part]}.weight"
        # A file holds each tensor once: equal ones that share memory are refused.
        yield place, tensor.clone()


def _read(weights: Weights, name: str) -> Tensor:
    return weights(name, weights.shape(name))


def _save(tensors: dict[str, Tensor], staging: Path, file: str, places: dict[str, str]) -> None:
    save_file(tensors, staging / file, metadata={"format": "pt"})
    (staging / file).chmod(0o644)
    places.update(dict.fromkeys(tensors, file))


def _copy_the_rest(source: Path, staging: Path, *, experts: int, top_k: int) -> None:
    """Tokenizer and texts as they are; the config as a Mixtral's; and where it came from."""
    left_out = {SINGLE, INDEX, "config.json"}
    for path in source.iterdir():
        is_weight = path.suffix == ".safetensors" or path.name in left_out
        # A calibration is that of another model, and its marker another's story.
        if path.is_file() and not is_weight and not path.name.startswith(("calibration", "conv")):
            shutil.copyfile(path, staging / path.name)
    config = read_object(source / "config.json") | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": experts,
        "num_experts_per_tok": top_k,
        "sliding_window": None,
        "dtype": "float32",
    }
    (staging / "config.json").write_text(json.dumps(config, indent=1))
    marker = {"source": source.name, "experts": experts, "top_k": top_k, "trained_steps": 0}
    (staging / MARKER).write_text(json.dumps(marker, indent=1))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.training.upcycle", description=__doc__)
    parser.add_argument("--source", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--target", type=Path, help="default: beside the source")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--top-k", type=int, default=2)
    options = parser.parse_args(arguments)
    name = f"{options.source.name}-upcycled-{options.top_k}-of-{options.experts}"
    target = options.target or options.source.with_name(name)
    try:
        upcycle(options.source, target, experts=options.experts, top_k=options.top_k)
    except (CannotUpcycle, UnsupportedModel, BadWeights) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{target}: bit-equal to {options.source} until it is trained\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
