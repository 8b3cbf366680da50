"""Tiny models made on the spot, engines over them, and a loop that runs requests to their end."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.metrics import RequestUsage
from workers.engine.sequence import FinishReason, GenerationRequest
from workers.model.sampler import SamplingParams, TokenLogprobs

EOS = 1
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<s>' + message['role'] + ': ' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)


VOCAB_SIZE = 258


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": EOS, **{char: i + 2 for i, char in enumerate(alphabet)}}
    assert len(vocab) == VOCAB_SIZE
    tokenizer = RustTokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))


def write_tiny_model(folder: Path, *, seed: int = 0, context: int = 512) -> Path:
    """A random Llama of three layers with a byte-level tokenizer, as a Hugging Face folder."""
    write_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=96,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=context,
        eos_token_id=EOS,
        tie_word_embeddings=True,
        initializer_range=0.2,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_engine(model_dir: Path, **limits: object) -> Engine:
    settings = {"token_budget": 32, "max_running_requests": 8, "kv_blocks": 96, "block_size": 8}
    config = EngineConfig(model_dir=model_dir, **{**settings, **limits})
    return Engine.load(config)


@dataclass
class Answer:
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: RequestUsage | None = None

    @property
    def tokens(self) -> list[int]:
        return [entry.token for entry in self.logprobs]


def request(name: str, prompt: list[int], *, max_tokens: int = 24, **changes) -> GenerationRequest:
    """A greedy request that reports its tokens; sampling fields and others can be changed."""
    fields = {key: changes.pop(key) for key in _SAMPLING if key in changes}
    sampling = SamplingParams(**{"temperature": 0.0, "logprobs": 0, **fields})
    return GenerationRequest(
        request_id=name, prompt=prompt, max_tokens=max_tokens, sampling=sampling, **changes
    )


_SAMPLING = set(SamplingParams.__dataclass_fields__)


def run(engine: Engine, requests: list[GenerationRequest], *, check: bool = True) -> list[Answer]:
    """Run the requests together; the pool's invariants are checked after every step."""
    answers = {item.request_id: Answer() for item in requests}
    for item in requests:
        engine.add(item)
    finish(engine, answers, check=check)
    return list(answers.values())


def finish(engine: Engine, answers: dict[str, Answer], *, check: bool = True) -> None:
    while engine.has_work:
        for progress in engine.step():
            answer = answers.setdefault(progress.request_id, Answer())
            answer.text += progress.text
            answer.logprobs += progress.logprobs
            answer.finish_reason = progress.finish_reason
            answer.usage = progress.usage
        if check:
            engine.pool.check_integrity(tables(engine))
    assert engine.pool.usage == 0.0


def tables(engine: Engine):
    scheduler = engine.scheduler
    return [sequence.table for sequence in [*scheduler.running, *scheduler.waiting]]
