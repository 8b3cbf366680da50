"""Trains a small OPT over bytes for a few minutes: a ReLU model whose neurons are really silent.

No trained OPT comes in a package, and random weights fire half of their neurons at any time. This
one learns Python's language reference, so its sparsity is learned; it is far too small for use.
Run as `python -m bench.engine.tiny_opt FOLDER`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import OPTConfig, OPTForCausalLM

from workers.text.tokenizer import Tokenizer
from workers.training.finetune import read_documents, windows

BATCH = 16
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 20


def write_byte_tokenizer(folder: Path) -> int:
    """Bytes are tokens; returns the size of the vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{char: i + 2 for i, char in enumerate(alphabet)}}
    tokenizer = RustTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    return len(vocabulary)


def train(folder: Path, *, minutes: float) -> float:
    """Train for so many CPU-minutes and save; nats per byte of held-out text."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    size = write_byte_tokenizer(folder)
    config = OPTConfig(
        vocab_size=size,
        hidden_size=256,
        ffn_dim=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        word_embed_proj_dim=256,
        max_position_embeddings=512,
        dropout=0.0,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    model = OPTForCausalLM(config)
    learn, judge = windows(Tokenizer(folder), read_documents(None))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    warm_up = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP_STEPS)
    )
    started, step = time.process_time(), 0
    while time.process_time() - started < minutes * 60:
        batch = learn[torch.randint(len(learn), (BATCH,))]
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        step += 1
        if step % 50 == 0:
            sys.stdout.write(f"step {step}: {float(loss.detach()):.3f} nats per byte\n")
            sys.stdout.flush()
    model.eval()
    model.save_pretrained(folder)
    with torch.no_grad():
        return float(loss_of(model, judge))


def loss_of(model: OPTForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    logits = model(batch[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.tiny_opt", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU time to spend")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loss = train(options.folder, minutes=options.minutes)
    sys.stdout.write(json.dumps({"held_out_nats_per_byte": round(loss, 4)}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
