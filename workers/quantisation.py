"""Which decoder an engine gets: fp32, or int8 where the kernels can be built and are right.

What cannot be had is said once in the log, and the next best runs: the fused decoder, else int8
products layer by layer, else fp32.
"""

import logging
from functools import partial

import torch

from workers.config import EngineConfig
from workers.dynamic import build_for
from workers.families import ModelConfig
from workers.fused import FusedModel, unfit
from workers.kernels.build import CannotBuild, built_library
from workers.kernels.library import Kernels, Unusable
from workers.linear import Int8Maker
from workers.model import Model, load_model
from workers.weights import ReadWeights

logger = logging.getLogger(__name__)


def load(config: EngineConfig) -> Model:
    """The model of `config.model_dir` as `config.quantisation` wants it, or the nearest to it."""
    torch.set_num_threads(config.threads)
    kernels = _open(config) if config.quantisation == "int8" else None
    if kernels is None:
        return load_model(config.model_dir, config.adapter_dir, build=build_for(config))
    # The kernels have threads of their own: two pools that wait by spinning fight over the cores.
    torch.set_num_threads(1)
    build = partial(_build_int8, kernels=kernels, block_size=config.block_size)
    return load_model(config.model_dir, config.adapter_dir, build=build)


def _open(config: EngineConfig) -> Kernels | None:
    try:
        return Kernels(built_library(config.kernel_dir), threads=config.threads)
    except (CannotBuild, Unusable) as error:
        logger.warning("int8 is not available, serving fp32: %s", error)
        return None


def _build_int8(
    shape: ModelConfig, read: ReadWeights, *, kernels: Kernels, block_size: int
) -> Model:
    reason = unfit(shape, block_size=block_size)
    if reason is None:
        return FusedModel(shape, read, kernels=kernels)
    logger.warning("int8 runs layer by layer, not fused: %s", reason)
    return Model(shape, read, make=Int8Maker(kernels))
