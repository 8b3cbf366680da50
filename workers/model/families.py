"""From a published config.json to the shape of a decoder, family by family.

A family is here only if the decoder computes it exactly; a field that would make it inexact is
refused by name. Weight names are the published ones.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from workers.json_values import Fields, JsonRefused, read_object
from workers.model.rotary import Rope, RopeKind, yarn_magnitude
from workers.model.shape import Latent, ModelConfig, Sparse, UnsupportedModel

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
ROPE_KINDS: Final[dict[str, RopeKind]] = {kind: kind for kind in get_args(RopeKind)}
CAUSAL: Final = "ForCausalLM"


def read_config(model_dir: Path) -> ModelConfig:
    """The shape of the folder's model. Raises `UnsupportedModel` with the field that forbids it."""
    try:
        return _read(model_dir)
    except FileNotFoundError as error:
        raise UnsupportedModel(f"{error.filename} is missing: it is no model folder") from None
    except JsonRefused as error:
        raise UnsupportedModel(str(error)) from error


def _read(model_dir: Path) -> ModelConfig:
    fields = Fields(read_object(model_dir / CONFIG), source=CONFIG)
    architecture = _architecture(fields)
    family = FAMILIES.get(architecture)
    if family is None:
        raise JsonRefused(
            f"{CONFIG}: architecture {architecture} is not supported; "
            f"these are: {', '.join(sorted(FAMILIES))}"
        )
    if fields.raw.get("quantization_config"):
        raise JsonRefused(
            f"{CONFIG}: quantization_config is not supported; convert the weights to 16 or 32 bit"
        )
    config = family(fields)
    generation = model_dir / GENERATION
    defaults = Fields(read_object(generation) if generation.is_file() else {}, source=GENERATION)
    ends = [*config.eos_token_ids, *defaults.whole_numbers("eos_token_id")]
    return replace(config, eos_token_ids=tuple(dict.fromkeys(ends)))


def _architecture(fields: Fields) -> str:
    listed = fields.raw.get("architectures")
    return str(listed[0]) if isinstance(listed, list) and listed else "none"


