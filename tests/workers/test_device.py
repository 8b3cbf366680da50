"""Placing: the same decoder elsewhere and in bf16, one transfer a step, padded decoding steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.workers.checkpoints import write_checkpoint
from tests.workers.engines import make_engine, request, run
from workers.cache.attention import attend
from workers.cache.paged import choose_kernel, flash_2, gathered
from workers.device import CPU, DeviceUnavailable, PlacedWeights, Placement, send
from workers.engine.engine import Engine
from workers.model.batch import Part, build_batch
from workers.model.cuda_graphs import DecodeGraphs, Outputs, Size, powers_of_two
from workers.model.decoder import Model, load_model
from workers.model.experts import GroupedExperts, ListedExperts
from workers.model.mlp import GatedMLP
from workers.weights.checkpoint import Weights
from workers.weights.linear import PlainLinear

HERE = Placement(CPU, torch.float32)


def random_tokens(count: int, *, seed: int = 3) -> list[int]:
    return torch.randint(2, 258, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def eagerly(step: Callable[[], Outputs]) -> Callable[[], Outputs]:
    """Stands in for a recorder: what is replayed is the run itself."""
    return step


def decoding_parts(engine: Engine, lengths: list[int]) -> list[Part]:
    """Texts that are computed but for their last token, in the engine's cache."""
    parts = []
    first_block = 1
    for index, length in enumerate(lengths):
        tokens = random_tokens(length, seed=index)
        blocks = list(range(first_block, first_block + length // engine.config.block_size + 1))
        first_block = blocks[-1] + 1
        if length > 1:
            whole = Part(tokens[:-1], blocks, first=0, wanted=1)
            engine.model.forward(engine.forward.layout([whole]).batch, engine.forward.cache)
        parts.append(Part(tokens[-1:], blocks, first=length - 1, wanted=1))
    return parts


def test_lists_arrive_as_they_left():
    sent = send([[3, 1], [], [2]], CPU)
    assert [part.tolist() for part in sent] == [[3, 1], [], [2]]
    assert {part.dtype for part in sent} == {torch.int64}
    # One transfer: all are views of one storage.
    assert len({part.untyped_storage().data_ptr() for part in sent}) == 1


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_there_is_named(tiny_model_dir: Path, device: str):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(DeviceUnavailable, match=device):
        make_engine(tiny_model_dir, device=device)


def test_auto_takes_what_is_there(tiny_model_dir: Path):
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    assert make_engine(tiny_model_dir, device="auto").model.device.type == kind


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", ""])
def test_a_device_by_another_name_is_refused(tiny_model_dir: Path, device: str):
    with pytest.raises(ValueError, match="device"):
        make_engine(tiny_model_dir, device=device)


def test_int4_is_refused_without_a_gpu(tiny_model_dir: Path):
    with pytest.raises(DeviceUnavailable, match="--device cuda"):
        make_engine(tiny_model_dir, quantisation="int4")


@pytest.mark.parametrize("setting", [{"exit_layer": 1}, {"speculation": "self_draft"}])
def test_what_was_written_for_fp32_is_refused_in_bf16(tiny_model_dir: Path, setting):
    with pytest.raises(DeviceUnavailable, match="in fp32 only"):
        make_engine(tiny_model_dir, dtype="bfloat16", **setting)


def test_a_weight_read_twice_has_one_place(tiny_model_dir: Path):
    name, shape = "model.embed_tokens.weight", (258, 96)
    read = PlacedWeights(Weights(tiny_model_dir), Placement(CPU, torch.bfloat16))
    first = read(name, shape)
    assert first.dtype is torch.bfloat16
    assert read(name, shape) is first
    assert name in read


def test_a_decoder_on_the_meta_device_has_the_shapes_of_one_here(tiny_model_dir: Path):
    """Whatever the decoder makes for itself follows its weights: nothing is left on the host."""

    # given
    def build(shape, read):
        place = Placement(torch.device("meta"), torch.bfloat16)
        return Model(shape, PlacedWeights(read, place), make=PlainLinear)

    model = load_model(tiny_model_dir, build=build)
    cache = model.new_cache(num_blocks=8, block_size=8)
    parts = [Part(random_tokens(20), [1, 2, 3], 0, 1), Part([5], [4], 3, 1)]
    layout = build_batch(parts, block_size=8, group=model.config.group, device=model.device)

    # when
    hidden = model.hidden_states(layout.batch, cache)
    logits = model.logits(hidden.index_select(0, layout.batch.logit_rows))

    # then
    assert (hidden.shape, logits.shape) == ((21, 96), (2, 258))
    assert {hidden.device.type, logits.device.type, cache.blocks.device.type} == {"meta"}
    assert {hidden.dtype, cache.blocks.dtype} == {torch.bfloat16}
    assert logits.dtype is torch.float32


@pytest.mark.parametrize("name", ["llama", "opt", "qwen3", "mixtral", "deepseek-v3"])
def test_bf16_is_near_fp32(tmp_path: Path, name: str):
    # given
    folder = write_checkpoint(tmp_path, name)
    exact, rounded = (make_engine(folder, dtype=dtype) for dtype in ("float32", "bfloat16"))
    tokens = random_tokens(30)

    def logits_of(engine: Engine) -> torch.Tensor:
        layout = engine.forward.layout([Part(tokens, [1, 2, 3, 4], 0, len(tokens))])
        return engine.model.forward(layout.batch, engine.forward.cache).float()

    # when
    wanted, got = logits_of(exact), logits_of(rounded)

    # then
    assert rounded.model.precision == "bfloat16"
    similarity = torch.cosine_similarity(wanted, got, dim=-1)
    assert float(similarity.median()) > 0.99


def test_a_bf16_engine_serves(tiny_model_dir: Path):
    engine = make_engine(tiny_model_dir, dtype="bfloat16", speculation="ngram")
    answers = run(
        engine,
        [
            request("greedy", random_tokens(40)),
            request("sampled", random_tokens(20), temperature=0.8, top_p=0.9, seed=4),
        ],
    )
    assert all(answer.tokens for answer in answers)


@pytest.mark.parametrize("name", ["llama", "opt", "deepseek-v2", "olmoe"])
def test_padded_decoding_steps_are_those_of_the_engine(tmp_path: Path, name: str):
    # given: steps of every size, over tables that are short and long
    engine = make_engine(write_checkpoint(tmp_path, name), kv_blocks=60)
    model, cache = engine.model, engine.forward.cache
    graphs = DecodeGraphs(model, cache, eagerly, requests_max=6, keys_max=200)
    for lengths in ([9], [1, 30, 8], [70, 3, 100, 65], [5] * 6):
        parts = decoding_parts(engine, lengths)
        layout = engine.forward.layout(parts)
        hidden = model.hidden_states(layout.batch, cache)
        wanted = torch.empty_like(model.logits(hidden))
        wanted[layout.order] = model.logits(hidden)
        before = cache.blocks.clone()

        # when
        outputs = graphs.run(parts)

        # then: the same logits, and nothing written but where the step itself had written
        assert outputs is not None
        assert [len(part) for part in outputs] == [len(parts)] * 2
        torch.testing.assert_close(outputs[1], wanted, rtol=1e-4, atol=1e-4)
        held = slice(0, cache.scratch_block)
        torch.testing.assert_close(cache.blocks[:, held], before[:, held], rtol=1e-4, atol=1e-4)
        assert not cache.blocks[:, 0].any()


def test_sizes_are_powers_of_two_and_the_smallest_that_fits_runs(tiny_model_dir: Path):
    # given
    engine = make_engine(tiny_model_dir)
    graphs = DecodeGraphs(engine.model, engine.forward.cache, eagerly, requests_max=6, keys_max=200)

    def decoding(count: int, position: int) -> list[Part]:
        return [Part([1], list(range(1, 30)), position, 1)] * count

    # then
    assert graphs.size_for(decoding(1, 0)) == Size(1, 8)
    assert graphs.size_for(decoding(3, 63)) == Size(4, 8)
    assert graphs.size_for(decoding(3, 64)) == Size(4, 16)
    assert graphs.size_for(decoding(5, 199)) == Size(6, 25)
    assert graphs.size_for(decoding(7, 0)) is None
    assert graphs.size_for(decoding(1, 200)) is None
    assert graphs.size_for([]) is None
    assert graphs.size_for([*decoding(1, 0), Part([1, 2], [1], 0, 1)]) is None
    assert graphs.size_for([Part([1], [1], 0, 0)]) is None
    assert powers_of_two(1, 16) == [1, 2, 4, 8, 16]


def test_an_engine_with_recorded_steps_writes_the_same_texts(tiny_model_dir: Path):
    # given
    plain, recorded = make_engine(tiny_model_dir), make_engine(tiny_model_dir)
    recorded.forward.graphs = DecodeGraphs(
        recorded.model,
        recorded.forward.cache,
        eagerly,
        requests_max=8,
        keys_max=recorded.context_length,
    )

    def requests():
        greedy = [request(str(n), random_tokens(n), logprobs=None) for n in (3, 20, 45, 80)]
        return [*greedy, request("drawn", random_tokens(9), temperature=1.0, seed=5)]

    # then
    assert [answer.text for answer in run(recorded, requests())] == [
        answer.text for answer in run(plain, requests())
    ]


def test_tables_and_lengths_are_those_of_the_parts(tiny_model_dir: Path):
    # given
    model = make_engine(tiny_model_dir).model
    parts = [Part(random_tokens(20), [1, 2, 3], 0, 1), Part([5], [4, 9], 8, 1)]

    # when
    layout = build_batch(parts, block_size=8, group=model.config.group, paged=True)

    # then: in the order of the rows, which is the buckets'
    paged = layout.batch.paged
    assert paged is not None
    assert layout.order == [1, 0]
    assert paged.tables.tolist() == [[4, 9, 0], [1, 2, 3]]
    assert paged.lengths.tolist() == [9, 20]
    assert paged.starts.tolist() == [0, 1, 21]
    assert paged.key_starts.tolist() == [0, 9, 29]
    assert (paged.queries, paged.keys) == (20, 20)
    assert paged.tables.dtype is torch.int32


def test_flash_attention_is_called_as_its_documentation_says(monkeypatch: pytest.MonkeyPatch):
    """With an oracle in its place that takes the documented arguments and computes by them."""
    # given: three requests, of one, four and nine queries
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(9, 8, 2 * 2, 16, generator=generator)
    parts = [
        Part([1] * count, table, context, 1)
        for count, table, context in ((1, [5, 2], 9), (4, [3], 2), (9, [7, 1, 8], 7))
    ]
    layout = build_batch(parts, block_size=8, group=3, paged=True)
    query = torch.randn(14, 6, 16, generator=generator)

    def oracle(
        q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, block_table
    ):
        assert causal
        rows = []
        for row, table in enumerate(block_table.tolist()):
            queries = q[cu_seqlens_q[row] : cu_seqlens_q[row + 1]]
            length = int(cu_seqlens_k[row + 1] - cu_seqlens_k[row])
            assert len(queries) <= max_seqlen_q
            assert length <= max_seqlen_k
            keys, values = (part[table].flatten(0, 1)[:length] for part in (k, v))
            mask = torch.ones(len(queries), length, dtype=torch.bool).tril(length - len(queries))
            result = torch.nn.functional.scaled_dot_product_attention(
                *(part.transpose(0, 1) for part in (queries, keys, values)), mask, enable_gqa=True
            )
            rows.append(result.transpose(0, 1))
        return torch.cat(rows)

    monkeypatch.setattr("workers.cache.paged.flash_attn_varlen_func", oracle)
    wanted, got = torch.empty(14, 96), torch.empty(14, 96)

    # when
    attend(query, blocks, wanted, buckets=layout.batch.buckets)
    flash_2(query, blocks, got, paged=layout.batch.paged)

    # then
    torch.testing.assert_close(got, wanted)


def test_gathering_reads_no_further_than_the_lengths():
    # given: NaN past the end of each text, in blocks that its table names
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(4, 8, 2, 16, generator=generator)
    parts = [Part([1], [1, 2], 9, 1), Part([1], [3], 3, 1)]
    layout = build_batch(parts, block_size=8, group=2, paged=True)
    query = torch.randn(2, 2, 16, generator=generator)
    clean = torch.empty(2, 32)
    gathered(query, blocks, clean, paged=layout.batch.paged)

    # when
    blocks[2, 2:], blocks[3, 4:] = 1e4, 1e4
    got = torch.empty(2, 32)
    gathered(query, blocks, got, paged=layout.batch.paged)

    # then
    torch.testing.assert_close(got, clean)


def test_no_kernel_without_a_gpu():
    kernel, reason = choose_kernel(HERE, head_dim=64, latent=False, block_size=16)
    assert kernel is None
    assert "not on a GPU" in reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_experts_are_the_listed_ones(dtype: torch.dtype):
    # given: an expert that nobody chooses
    generator = torch.Generator().manual_seed(0)
    shapes = ((24, 16), (24, 16), (16, 24))
    weights = [
        [0.2 * torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
        for _ in range(5)
    ]
    listed = ListedExperts([GatedMLP(*map(PlainLinear, each)) for each in weights])
    grouped = GroupedExperts(*(list(kind) for kind in zip(*weights, strict=True)))
    chosen = torch.tensor([0, 0, 1, 3, 3, 3, 4])
    tokens = torch.randn(7, 16, generator=generator).to(dtype)

    # then
    assert grouped.count(chosen).tolist() == [2, 1, 0, 3, 1]
    assert listed.count(chosen).tolist() == [2, 1, 0, 3, 1]
    counts = grouped.count(chosen)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(
        grouped(tokens, counts), listed(tokens, counts), rtol=tolerance, atol=tolerance
    )
