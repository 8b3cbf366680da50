"""Draft models, heads and phrases for the matrix: those that come with the engine where they fit.

The others are made on the spot, for lossless needs no quality: the draft model is the target's own
first layers as a checkpoint of their own; Medusa starts as the identity and a new EAGLE near it, so
both are now and then right, and mostly wrong.
"""

import json
import shutil
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bench.engine.prompts import ARTICLE
from bench.engine.wire import Settings
from workers.config import DEFAULT_EAGLE, DEFAULT_PHRASES
from workers.speculation.draft_heads import (
    HeadKind,
    HeadShape,
    TrainedHead,
    UnusableHead,
    load_head,
    new_head,
    save_head,
)
from workers.speculation.phrases import (
    SEEN_MIN,
    UnusablePhrases,
    count_phrases,
    load_phrases,
    save_phrases,
)
from workers.text.tokenizer import Tokenizer

DRAFT_DEPTH: Final = 4
# Of five layers, four: enough to be right about half the time.
LAYER_SHARE: Final = 0.8


def settings_for(mode: str, model_dir: Path, folder: Path) -> Settings:
    """What a proposer's engine needs beside its name; files are written once into `folder`."""
    if mode == "draft_model":
        return {"draft_model_dir": _cut_model(model_dir, folder / "first-layers")}
    if mode == "medusa":
        return {"draft_head": _new_head("medusa", model_dir, folder / "medusa.safetensors")}
    if mode == "eagle":
        return _fitting_eagle(model_dir, folder / "eagle.safetensors")
    if mode == "phrases":
        return {"phrases": _fitting_phrases(model_dir, folder / "phrases.npz")}
    return {}


def _fitting_phrases(model_dir: Path, path: Path) -> Path:
    """The table that comes with the engine where it fits, else one of an article's phrases."""
    tokenizer = Tokenizer(model_dir)
    try:
        load_phrases(DEFAULT_PHRASES, tokenizer)
    except UnusablePhrases:
        texts = [tokenizer.encode(ARTICLE)] * max(SEEN_MIN.values())
        save_phrases(path, count_phrases(texts), tokenizer)
        return path
    return DEFAULT_PHRASES


def _fitting_eagle(model_dir: Path, path: Path) -> Settings:
    """The head that comes with the engine where it fits, else a new one."""
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    sizes = {name: config[name] for name in ("hidden_size", "vocab_size")}
    try:
        load_head(DEFAULT_EAGLE, **sizes)
    except UnusableHead:
        return {"draft_head": _new_head("eagle", model_dir, path)}
    return {}


def _cut_model(source: Path, target: Path) -> Path:
    """The first layers of a checkpoint in one file, as a checkpoint of their own."""
    if (target / "config.json").is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    layers = max(1, round(LAYER_SHARE * config["num_hidden_layers"]))
    with safe_open(source / "model.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if _layer(name) < layers]  # noqa: SIM118
        save_file({name: file.get_tensor(name) for name in names}, target / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, target / name)
    text = json.dumps(config | {"num_hidden_layers": layers})
    # Written last: a folder with it is complete.
    (target / "config.json").write_text(text, encoding="utf-8")
    return target


def _layer(tensor: str) -> int:
    """The layer that a tensor belongs to; -1 for embeddings and norms around the layers."""
    parts = tensor.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else -1


def _new_head(kind: HeadKind, model_dir: Path, path: Path) -> Path:
    if not path.is_file():
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        shape = HeadShape(
            kind=kind,
            hidden_size=config["hidden_size"],
            vocab_size=config["vocab_size"],
            depth=DRAFT_DEPTH,
        )
        torch.manual_seed(0)
        save_head(path, TrainedHead(shape, torch.arange(shape.vocab_size), new_head(shape)))
    return path
