"""What only a GPU can show: skipped without one. A first run on a new GPU starts here.

`.venv-worker` holds torch's CPU build: run these where torch is built for CUDA, with the rest of
requirements-worker and, for all of them, flash_attn or flash_attn_interface and torchao.
"""

from pathlib import Path

import pytest
import torch

from tests.workers.checkpoints import write_checkpoint
from tests.workers.engines import make_engine, request, run
from workers.cache import paged
from workers.device import HOPPER, send
from workers.engine.energy import meter_for
from workers.engine.engine import Engine
from workers.model import torchao_linear
from workers.model.batch import Part
from workers.server.calibration import calibrate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
NAMES = ["llama", "opt", "qwen3", "qwen2-yarn", "mixtral", "olmoe", "deepseek-v2", "deepseek-v3"]
# Flash attention's smallest head and its page of 256 tokens.
FLASH = {"block_size": 256, "kv_blocks": 12}


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(2, 258, (n,), generator=generator).tolist() for n in (3, 17, 40, 90)]


def requests(**changes):
    return [
        request(str(i), tokens, max_tokens=40, ignore_eos=True, **changes)
        for i, tokens in enumerate(prompts())
    ]


def texts(engine: Engine, **changes) -> list[str]:
    return [answer.text for answer in run(engine, requests(**changes))]


@torch.inference_mode()
def logits_of(engine: Engine, tokens: list[int]) -> torch.Tensor:
    blocks = list(range(1, engine.pool.blocks_for(len(tokens)) + 1))
    layout = engine.forward.layout([Part(tokens, blocks, 0, len(tokens))])
    return engine.model.forward(layout.batch, engine.forward.cache).float().cpu()


def nearly(got: torch.Tensor, wanted: torch.Tensor, least: float) -> bool:
    return float(torch.cosine_similarity(got, wanted, dim=-1).median()) > least


@pytest.mark.parametrize("name", NAMES)
def test_fp32_on_a_gpu_is_fp32_on_a_processor(tmp_path: Path, name: str):
    # given
    folder = write_checkpoint(tmp_path, name)
    here = make_engine(folder)
    there = make_engine(folder, device="cuda", dtype="float32", cuda_graphs=False)
    tokens = prompts()[-1]

    # when
    wanted, got = logits_of(here, tokens), logits_of(there, tokens)

    # then
    spread = float(wanted.std())
    torch.testing.assert_close(got / spread, wanted / spread, rtol=0, atol=1e-3)
    assert texts(there) == texts(here)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "opt", "deepseek-v2"])
def test_recorded_steps_write_what_eager_ones_write(tmp_path: Path, name: str, dtype: str):
    # given
    folder = write_checkpoint(tmp_path, name)
    eager = make_engine(folder, device="cuda", dtype=dtype, cuda_graphs=False)
    recorded = make_engine(folder, device="cuda", dtype=dtype)
    assert recorded.forward.graphs is not None

    # when: the same tokens behind the same text, one step each way
    part = Part([7], [1, 2], first=9, wanted=1)
    for engine in (eager, recorded):
        whole = Part(list(range(5, 14)), [1, 2], first=0, wanted=1)
        engine.model.forward(engine.forward.layout([whole]).batch, engine.forward.cache)
    wanted = eager.forward.compute([part])[1].float()
    got = recorded.forward.compute([part])[1].float()

    # then
    tolerance = 1e-4 if dtype == "float32" else 5e-2
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance * float(wanted.std()))
    if dtype == "float32":
        assert texts(recorded) == texts(eager)


def test_sampled_texts_do_not_depend_on_recording(tiny_model_dir: Path):
    exact = {"device": "cuda", "dtype": "float32"}
    wanted = texts(make_engine(tiny_model_dir, **exact, cuda_graphs=False), temperature=1.0, seed=3)
    assert texts(make_engine(tiny_model_dir, **exact), temperature=1.0, seed=3) == wanted


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_flash_attention_is_near_sdpa(tmp_path: Path, name: str):
    # given
    folder = write_checkpoint(tmp_path, name)
    flash = make_engine(folder, device="cuda", **FLASH)
    if flash.model.kernel is None:
        pytest.skip("no flash attention here")
    sdpa = make_engine(folder, device="cuda", **FLASH, cuda_graphs=False)
    sdpa.model.kernel = None

    # then: a prompt in one piece, and texts in ragged batches that never end in an error
    tokens = prompts()[-1]
    assert nearly(logits_of(flash, tokens), logits_of(sdpa, tokens), 0.999)
    assert all(answer.usage.completion_tokens == 40 for answer in run(flash, requests()))


