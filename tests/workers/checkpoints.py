"""Random checkpoints of every family, as transformers writes them, with the tiny tokenizer."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tests.workers.engines import EOS, VOCAB_SIZE, write_tokenizer

SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": EOS,
    "bos_token_id": 0,
    "pad_token_id": None,
    "dtype": "float32",
}
ROUTED = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 8,
    "v_head_dim": 14,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def configs() -> dict[str, PreTrainedConfig]:
    """One small config per family and per way of routing or rotating."""
    plain = {**SHAPE, "head_dim": 16}
    return {
        "llama": LlamaConfig(**plain),
        "llama-biased": LlamaConfig(**plain, attention_bias=True, mlp_bias=True),
        "llama3-rope": LlamaConfig(**plain, rope_parameters=LLAMA3, tie_word_embeddings=True),
        "linear-rope": LlamaConfig(
            **plain, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
        ),
        "mistral": MistralConfig(**plain, sliding_window=None),
        "qwen2": Qwen2Config(**SHAPE),
        "qwen2-yarn": Qwen2Config(**SHAPE, rope_parameters=YARN),
        "qwen3": Qwen3Config(**plain),
        "opt": OPTConfig(
            **{k: v for k, v in SHAPE.items() if k not in ("pad_token_id", "num_key_value_heads")},
            ffn_dim=80,
            word_embed_proj_dim=48,
        ),
        "mixtral": MixtralConfig(**plain, num_local_experts=6),
        "olmoe": OlmoeConfig(**SHAPE, num_experts=6, num_experts_per_tok=2),
        "olmoe-normalised": OlmoeConfig(
            **SHAPE, num_experts=6, num_experts_per_tok=3, norm_topk_prob=True
        ),
        "qwen2-moe": Qwen2MoeConfig(
            **SHAPE, **ROUTED, shared_expert_intermediate_size=40, mlp_only_layers=[1]
        ),
        "qwen3-moe": Qwen3MoeConfig(**plain, **ROUTED, decoder_sparse_step=2, norm_topk_prob=True),
        "deepseek-v2": DeepseekV2Config(**{**SHAPE, **LATENT, "q_lora_rank": None}),
        "deepseek-v2-grouped": DeepseekV2Config(
            **{**SHAPE, **LATENT, "q_lora_rank": 20},
            rope_parameters=YARN,
            topk_method="group_limited_greedy",
            n_group=4,
            topk_group=2,
            routed_scaling_factor=1.7,
        ),
        "deepseek-v3": DeepseekV3Config(
            **{**SHAPE, **LATENT, "q_lora_rank": 20},
            rope_parameters=YARN,
            n_group=4,
            topk_group=2,
        ),
    }


CONFIGS = configs()
SPARSE = [name for name in CONFIGS if "moe" in name or name.startswith(("mixtral", "deepseek"))]


def write_checkpoint(folder: Path, name: str, **how_to_save: object) -> Path:
    """Every parameter is random, norms and biases too: none can be left out unnoticed."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in key and key.endswith("weight"):
                value.copy_(1 + 0.3 * torch.randn_like(value))
            elif key.endswith("e_score_correction_bias"):
                value.copy_(0.2 * torch.randn_like(value))
            elif "inv_freq" not in key:
                value.copy_(0.2 * torch.randn_like(value))
    model.save_pretrained(folder, **how_to_save)
    write_tokenizer(folder)
    return folder
