"""An adapter merged at load gives the model that peft's own sum gives, or is refused by name."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.workers.checkpoints import write_checkpoint
from tests.workers.model.test_families import logits_of, text
from workers.model.decoder import load_model
from workers.weights.checkpoint import BadWeights
from workers.weights.lora import CONFIG, TENSORS

Q = "model.layers.1.self_attn.q_proj"
DOWN = "model.layers.2.mlp.down_proj"
RANKS = {Q: (4, 96, 48), DOWN: (2, 48, 80)}  # rank, out, in


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"), "llama")


def pairs() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return {
        module: tuple(0.3 * torch.randn(shape, generator=generator) for shape in ((r, w), (h, r)))
        for module, (r, h, w) in RANKS.items()
    }


def write_adapter(folder: Path, *, tensors: dict[str, torch.Tensor | None] | None = None, **fields):
    """An adapter as peft saves it, with config fields and tensors changed."""
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 3, "bias": "none", **fields}
    (folder / CONFIG).write_text(json.dumps(settings))
    stored = {
        f"base_model.model.{module}.lora_{part}.weight": tensor
        for module, both in pairs().items()
        for part, tensor in zip("AB", both, strict=True)
    } | (tensors or {})
    kept = {name: tensor for name, tensor in stored.items() if tensor is not None}
    save_file(kept, folder / TENSORS, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("fields", "scales"),
    [
        ({}, {Q: 3 / 4, DOWN: 3 / 2}),
        ({"use_rslora": True}, {Q: 3 / math.sqrt(4), DOWN: 3 / math.sqrt(2)}),
        ({"alpha_pattern": {"q_proj": 8}}, {Q: 8 / 4, DOWN: 3 / 2}),
        ({"alpha_pattern": {r"layers\.2\.mlp\.down_proj": 5}}, {Q: 3 / 4, DOWN: 5 / 2}),
    ],
)
def test_the_merged_model_is_the_sum(
    model_dir: Path, tmp_path: Path, fields: dict[str, object], scales: dict[str, float]
):
    # given: the sum, made with transformers' model
    adapter = write_adapter(tmp_path, **fields)
    oracle = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    with torch.no_grad():
        for module, (down, up) in pairs().items():
            oracle.get_submodule(module).weight += scales[module] * (up @ down)
        wanted = oracle(torch.tensor([text(40)])).logits[0]

    # when
    got = logits_of(load_model(model_dir, adapter), text(40), chunks=(33, 7))

    # then
    spread = float(wanted.std())
    torch.testing.assert_close(got / spread, wanted / spread, rtol=0, atol=1e-4)
    plain = logits_of(load_model(model_dir), text(40), chunks=(33, 7))
    assert float((got - plain).abs().max()) > spread / 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"lora_alpha": None}, "names no peft_type LORA with a lora_alpha"),
        ({"lora_alpha": "16"}, "lora_alpha must be a finite number, not '16'"),
        ({"lora_alpha": True}, "lora_alpha must be a finite number, not True"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a finite number, not nan"),
        ({"use_rslora": "no"}, "use_rslora must be true or false"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern must be an object"),
        ({"alpha_pattern": {"q_proj": "8"}}, "q_proj must be a finite number, not '8'"),
        ({"alpha_pattern": {"q_proj(": 8}}, r"'q_proj\(' is no pattern"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    model_dir: Path, tmp_path: Path, fields: dict[str, object], message: str
):
    with pytest.raises(BadWeights, match=message):
        load_model(model_dir, write_adapter(tmp_path, **fields))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"base_model.model.{Q}.lora_B.weight": None}, "q_proj.lora_B.weight is missing"),
        (
            {f"base_model.model.{Q}.lora_B.weight": torch.zeros(95, 4)},
            r"B \[95, 4\], which do not fit the base model's \[96, 48\]",
        ),
        ({f"base_model.model.{Q}.lora_B.weight": torch.zeros(96, 3)}, "do not fit"),
        (
            {f"base_model.model.{Q}.lora_A.weight": torch.full((4, 48), float("inf"))},
            "holds NaN, infinity",
        ),
        (
            {
                "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(2, 48),
                "base_model.model.model.layers.9.mlp.up_proj.lora_B.weight": torch.zeros(80, 2),
            },
            "the base model has no tensor model.layers.9.mlp.up_proj.weight",
        ),
        ({"base_model.model.lm_head.lora_embedding_A": torch.zeros(2, 2)}, "only LoRA's A and B"),
    ],
)
def test_a_bad_adapter_tensor_is_named(
    model_dir: Path, tmp_path: Path, tensors: dict[str, torch.Tensor | None], message: str
):
    with pytest.raises(BadWeights, match=message):
        load_model(model_dir, write_adapter(tmp_path, tensors=tensors))


def test_an_adapter_that_was_cut_off_is_named(model_dir: Path, tmp_path: Path):
    path = write_adapter(tmp_path) / TENSORS
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BadWeights, match=f"{TENSORS} is not a whole safetensors file"):
        load_model(model_dir, tmp_path)


def test_a_folder_without_an_adapter_is_named(model_dir: Path, tmp_path: Path):
    with pytest.raises(BadWeights, match="it is no adapter folder"):
        load_model(model_dir, tmp_path)


def test_the_adapter_s_own_experts_are_merged(tmp_path: Path):
    # given: an adapter over one expert of a sparse model
    base = write_checkpoint(tmp_path, "mixtral")
    expert = "model.layers.1.block_sparse_moe.experts.3.w2"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    down, up = torch.ones(1, 80), torch.ones(48, 1)
    (adapter / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    names = {f"base_model.model.{expert}.lora_A.weight": down}
    names[f"base_model.model.{expert}.lora_B.weight"] = up
    save_file(names, adapter / TENSORS)

    # then
    weights = load_file(base / "model.safetensors")
    weights[f"{expert}.weight"] += up @ down
    merged = tmp_path / "merged"
    merged.mkdir()
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    (merged / "config.json").write_text((base / "config.json").read_text())
    got = logits_of(load_model(base, adapter), text(30), chunks=(30,))
    assert torch.equal(got, logits_of(load_model(merged), text(30), chunks=(30,)))
