"""Every family computes what transformers computes, and what would not be exact is refused."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.workers.checkpoints import CONFIGS, SPARSE, write_checkpoint
from tests.workers.engines import make_engine, request, run
from workers.cache.attention import Bucket, Span
from workers.engine.engine import Engine
from workers.model.decoder import Batch, Model, load_model
from workers.model.families import read_config
from workers.model.shape import UnsupportedModel
from workers.speculation.policy import CostCurve
from workers.weights.checkpoint import BadWeights

BLOCK_SIZE = 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    @cache
    def write(name: str) -> Path:
        return write_checkpoint(tmp_path_factory.mktemp(name), name)

    return write


@cache
def oracle(model_dir: Path) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(model_dir, local_files_only=True)
    return model.eval()


def logits_of(model: Model, tokens: list[int], *, chunks: tuple[int, ...]) -> torch.Tensor:
    """Logits [tokens, vocab] of one text, computed in chunks over a cache of its own."""
    blocks = -(-len(tokens) // BLOCK_SIZE)
    cache = model.new_cache(num_blocks=blocks + 1, block_size=BLOCK_SIZE)
    table = list(range(1, blocks + 1))
    rows, start = [], 0
    for count in chunks:
        span = Span(table, start, count)
        group = model.config.group
        bucket = Bucket([span], start=0, block_size=BLOCK_SIZE, group=group)
        positions = torch.arange(start, start + count)
        batch = Batch(
            tokens=torch.tensor(tokens[start : start + count]),
            positions=positions,
            slots=positions + BLOCK_SIZE,
            buckets=[bucket],
            logit_rows=torch.arange(count),
        )
        rows.append(model.forward(batch, cache))
        start += count
    assert start == len(tokens)
    return torch.cat(rows)


def text(length: int = 90) -> list[int]:
    return torch.randint(2, 258, (length,), generator=torch.Generator().manual_seed(2)).tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_those_of_transformers(checkpoint, name: str):
    # given: a text past the length that the rope scalings call pretrained
    model_dir = checkpoint(name)
    tokens = text()
    with torch.no_grad():
        wanted = oracle(model_dir)(torch.tensor([tokens])).logits[0]

    # when
    got = logits_of(load_model(model_dir), tokens, chunks=(40, 7, 1, 1, 41))

    # then
    spread = float(wanted.std())
    torch.testing.assert_close(got / spread, wanted / spread, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SPARSE)
def test_experts_stacked_in_one_tensor_are_the_same_experts(checkpoint, tmp_path: Path, name: str):
    # given
    stacked = write_checkpoint(tmp_path, name, save_original_format=False)
    assert any(key.endswith("experts.gate_up_proj") for key in load_file(stacked / FILE))

    # when
    got = logits_of(load_model(stacked), text(20), chunks=(20,))

    # then
    wanted = logits_of(load_model(checkpoint(name)), text(20), chunks=(20,))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("speculation", ["off", "ngram"])
@pytest.mark.parametrize("name", CONFIGS)
def test_preempted_and_drafted_texts_are_those_of_transformers(
    checkpoint, name: str, speculation: str, monkeypatch: pytest.MonkeyPatch
):
    # given: prompts that repeat, room for about two of the five, and drafts that cost nothing
    monkeypatch.setattr(Engine, "measure_costs", lambda self: CostCurve([(1, 1.0), (64, 1.0)]))
    model_dir = checkpoint(name)
    engine = make_engine(model_dir, speculation=speculation, kv_blocks=26)
    prompts = [text(n)[: n // 2 + 1] * 2 for n in (3, 17, 40, 40, 66)]

    # when
    answers = run(
        engine,
        [request(str(i), p, max_tokens=40, ignore_eos=True) for i, p in enumerate(prompts)],
    )

    # then
    assert engine.scheduler.stats.preemptions > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            rows = oracle(model_dir)(torch.tensor([prompt + answer.tokens])).logits[0]
        for row, token in zip(rows[len(prompt) - 1 :], answer.tokens, strict=False):
            assert float(row.max() - row[token]) <= 2e-3
    if speculation == "ngram":
        assert sum(answer.usage.drafted for answer in answers) > 0


FILE = "model.safetensors"


def edited(source: Path, target: Path, **changes: object) -> Path:
    """A copy of the folder's config with fields changed; None of a field takes it away."""
    raw = json.loads((source / "config.json").read_text())
    raw = {key: value for key, value in {**raw, **changes}.items() if value is not None}
    (target / "config.json").write_text(json.dumps(raw))
    return target


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "dynamic"),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "factor"),
        ("llama", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps"),
        ("llama", {"num_hidden_layers": "many"}, "num_hidden_layers"),
        ("llama", {"num_hidden_layers": -1}, "num_hidden_layers"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers"),
        ("llama", {"num_hidden_layers": 10**30}, "num_hidden_layers"),
        ("llama", {"architectures": []}, "architecture none"),
        ("llama", {"architectures": {"0": "LlamaForCausalLM"}}, "architecture none"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps must be a finite number, not 'small'"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number, not nan"),
        ("llama", {"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ("llama", {"rope_parameters": 5}, "rope_parameters must be an object, not 5"),
        ("llama", {"rope_parameters": {"rope_type": 7}}, "rope_type must be a text, not 7"),
        ("llama", {"rope_parameters": {"rope_theta": []}}, "rope_theta"),
        ("llama", {"eos_token_id": ["end"]}, "eos_token_id must be whole numbers"),
        ("mistral", {"sliding_window": "wide"}, "sliding_window must be a number from 0 on"),
        ("deepseek-v2", {"n_shared_experts": -1}, "n_shared_experts"),
        ("llama", {"num_key_value_heads": 4}, "num_key_value_heads"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before"),
        ("opt", {"activation_function": "gelu"}, "activation_function"),
        ("opt", {"word_embed_proj_dim": 24}, "word_embed_proj_dim"),
        ("deepseek-v2", {"topk_method": "noaux_tc"}, "topk_method"),
        ("deepseek-v2", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("deepseek-v3", {"rope_interleave": False}, "rope_interleave"),
        ("deepseek-v3", {"n_group": 3}, "groups"),
        ("mixtral", {"num_experts_per_tok": 9}, "experts"),
    ],
)
def test_what_would_not_be_exact_is_refused_by_name(
    checkpoint, tmp_path: Path, name: str, changes: dict[str, object], field: str
):
    with pytest.raises(UnsupportedModel, match=field):
        read_config(edited(checkpoint(name), tmp_path, **changes))


@pytest.mark.parametrize(("window", "length"), [(None, 512), (64, 64), (4096, 512)])
def test_a_sliding_window_bounds_the_context(
    checkpoint, tmp_path: Path, window: int | None, length: int
):
    # given: what is written as null means no window, unlike what is left out
    raw = json.loads((checkpoint("mistral") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "sliding_window": window}))

    # then
    assert read_config(tmp_path).context_length == length


def test_a_text_ends_where_either_config_says_so(checkpoint, tmp_path: Path):
    edited(checkpoint("llama"), tmp_path, eos_token_id=[5, 6])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [6, 9]}))
    assert read_config(tmp_path).eos_token_ids == (5, 6, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "is not JSON"),
        ('{"vocab_size": ' + "9" * 5_000 + "}", "is not JSON"),
    ],
    ids=["empty", "a list", "too deep", "too long a number"],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_config_that_is_no_object_is_named(
    checkpoint, tmp_path: Path, name: str, text: str, message: str
):
    edited(checkpoint("llama"), tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UnsupportedModel, match=f"{name} {message}"):
        read_config(tmp_path)