def _rotary(fields: Fields) -> ModelConfig:
    """What all families with rotary embedding and gated MLPs have in common."""
    fields.require("hidden_act", "silu")
    heads = fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise JsonRefused(
            f"{CONFIG}: num_attention_heads {heads} is no multiple of "
            f"num_key_value_heads {kv_heads}"
        )
    head_dim = fields.count("head_dim", fields.count("hidden_size") // heads)
    return ModelConfig(
        family=_architecture(fields).removesuffix(CAUSAL),
        vocab_size=fields.count("vocab_size"),
        hidden_size=fields.count("hidden_size"),
        layers=fields.count("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context_length=fields.count("max_position_embeddings"),
        mlp_width=fields.count("intermediate_size"),
        norm_eps=fields.number("rms_norm_eps"),
        tied_embeddings=fields.flag("tie_word_embeddings", False),
        eos_token_ids=tuple(fields.whole_numbers("eos_token_id")),
        rope=_rope(fields, head_dim),
    )


def _scaling(fields: Fields) -> Fields:
    """How positions are scaled: published configs and newer ones name the object differently."""
    both = {**fields.within("rope_scaling"), **fields.within("rope_parameters")}
    return Fields(both, source=CONFIG)


def _rope(fields: Fields, dim: int) -> Rope:
    found = _scaling(fields)
    stated = found.text("rope_type", found.text("type", "default"))
    kind = ROPE_KINDS.get(stated)
    if kind is None:
        raise JsonRefused(f"{CONFIG}: rope type {stated} is not supported")
    for part in (fields, found):
        part.require("partial_rotary_factor", 1.0)
    found.require("truncate", True)
    theta = found.number("rope_theta", fields.number("rope_theta", 10_000.0))
    if kind == "default":
        return Rope(dim=dim, theta=theta)
    original = "original_max_position_embeddings"
    pretrained = fields.count(original, fields.count("max_position_embeddings"))
    factor = found.number("factor")
    return Rope(
        dim=dim,
        theta=theta,
        kind=kind,
        factor=factor,
        pretrained_length=found.count(original, pretrained),
        low_frequency_factor=found.number("low_freq_factor", 1.0),
        high_frequency_factor=found.number("high_freq_factor", 4.0),
        beta_fast=found.number("beta_fast", 32.0),
        beta_slow=found.number("beta_slow", 1.0),
        magnitude=_magnitude(found, factor) if kind == "yarn" else 1.0,
    )


def _magnitude(rope: Fields, factor: float) -> float:
    strength, all_dims = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    inferred = yarn_magnitude(factor)
    if strength and all_dims:
        inferred = yarn_magnitude(factor, strength) / yarn_magnitude(factor, all_dims)
    return rope.number("attention_factor", inferred)


def _window(fields: Fields) -> int:
    """The sliding window; 0 for none, which some configs write as null."""
    return fields.count("sliding_window", 0, least=0)


def _within(window: int, config: ModelConfig) -> ModelConfig:
    """Cut the context to the sliding window: up to there every key is visible, so it is exact."""
    length = config.context_length
    return replace(config, context_length=min(length, window) if window else length)


def _llama(fields: Fields) -> ModelConfig:
    biased = fields.flag("attention_bias", False)
    return replace(
        _rotary(fields),
        qkv_bias=biased,
        output_bias=biased,
        mlp_bias=fields.flag("mlp_bias", False),
    )


def _mistral(fields: Fields) -> ModelConfig:
    # A config that says nothing means the window of the first Mistral; null means none.
    window = _window(fields) if "sliding_window" in fields else 4096
    return _within(window, _rotary(fields))


def _qwen2(fields: Fields) -> ModelConfig:
    window = _window(fields) if fields.flag("use_sliding_window", False) else 0
    return replace(_within(window, _rotary(fields)), qkv_bias=True)


def _qwen3(fields: Fields) -> ModelConfig:
    biased = fields.flag("attention_bias", False)
    read = _qwen2(Fields({"head_dim": 128, **fields.raw}, source=fields.source))
    return replace(read, qkv_bias=biased, output_bias=biased, head_norms="each")


def _mixtral(fields: Fields) -> ModelConfig:
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
    return replace(_within(_window(fields), _rotary(fields)), sparse=experts)


def _olmoe(fields: Fields) -> ModelConfig:
    fields.require("clip_qkv", None)
    fields.require("attention_bias", False)
    experts = Sparse(
        layers=frozenset(range(fields.count("num_hidden_layers"))),
        experts=_count_of_experts(fields),
        width=fields.count("intermediate_size"),
        top_k=fields.count("num_experts_per_tok"),
        normalised=fields.flag("norm_topk_prob", False),
    )
    return replace(_rotary(fields), head_norms="joint", sparse=experts)


def _count_of_experts(fields: Fields) -> int:
    """Published configs and those of newer transformers name it differently."""
    names = ("n_routed_experts", "num_experts", "num_local_experts")
    return fields.count(next((name for name in names if name in fields), names[1]))


def _qwen_experts(fields: Fields, *, shared: bool) -> Sparse:
    every = fields.count("decoder_sparse_step", 1)
    dense = set(fields.whole_numbers("mlp_only_layers"))
    layers = range(fields.count("num_hidden_layers"))
    return Sparse(
        layers=frozenset(i for i in layers if i not in dense and (i + 1) % every == 0),
        experts=_count_of_experts(fields),
        width=fields.count("moe_intermediate_size"),
        top_k=fields.count("num_experts_per_tok"),
        normalised=fields.flag("norm_topk_prob", False),
        shared_width=fields.count("shared_expert_intermediate_size") if shared else 0,
        shared="mlp.shared_expert" if shared else None,
        has_shared_gate=shared,
    )


def _qwen2_moe(fields: Fields) -> ModelConfig:
    experts = _qwen_experts(fields, shared=True)
    return replace(_qwen2(fields), qkv_bias=fields.flag("qkv_bias", True), sparse=experts)


def _qwen3_moe(fields: Fields) -> ModelConfig:
    return replace(_qwen3(fields), sparse=_qwen_experts(fields, shared=False))


def _deepseek(fields: Fields, sparse: Sparse) -> ModelConfig:
    """Latent attention: the cache holds one shared head, the latent and the rotated part."""
    fields.require("attention_bias", False)
    fields.require("mlp_bias", False)
    fields.require("rope_interleave", True)
    fields.require("moe_layer_freq", 1)
    rope = _rope(fields, fields.count("qk_rope_head_dim"))
    strength = _scaling(fields).number("mscale_all_dim", 0.0) if rope.kind != "default" else 0.0
    latent = Latent(
        rank=fields.count("kv_lora_rank"),
        query_rank=fields.count("q_lora_rank") if fields.has("q_lora_rank") else None,
        plain_dim=fields.count("qk_nope_head_dim"),
        value_dim=fields.count("v_head_dim"),
        sharpness=yarn_magnitude(rope.factor, strength) ** 2 if strength else 1.0,
    )
    if latent.rank % 2 or latent.plain_dim % 2:
        raise JsonRefused(f"{CONFIG}: kv_lora_rank and qk_nope_head_dim must be even")
    return replace(
        _rotary(fields),
        rope=rope,
        kv_heads=1,
        head_dim=latent.rank + rope.dim,
        latent=latent,
        sparse=sparse,
    )


def _deepseek_sparse(fields: Fields) -> Sparse:
    first = fields.count("first_k_dense_replace", 0, least=0)
    width = fields.count("moe_intermediate_size")
    shared = fields.count("n_shared_experts", 0, least=0)
    return Sparse(
        layers=frozenset(range(first, fields.count("num_hidden_layers"))),
        experts=_count_of_experts(fields),
        width=width,
        top_k=fields.count("num_experts_per_tok"),
        scale=fields.number("routed_scaling_factor", 1.0),
        shared="mlp.shared_experts" if shared else None,
        shared_width=width * shared,
    )


def _deepseek_v2(fields: Fields) -> ModelConfig:
    fields.require("norm_topk_prob", False)
    fields.require("scoring_func", "softmax")
    method, sparse = fields.text("topk_method", "greedy"), _deepseek_sparse(fields)
    if method == "greedy":
        return _deepseek(fields, sparse)
    if method != "group_limited_greedy":
        raise JsonRefused(f"{CONFIG}: topk_method = {method!r} is not supported")
    groups, kept = fields.count("n_group"), fields.count("topk_group")
    return _deepseek(fields, replace(sparse, groups=groups, groups_kept=kept))


def _deepseek_v3(fields: Fields) -> ModelConfig:
    fields.require("scoring_func", "sigmoid")
    fields.require("topk_method", "noaux_tc")
    sparse = replace(
        _deepseek_sparse(fields),
        score="sigmoid",
        normalised=fields.flag("norm_topk_prob", True),
        groups=fields.count("n_group", 1),
        groups_kept=fields.count("topk_group", 1),
        has_choice_bias=True,
    )
    return _deepseek(fields, sparse)


def _opt(fields: Fields) -> ModelConfig:
    hidden_size = fields.count("hidden_size")
    fields.require("activation_function", "relu")
    fields.require("do_layer_norm_before", True)
    fields.require("_remove_final_layer_norm", False)
    fields.require("enable_bias", True)
    fields.require("layer_norm_elementwise_affine", True)
    fields.require("word_embed_proj_dim", hidden_size)
    heads = fields.count("num_attention_heads")
    return ModelConfig(
        family=_architecture(fields).removesuffix(CAUSAL),
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        layers=fields.count("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden_size // heads,
        context_length=fields.count("max_position_embeddings"),
        mlp_width=fields.count("ffn_dim"),
        norm_eps=1e-5,
        tied_embeddings=fields.flag("tie_word_embeddings", True),
        eos_token_ids=tuple(fields.whole_numbers("eos_token_id")),
        rope=None,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    )


FAMILIES: dict[str, Callable[[Fields], ModelConfig]] = {
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
