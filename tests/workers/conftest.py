"""Model folders shared by the engine's tests: a tiny random one, and the real SmolLM2."""

from pathlib import Path

import pytest
import torch

from tests.workers.engines import write_tiny_model
from workers.config import DEFAULT_MODEL_DIR
from workers.convert import convert

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def real_model_dir() -> Path:
    """SmolLM2, converted once per checkout."""
    model_dir = ROOT / DEFAULT_MODEL_DIR
    convert(model_dir, progress=lambda line: None)
    return model_dir
