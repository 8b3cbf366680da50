"""From a published config.json to the shape of a decoder, family by family.

A family is here only if the decoder computes it exactly; a field that would make it inexact is
refused by name. Weight names are the published ones.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.model.rotary import Rope, yarn_magnitude
from workers.model.shape import Latent, ModelConfig, Sparse, UnsupportedModel

ROPE_KINDS = ("default", "linear", "llama3", "yarn")

NONE = object()


class Fields:
    """A config.json that names the field it misses or refuses."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def get(self, name: str, default: Any = NONE) -> Any:
        value = self.raw.get(name)
        if value is None and default is NONE:
            raise UnsupportedModel(f"config.json lacks {name}")
        return default if value is None else value

    def count(self, name: str, default: Any = NONE) -> int:
        value = self.get(name, default)
        if type(value) is not int or value < 1:
            raise UnsupportedModel(f"config.json: {name} must be a positive number, not {value!r}")
        return value

    def require(self, name: str, wanted: Any) -> None:
        """Refuse the model unless the field is absent or has the one value that is exact."""
        value = self.raw.get(name)
        if value is not None and value != wanted:
            raise UnsupportedModel(f"config.json: {name} = {value!r} is not supported")


def read_config(model_dir: Path) -> ModelConfig:
    """The shape of the folder's model. Raises `UnsupportedModel` with the field that forbids it."""
    fields = Fields(_read_json(model_dir / "config.json"))
    architecture = fields.get("architectures", ["none"])[0]
    read = FAMILIES.get(architecture)
    if read is None:
        raise UnsupportedModel(
            f"config.json: architecture {architecture} is not supported; "
            f"these are: {', '.join(sorted(FAMILIES))}"
        )
    if fields.raw.get("quantization_config"):
        raise UnsupportedModel(
            "config.json: quantization_config is not supported; convert the weights to 16 or 32 bit"
        )
    generation = model_dir / "generation_config.json"
    defaults = _read_json(generation) if generation.is_file() else {}
    ends = [*_as_list(fields.raw.get("eos_token_id")), *_as_list(defaults.get("eos_token_id"))]
    return ModelConfig(
        family=architecture.removesuffix("ForCausalLM"),
        vocab_size=fields.count("vocab_size"),
        hidden_size=fields.count("hidden_size"),
        layers=fields.count("num_hidden_layers"),
        heads=fields.count("num_attention_heads"),
        eos_token_ids=tuple(dict.fromkeys(ends)),
        **read(fields),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise UnsupportedModel(f"{path} is missing: it is no model folder") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnsupportedModel(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise UnsupportedModel(f"{path} is not a JSON object")
    return raw


def _as_list(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _shape(fields: Fields) -> dict[str, Any]:
    """What all families with rotary embedding and gated MLPs have in common."""
    fields.require("hidden_act", "silu")
    heads = fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise UnsupportedModel(
            f"config.json: num_attention_heads {heads} is no multiple of "
            f"num_key_value_heads {kv_heads}"
        )
    head_dim = fields.count("head_dim", fields.count("hidden_size") // heads)
    return {
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "context_length": fields.count("max_position_embeddings"),
        "mlp_width": fields.count("intermediate_size"),
        "norm_eps": fields.get("rms_norm_eps"),
        "tied_embeddings": fields.get("tie_word_embeddings", False),
        "rope": _rope(fields, head_dim),
    }


def _rope(fields: Fields, dim: int) -> Rope:
    raw = fields.raw
    found = Fields({**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})})
    kind = found.get("rope_type", found.get("type", "default"))
    if kind not in ROPE_KINDS:
        raise UnsupportedModel(f"config.json: rope type {kind} is not supported")
    for part in (fields, found):
        part.require("partial_rotary_factor", 1.0)
    found.require("truncate", True)
    theta = found.get("rope_theta", fields.get("rope_theta", 10_000.0))
    if kind == "default":
        return Rope(dim=dim, theta=theta)
    pretrained = fields.get(
        "original_max_position_embeddings", fields.get("max_position_embeddings")
    )
    factor = found.get("factor")
    return Rope(
        dim=dim,
        theta=theta,
        kind=kind,
        factor=factor,
        pretrained_length=found.get("original_max_position_embeddings", pretrained),
        low_frequency_factor=found.get("low_freq_factor", 1.0),
        high_frequency_factor=found.get("high_freq_factor", 4.0),
        beta_fast=found.get("beta_fast", 32.0),
        beta_slow=found.get("beta_slow", 1.0),
        magnitude=_magnitude(found, factor) if kind == "yarn" else 1.0,
    )


def _magnitude(rope: Fields, factor: float) -> float:
    strength, all_dims = rope.get("mscale", 0.0), rope.get("mscale_all_dim", 0.0)
    inferred = yarn_magnitude(factor)
    if strength and all_dims:
        inferred = yarn_magnitude(factor, strength) / yarn_magnitude(factor, all_dims)
    magnitude: float = rope.get("attention_factor", inferred)
    return magnitude


def _within_window(shape: dict[str, Any], window: int | None) -> dict[str, Any]:
    """Cut the context to the sliding window: up to there every key is visible, so it is exact."""
    length = shape["context_length"]
    return {**shape, "context_length": min(length, window) if window else length}


def _llama(fields: Fields) -> dict[str, Any]:
    biased = fields.get("attention_bias", False)
    return {
        **_shape(fields),
        "qkv_bias": biased,
        "output_bias": biased,
        "mlp_bias": fields.get("mlp_bias", False),
    }


def _mistral(fields: Fields) -> dict[str, Any]:
    # A config that says nothing means the window of the first Mistral; null means none.
    window = fields.raw.get("sliding_window", 4096)
    return _within_window(_shape(fields), window)


def _qwen2(fields: Fields) -> dict[str, Any]:
    window = fields.get("sliding_window", None) if fields.raw.get("use_sliding_window") else None
    return {**_within_window(_shape(fields), window), "qkv_bias": True}


def _qwen3(fields: Fields) -> dict[str, Any]:
    fields.raw.setdefault("head_dim", 128)
    biased = fields.get("attention_bias", False)
    biases = {"qkv_bias": biased, "output_bias": biased, "head_norms": "each"}
    return {**_qwen2(fields), **biases}


def _mixtral(fields: Fields) -> dict[str, Any]:
    experts = Sparse(
        layers=frozenset(range(fields.count("num_hidden_layers"))),
        experts=fields.count("num_local_experts"),
        width=fields.count("intermediate_size"),
        top_k=fields.count("num_experts_per_tok"),
        normalised=True,
        gate="block_sparse_moe.gate",
        expert="block_sparse_moe.experts",
        parts=("w1", "w3", "w2"),
    )
    return {**_within_window(_shape(fields), fields.raw.get("sliding_window")), "sparse": experts}


def _olmoe(fields: Fields) -> dict[str, Any]:
    fields.require("clip_qkv", None)
    fields.require("attention_bias", False)
    experts = Sparse(
        layers=frozenset(range(fields.count("num_hidden_layers"))),
        experts=_count_of_experts(fields),
        width=fields.count("intermediate_size"),
        top_k=fields.count("num_experts_per_tok"),
        normalised=fields.get("norm_topk_prob", False),
    )
    return {**_shape(fields), "head_norms": "joint", "sparse": experts}


def _count_of_experts(fields: Fields) -> int:
    """Published configs and those of newer transformers name it differently."""
    names = ("n_routed_experts", "num_experts", "num_local_experts")
    return fields.count(next((name for name in names if name in fields.raw), names[1]))


def _qwen_experts(fields: Fields, *, shared: bool) -> Sparse:
    every = fields.count("decoder_sparse_step", 1)
    dense = set(fields.get("mlp_only_layers", []))
    layers = range(fields.count("num_hidden_layers"))
    return Sparse(
        layers=frozenset(i for i in layers if i not in dense and (i + 1) % every == 0),
        experts=_count_of_experts(fields),
        width=fields.count("moe_intermediate_size"),
        top_k=fields.count("num_experts_per_tok"),
        normalised=fields.get("norm_topk_prob", False),
        shared_width=fields.count("shared_expert_intermediate_size") if shared else 0,
        shared="mlp.shared_expert" if shared else None,
        has_shared_gate=shared,
    )


def _qwen2_moe(fields: Fields) -> dict[str, Any]:
    biased = fields.get("qkv_bias", True)
    return {**_qwen2(fields), "qkv_bias": biased, "sparse": _qwen_experts(fields, shared=True)}


def _qwen3_moe(fields: Fields) -> dict[str, Any]:
    return {**_qwen3(fields), "sparse": _qwen_experts(fields, shared=False)}


def _deepseek(fields: Fields, sparse: Sparse) -> dict[str, Any]:
    """Latent attention: the cache holds one shared head, the latent and the rotated part."""
    fields.require("attention_bias", False)
    fields.require("mlp_bias", False)
    fields.require("rope_interleave", True)
    fields.require("moe_layer_freq", 1)
    rope = _rope(fields, fields.count("qk_rope_head_dim"))
    scaling = fields.raw.get("rope_parameters") or fields.raw.get("rope_scaling") or {}
    strength = scaling.get("mscale_all_dim") if rope.kind != "default" else None
    latent = Latent(
        rank=fields.count("kv_lora_rank"),
        query_rank=fields.raw.get("q_lora_rank"),
        plain_dim=fields.count("qk_nope_head_dim"),
        value_dim=fields.count("v_head_dim"),
        sharpness=yarn_magnitude(rope.factor, strength) ** 2 if strength else 1.0,
    )
    if latent.rank % 2 or latent.plain_dim % 2:
        raise UnsupportedModel("config.json: kv_lora_rank and qk_nope_head_dim must be even")
    return {
        **_shape(fields),
        "rope": rope,
        "kv_heads": 1,
        "head_dim": latent.rank + rope.dim,
        "latent": latent,
        "sparse": sparse,
    }


def _deepseek_sparse(fields: Fields, **choice: Any) -> Sparse:
    first = fields.get("first_k_dense_replace", 0)
    width, shared = fields.count("moe_intermediate_size"), fields.get("n_shared_experts", 0)
    return Sparse(
        layers=frozenset(range(first, fields.count("num_hidden_layers"))),
        experts=_count_of_experts(fields),
        width=width,
        top_k=fields.count("num_experts_per_tok"),
        scale=fields.get("routed_scaling_factor", 1.0),
        shared="mlp.shared_experts" if shared else None,
        shared_width=width * shared,
        **choice,
    )


def _deepseek_v2(fields: Fields) -> dict[str, Any]:
    fields.require("norm_topk_prob", False)
    fields.require("scoring_func", "softmax")
    method = fields.get("topk_method", "greedy")
    if method == "greedy":
        return _deepseek(fields, _deepseek_sparse(fields))
    if method != "group_limited_greedy":
        raise UnsupportedModel(f"config.json: topk_method = {method!r} is not supported")
    groups, kept = fields.count("n_group"), fields.count("topk_group")
    return _deepseek(fields, _deepseek_sparse(fields, groups=groups, groups_kept=kept))


def _deepseek_v3(fields: Fields) -> dict[str, Any]:
    fields.require("scoring_func", "sigmoid")
    fields.require("topk_method", "noaux_tc")
    sparse = _deepseek_sparse(
        fields,
        score="sigmoid",
        normalised=fields.get("norm_topk_prob", True),
        groups=fields.count("n_group", 1),
        groups_kept=fields.count("topk_group", 1),
        has_choice_bias=True,
    )
    return _deepseek(fields, sparse)


def _opt(fields: Fields) -> dict[str, Any]:
    fields.require("activation_function", "relu")
    fields.require("do_layer_norm_before", True)
    fields.require("_remove_final_layer_norm", False)
    fields.require("enable_bias", True)
    fields.require("layer_norm_elementwise_affine", True)
    fields.require("word_embed_proj_dim", fields.count("hidden_size"))
    heads = fields.count("num_attention_heads")
    return {
        "kv_heads": heads,
        "head_dim": fields.count("hidden_size") // heads,
        "context_length": fields.count("max_position_embeddings"),
        "mlp_width": fields.count("ffn_dim"),
        "norm_eps": 1e-5,
        "tied_embeddings": fields.get("tie_word_embeddings", True),
        "rope": None,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    }


FAMILIES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "OPTForCausalLM": _opt,
    "MixtralForCausalLM": _mixtral,
    "OlmoeForCausalLM": _olmoe,
    "Qwen2MoeForCausalLM": _qwen2_moe,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "DeepseekV2ForCausalLM": _deepseek_v2,
    "DeepseekV3ForCausalLM": _deepseek_v3,
}
