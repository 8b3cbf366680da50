import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file

from tests.workers.engines import write_tiny_model
from tests.workers.servers import Console, running_console
from workers.server.__main__ import default_name, identity, main, parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("served"), context=1024)


class Process:
    """`python -m workers.server`, read until it serves."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.server", "--port", "0", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"serving on (http://\S+)", line):
                self.url = found[1]
                return
        raise AssertionError("".join(self.lines))

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        output, _ = self.process.communicate(timeout=20)
        self.lines.append(output)
        return self.process.returncode


@pytest.fixture
def served(model_dir: Path) -> Iterator[Process]:
    process = Process("--model-dir", str(model_dir), "--no-bearer", "--model-name", "tiny")
    yield process
    process.process.kill()
    process.process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_cleanly(served: Process, how: signal.Signals):
    # given
    body = {"model": "tiny", "prompt": "abc", "max_tokens": 3, "ignore_eos": True}
    answer = httpx.post(f"{served.url}/v1/completions", json=body, trust_env=False, timeout=20)

    # when
    code = served.end(how)

    # then
    assert answer.json()["usage"]["completion_tokens"] == 3
    assert code in (0, -how)
    assert "Traceback" not in "".join(served.lines)


def test_it_registers_the_address_it_serves_on(model_dir: Path, tmp_path: Path):
    # given
    key = tmp_path / "key"
    key.write_text("wk-1-secret\n")
    console = Console()

    # when
    with running_console(console) as url:
        flags = ["--model-dir", str(model_dir), "--gateway", url, "--worker-key-file", str(key)]
        process = Process(*flags, "--usd-per-hour", "1.25", "--name", "alpha")
        [body] = console.wait_for("/api/workers/register", 1)
        process.end(signal.SIGTERM)

    # then
    assert console.calls[0][1] == "Bearer wk-1-secret"
    assert (body["name"], body["usd_per_hour"], body["usd_per_hour_source"]) == (
        "alpha",
        "1.25",
        "entered",
    )
    assert body["base_url"] == process.url
    assert len(body["bearer"]) >= 32


def test_an_adapter_is_an_offer_of_its_own(model_dir: Path, tmp_path: Path):
    # given: an adapter over one matrix of the model
    adapter = tmp_path / "lawyer-7b"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 2}')
    names = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    pair = {names.format("A"): torch.ones(1, 96), names.format("B"): torch.ones(96, 1)}
    save_file(pair, adapter / "adapter_model.safetensors")

    # when
    console = Console()
    with running_console(console) as url:
        flags = ["--model-dir", str(model_dir), "--adapter", str(adapter)]
        process = Process(*flags, "--gateway", url, "--worker-key", "k", "--usd-per-hour", "2")
        [body] = console.wait_for("/api/workers/register", 1)
        process.end(signal.SIGTERM)

    # then
    assert body["model"] == "lawyer-7b"
    assert body["usd_per_hour"] == "2"
    assert "lora" in body["techniques"]


def break_tensor(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    return "model.safetensors is not a whole safetensors file"


def break_config(folder: Path) -> str:
    (folder / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    return "architecture GPT2LMHeadModel is not supported"


def break_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "tokenizer.json is missing"


def break_vocabulary(folder: Path) -> str:
    path = folder / "tokenizer.json"
    known = json.loads(path.read_text())
    known["model"]["vocab"]["one too many"] = 258
    path.write_text(json.dumps(known))
    return "the tokenizer knows 259 tokens, the model 258"


def break_folder(folder: Path) -> str:
    shutil.rmtree(folder)
    return "config.json is missing: it is no model folder"


@pytest.mark.parametrize(
    "damage", [break_tensor, break_config, break_tokenizer, break_vocabulary, break_folder]
)
def test_a_damaged_model_is_one_clear_line(
    model_dir: Path,
    tmp_path: Path,
    damage: Callable[[Path], str],
    capsys: pytest.CaptureFixture[str],
):
    # given
    folder = tmp_path / "mine"
    shutil.copytree(model_dir, folder)
    message = damage(folder)

    # then
    assert main(["--model-dir", str(folder), "--port", "0", "--no-bearer"]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_more_blocks_than_memory_holds_is_one_clear_line(
    model_dir: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--port", "0", "--no-bearer", "--kv-blocks", "1000000000"]
    assert main(["--model-dir", str(model_dir), *flags]) == 1
    error = capsys.readouterr().err
    assert "1000000000 blocks of 16 tokens need" in error
    assert "set --kv-blocks" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--gateway", "http://x"],
        ["--gateway", "http://x", "--worker-key", "k", "--host", "0.0.0.0"],
        ["--gateway", "http://x", "--worker-key", "k", "--no-bearer"],
        ["--speculation", "magic"],
        ["--quantisation", "int3"],
        ["--kv-blocks", "1"],
    ],
)
def test_flags_that_cannot_work_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(flags)
    assert caught.value.code == 2


def test_a_price_nobody_entered_is_called_assumed():
    # when
    options = parse(["--gateway", "http://x", "--worker-key", "k"])
    worker = identity(options, bearer="b", model_name="m", base_url="http://here:1")

    # then
    assert (worker.usd_per_hour, worker.usd_per_hour_source) == ("0.10", "assumed")


@pytest.mark.parametrize(
    ("host", "name"),
    [("Ada's-Mac.local", "ada-s-mac.local-8101"), ("gpu_7", "gpu-7-8101"), ("--", "worker-8101")],
)
def test_a_default_name_is_one_a_console_takes(host: str, name: str):
    assert default_name(host, 8101) == name