def test_a_folder_without_a_config_is_no_model(tmp_path: Path):
    with pytest.raises(UnsupportedModel, match="config.json is missing: it is no model folder"):
        read_config(tmp_path)


@pytest.fixture
def broken(checkpoint, tmp_path: Path) -> Path:
    """A folder whose tensors a test may spoil."""
    return edited(checkpoint("llama"), tmp_path)


def spoil(folder: Path, source: Path, changes: dict[str, torch.Tensor | None]) -> None:
    tensors = {**load_file(source / FILE), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / FILE, metadata={"format": "pt"})


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({UP: None}, f"{UP} is missing"),
        ({UP: torch.zeros(80, 47)}, rf"{UP} has shape \[80, 47\], expected \[80, 48\]"),
        ({UP: torch.full((80, 48), float("nan"))}, f"{UP} holds NaN"),
        ({UP: torch.zeros(80, 48, dtype=torch.int8)}, f"{UP} holds torch.int8"),
        ({"model.layers.1.mlp.up_proj.bias": torch.zeros(80)}, "up_proj.bias has no place"),
    ],
)
def test_a_bad_tensor_is_named(
    checkpoint, broken: Path, changes: dict[str, torch.Tensor | None], message: str
):
    spoil(broken, checkpoint("llama"), changes)
    with pytest.raises(BadWeights, match=message):
        load_model(broken)