def test_flash_attention_3_takes_any_page(tmp_path: Path):
    engine = make_engine(write_checkpoint(tmp_path, "llama"), device="cuda", block_size=16)
    if engine.model.kernel is not paged.flash_3:
        pytest.skip("no FlashAttention 3 here")
    sdpa = make_engine(tmp_path, device="cuda", block_size=16, cuda_graphs=False)
    sdpa.model.kernel = None
    tokens = prompts()[-1]
    assert nearly(logits_of(engine, tokens), logits_of(sdpa, tokens), 0.999)


def test_grouped_experts_are_recorded_and_near_the_listed_ones(tmp_path: Path):
    # given: widths that are multiples of 8, as grouped products want them
    folder = write_checkpoint(tmp_path, "mixtral")
    grouped = make_engine(folder, device="cuda")
    if torch.cuda.get_device_capability()[0] < HOPPER:
        pytest.skip("no grouped products here")
    exact = make_engine(folder, device="cuda", dtype="float32")

    # then
    assert not grouped.model.waits_for_counts
    assert grouped.forward.graphs is not None
    assert exact.model.waits_for_counts
    assert exact.forward.graphs is None
    tokens = prompts()[-1]
    assert nearly(logits_of(grouped, tokens), logits_of(exact, tokens), 0.98)
    run(grouped, requests())
    assert sum(map(sum, grouped.model.take_expert_use().tokens.values())) > 0


@pytest.mark.parametrize(("setting", "least"), [("int8", 0.99), ("int4", 0.9)])
def test_torchaos_products_are_near_bf16(tmp_path: Path, setting: str, least: float):
    if torchao_linear.quantization is None:
        pytest.skip("no torchao here")
    folder = write_checkpoint(tmp_path, "llama")
    plain = make_engine(folder, device="cuda")
    quantised = make_engine(folder, device="cuda", quantisation=setting)
    tokens = prompts()[-1]
    assert quantised.model.precision == setting
    assert nearly(logits_of(quantised, tokens), logits_of(plain, tokens), least)
    assert all(answer.usage.completion_tokens == 40 for answer in run(quantised, requests()))


def test_nan_fails_its_request_only(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir, device="cuda")
    for item in requests():
        engine.add(item)
    first = next(s for s in engine.scheduler.waiting if s.request.request_id == "0")
    for _ in range(8):
        engine.step()
    engine.forward.cache.blocks[:, first.table.block_ids[0]] = float("nan")

    # when
    ended = {}
    while engine.has_work:
        for progress in engine.step():
            ended[progress.request_id] = str(progress.finish_reason)

    # then
    assert ended == {"0": "error", "1": "length", "2": "length", "3": "length"}


def test_numbers_leave_from_pinned_memory():
    sent = send([[1, 2], [3]], torch.device("cuda", 0))
    assert [part.tolist() for part in sent] == [[1, 2], [3]]


def test_a_calibration_waits_for_the_device(tiny_model_dir: Path):
    """Time that steps are charged for is the time that passed, less what lies between them."""
    engine = make_engine(tiny_model_dir, device="cuda")
    calibration = calibrate(engine)
    charged = calibration.input_tokens / calibration.input_tokens_per_s
    charged += calibration.output_tokens / calibration.output_tokens_per_s
    assert 0.5 * calibration.seconds < charged <= 1.05 * calibration.seconds


def test_the_meter_reads_the_board_that_computes():
    uuid = torch.cuda.get_device_properties(0).uuid
    assert meter_for(f"GPU-{uuid}").source in ("nvml", "unknown")
