"""Makes the proposers that a configuration names, or says why one cannot work here."""

from pathlib import Path

from workers.cache.kv import KVCache
from workers.config import DEFAULT_EAGLE, LOOKUPS, EngineConfig
from workers.model.decoder import Model, load_model
from workers.speculation.draft_heads import HeadKind, TrainedHead, UnusableHead, load_head
from workers.speculation.eagle import EagleProposer
from workers.speculation.medusa import MedusaProposer
from workers.speculation.model_draft import DraftModelProposer, SelfDraftProposer
from workers.speculation.ngram import NgramProposer
from workers.speculation.phrases import PhraseProposer, UnusablePhrases, load_phrases
from workers.speculation.protocol import Proposer
from workers.speculation.suffix import SuffixProposer
from workers.text.tokenizer import Tokenizer

DEFAULT_LAYER_SHARE = 0.8


class SpeculationRefused(RuntimeError):
    """The configured speculation cannot work with this model."""


def make_proposers(
    config: EngineConfig, model: Model, cache: KVCache, tokenizer: Tokenizer
) -> dict[str, Proposer]:
    """Proposers by name, in the order of the configuration. Raises `SpeculationRefused`."""
    return {
        name: make_lookup(name, config, tokenizer)
        if name in LOOKUPS
        else _make_model_proposer(name, config, model, cache)
        for name in config.proposers
    }


def make_lookup(name: str, config: EngineConfig, tokenizer: Tokenizer) -> Proposer:
    """One of `LOOKUPS`. Raises `SpeculationRefused`."""
    if name == "ngram":
        return NgramProposer(shortest=config.ngram_min, longest=config.ngram_max)
    if name == "suffix":
        return SuffixProposer(max_tokens=config.suffix_tokens)
    try:
        return PhraseProposer(load_phrases(config.phrases, tokenizer))
    except UnusablePhrases as error:
        raise SpeculationRefused(f"{error}; --phrases names another file") from error


def _make_model_proposer(name: str, config: EngineConfig, model: Model, cache: KVCache) -> Proposer:
    if name == "draft_model":
        return _draft_model(config, model)
    if name == "self_draft":
        return _self_draft(config, model, cache)
    if name == "medusa":
        return MedusaProposer(_trained("medusa", config, model), model)
    return EagleProposer(
        _trained("eagle", config, model),
        model,
        kv_blocks=config.kv_blocks,
        block_size=config.block_size,
    )


def _draft_model(config: EngineConfig, target: Model) -> Proposer:
    if config.draft_model_dir is None:
        raise SpeculationRefused("draft_model needs the folder of a smaller model: --draft-model")
    draft = load_model(config.draft_model_dir)
    if draft.config.vocab_size != target.config.vocab_size or _differ(
        config.draft_model_dir / "tokenizer.json", config.model_dir / "tokenizer.json"
    ):
        raise SpeculationRefused(
            f"{config.draft_model_dir} has another vocabulary than {config.model_dir}: "
            f"{draft.config.vocab_size} and {target.config.vocab_size} tokens"
        )
    return DraftModelProposer(draft, kv_blocks=config.kv_blocks, block_size=config.block_size)


def _differ(one: Path, other: Path) -> bool:
    return one.read_bytes() != other.read_bytes()


def _self_draft(config: EngineConfig, model: Model, cache: KVCache) -> Proposer:
    every = model.config.layers
    layers = config.draft_layers or max(1, round(DEFAULT_LAYER_SHARE * every))
    if layers >= every:
        raise SpeculationRefused(f"self_draft needs fewer layers than the model's {every}")
    return SelfDraftProposer(model, cache, layers=layers)


def _trained(kind: HeadKind, config: EngineConfig, model: Model) -> TrainedHead:
    path = config.draft_head or (DEFAULT_EAGLE if kind == "eagle" else None)
    if path is None:
        raise SpeculationRefused(f"{kind} needs a trained head: --draft-head")
    sizes = model.config
    try:
        trained = load_head(path, hidden_size=sizes.hidden_size, vocab_size=sizes.vocab_size)
    except UnusableHead as error:
        raise SpeculationRefused(f"{error}; --draft-head names another file") from error
    if trained.shape.kind != kind:
        raise SpeculationRefused(f"{path} is a head for {trained.shape.kind}")
    return trained