def test_what_no_forward_reads_may_be_there(checkpoint, broken: Path):
    spoil(
        broken,
        checkpoint("llama"),
        {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)},
    )
    assert load_model(broken).config.layers == 3


def test_a_file_that_was_cut_off_is_named(checkpoint, broken: Path):
    whole = (checkpoint("llama") / FILE).read_bytes()
    (broken / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadWeights, match="model.safetensors is not a whole safetensors file"):
        load_model(broken)


def test_weights_that_are_code_are_refused(broken: Path):
    (broken / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadWeights, match="convert them to safetensors"):
        load_model(broken)


def test_shards_are_one_model(checkpoint, tmp_path: Path):
    # given
    name = "mixtral"
    write_checkpoint(tmp_path, name, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1

    # then
    got = logits_of(load_model(tmp_path), text(20), chunks=(20,))
    wanted = logits_of(load_model(checkpoint(name)), text(20), chunks=(20,))
    torch.testing.assert_close(got, wanted)

    # when: a shard is gone
    min(tmp_path.glob("*.safetensors")).unlink()

    # then
    with pytest.raises(BadWeights, match="which is not in the folder"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{}",
        b"[]",
        b'{"weight_map": ["a"]}',
        b'{"weight_map": {"a": 1}}',
        b'{"weight_map": {"a": ["b"]}}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=["empty", "nothing in it", "a list", "no names", "a number", "lists", "bytes", "too deep"],
)
def test_an_index_that_names_no_files_is_damaged(broken: Path, index: bytes):
    (broken / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(BadWeights, match="index.json is damaged"):
        load_model(broken)


def test_half_precision_weights_are_widened(checkpoint, broken: Path):
    # given
    tensors = load_file(checkpoint("llama") / FILE)
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, broken / FILE, metadata={"format": "pt"})

    # when
    got = logits_of(load_model(broken), text(20), chunks=(20,))

    # then: the bits of the rounded weights, computed in full precision
    wide = AutoModelForCausalLM.from_pretrained(broken, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = wide(torch.tensor([text(20)])).logits[0]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))


@pytest.mark.parametrize("name", ["llama3-rope", "qwen2-yarn", "deepseek-v3"])
def test_rope_is_read_in_its_older_spelling_too(checkpoint, tmp_path: Path, name: str):
    """Published configs have `rope_scaling` and a theta beside it; some say `type`."""
    # given
    raw = json.loads((checkpoint(name) / "config.json").read_text())
    scaling = raw.pop("rope_parameters")
    raw["rope_theta"] = scaling.pop("rope_theta")
    scaling["type"] = scaling.pop("rope_type")
    (tmp_path / "config.json").write_text(json.dumps({**raw, "rope_scaling": scaling}))

    # then
    assert read_config(tmp_path) == read_config(checkpoint(name))
