"""Which decoder an engine gets: by device, and in what precision.

On a processor fp32 or int8, by the kernels where they can be built and are right. What cannot be
had there is said once in the log, and the next best runs: the fused decoder, else int8 products
layer by layer or fp32 in torch. On a GPU bf16 or fp32, or torchao's int8 and int4; what is missing
ends the start.
"""

import logging
from functools import partial

import torch

from workers.cache.paged import choose_kernel
from workers.config import MODEL_PROPOSERS, EngineConfig
from workers.device import DeviceUnavailable, PlacedWeights, Placement
from workers.kernels.build import CannotBuild, built_library
from workers.kernels.library import Kernels, Unusable
from workers.model.decoder import Model, load_model
from workers.model.dynamic import build_for
from workers.model.fused import FusedModel, unfit
from workers.model.shape import ModelConfig
from workers.model.torchao_linear import WeightOnlyMaker
from workers.weights.checkpoint import ReadWeights
from workers.weights.linear import KernelMaker, MakeLinear, PlainLinear

logger = logging.getLogger(__name__)


def load(config: EngineConfig) -> Model:
    """The model of `config.model_dir` as `config.quantisation` wants it, or the nearest to it.

    Raises `DeviceUnavailable` for a device, or products on it, that are not here.
    """
    torch.set_num_threads(config.threads)
    place = Placement.of(config.device, config.dtype)
    if place.device.type != "cpu":
        return _load_on_gpu(config, place)
    if config.quantisation == "int4":
        raise DeviceUnavailable("int4 is there on a GPU only: --device cuda")
    if place.dtype is not torch.float32:
        return _load_placed(config, place)
    build = partial(_build_on_cpu, config=config)
    return load_model(config.model_dir, config.adapter_dir, build=build)


def _build_on_cpu(shape: ModelConfig, read: ReadWeights, *, config: EngineConfig) -> Model:
    """In fp32 or int8; the kernels are looked for only where they would be used."""
    in_torch, is_int8 = build_for(config), config.quantisation == "int8"
    # What computes less reaches into layers, which the kernels do not show.
    if config.is_approximate:
        return in_torch(shape, read)
    reason = unfit(shape, block_size=config.block_size)
    if reason is not None and not is_int8:
        logger.info("fp32 runs layer by layer in torch: %s", reason)
        return in_torch(shape, read)
    kernels = _open(config)
    if kernels is None:
        return in_torch(shape, read)
    # The kernels have threads of their own: two pools that wait by spinning fight over the cores.
    torch.set_num_threads(1)
    precision = "int8" if is_int8 else "float32"
    if reason is None:
        return FusedModel(shape, read, kernels=kernels, precision=precision)
    logger.warning("int8 runs layer by layer, not fused: %s", reason)
    return Model(shape, read, make=KernelMaker(kernels, precision=precision))


def _load_on_gpu(config: EngineConfig, place: Placement) -> Model:
    model = _load_placed(config, place)
    shape = model.config
    model.kernel, reason = choose_kernel(
        place,
        head_dim=shape.head_dim,
        latent=shape.latent is not None,
        block_size=config.block_size,
    )
    logger.info("attention on %s: %s", place.device, reason)
    return model


def _load_placed(config: EngineConfig, place: Placement) -> Model:
    """The plain decoder, whose weights lie at that place; torchao's where it is quantised."""
    refused = [name for name in config.proposers if name in MODEL_PROPOSERS]
    if config.is_approximate or refused:
        what = refused[0] if refused else "computing less"
        raise DeviceUnavailable(f"{what} is there on a processor in fp32 only")
    make: MakeLinear = PlainLinear
    if config.quantisation != "none":
        make = WeightOnlyMaker(config.quantisation)

    def build(shape: ModelConfig, read: ReadWeights) -> Model:
        return Model(shape, PlacedWeights(read, place), make=make)

    return load_model(config.model_dir, config.adapter_dir, build=build)


def _open(config: EngineConfig) -> Kernels | None:
    try:
        return Kernels(built_library(config.kernel_dir), threads=config.threads)
    except (CannotBuild, Unusable) as error:
        if config.quantisation == "int8":
            logger.warning("int8 is not available, serving fp32: %s", error)
        else:
            logger.info("torch computes, not the kernels: %s", error)
        return None
