"""Which form of the decoder a configuration asks for: the whole one, or one that computes less."""

from workers.config import EngineConfig
from workers.model.contextual import build_contextual
from workers.model.decoder import BuildModel, Model
from workers.model.early_exit import ExitRule, build_early_exit


def build_for(config: EngineConfig) -> BuildModel:
    if config.contextual_sparsity:
        return build_contextual(config.model_dir)
    if config.exit_layer:
        rule = ExitRule(layer=config.exit_layer, confidence=config.exit_confidence)
        return build_early_exit(rule)
    return Model
