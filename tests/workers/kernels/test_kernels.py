"""The kernels on their own: both processors' code, odd shapes, exact weights, bad numbers."""

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from workers.kernels import build
from workers.kernels.build import CannotBuild, built_library
from workers.kernels.library import Decoder, Kernels, Unusable
from workers.model.sampler import TORCH_SOFTMAX, SamplingParams, draw, find_peaks

AVX2 = ("-mavx2", "-mfma", "-mf16c")
SHAPES = ((16, 32), (1, 1), (15, 31), (100, 70), (258, 96), (48, 576))


@pytest.fixture(scope="session")
def kernel_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def opened(kernel_dir: Path, *, target: tuple[str, ...] = build.NATIVE, threads: int = 1):
    try:
        return Kernels(built_library(kernel_dir, target=target), threads=threads)
    except CannotBuild as error:
        pytest.skip(f"no kernels here: {error}")


@pytest.fixture(scope="session", params=["native", "avx2"])
def kernels(request: pytest.FixtureRequest, kernel_dir: Path) -> Kernels:
    return opened(kernel_dir, target=AVX2 if request.param == "avx2" else build.NATIVE)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def four_bit_weight(rows: int, depth: int) -> Tensor:
    """As a Q4_1 file stores it: per 32 numbers 16 steps, their size and start in fp16."""
    generator = torch.Generator().manual_seed(4)
    steps = torch.randint(0, 16, (rows, depth // 32, 32), generator=generator).float()
    steps[..., 0], steps[..., 1] = 0, 15
    size = (random(rows, depth // 32, 1).abs() * 0.1 + 0.01).half().float()
    return (steps * size + (random(rows, depth // 32, 1, seed=2) * 0.5).half()).view(rows, depth)


def eight_bit_weight(rows: int, depth: int) -> Tensor:
    """As a Q8_0 file stores it: per 32 numbers an fp16 scale and signed bytes."""
    generator = torch.Generator().manual_seed(8)
    steps = torch.randint(-127, 128, (rows, depth // 32, 32), generator=generator).float()
    steps[..., 0] = -127
    size = (random(rows, depth // 32, 1).abs() * 0.1 + 0.01).half().float()
    return (steps * size).view(rows, depth)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 33, 59])
def test_exact_products_are_those_of_fp32(kernels: Kernels, shape: tuple[int, int], tokens: int):
    # given
    weight, bias, x = random(*shape), random(shape[0], seed=2), random(tokens, shape[1], seed=3)
    # when
    packed = kernels.pack(weight, bias, exact=True)
    got = kernels.product(packed, x)
    # then
    wanted = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-4)
    # and nobody's depends on who stands beside
    assert all(torch.equal(kernels.product(packed, x[i : i + 1])[0], got[i]) for i in range(tokens))


def test_exact_products_keep_what_is_no_number_to_its_token(kernels: Kernels):
    # given
    weight, x = random(48, 96), random(3, 96, seed=3)
    x[1, 50] = float("nan")
    # when
    got = kernels.product(kernels.pack(weight, exact=True), x)
    # then
    assert got[1].isnan().all()
    assert got[[0, 2]].isfinite().all()


def stored(kernels: Kernels, weight: Tensor) -> Tensor:
    """The weight as the kernels hold it: its product with the unit vectors, which is exact."""
    return kernels.product(kernels.pack(weight), torch.eye(weight.shape[1])).T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 40])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_near_the_exact_one(
    kernels: Kernels, shape: tuple[int, int], tokens: int, biased: bool
):
    # given
    weight, x = random(*shape), random(tokens, shape[1], seed=2)
    bias = random(shape[0], seed=3) if biased else None

    # when
    got = kernels.product(kernels.pack(weight, bias), x)

    # then: half a step of 8 bits on either side of every one of the products
    wanted = torch.nn.functional.linear(x, weight, bias)
    spread = float(weight.norm(dim=1).max() * x.norm(dim=1).max())
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) < 0.02 * spread


@pytest.mark.parametrize("make", [four_bit_weight, eight_bit_weight])
def test_weights_of_gguf_files_are_kept_exactly(kernels: Kernels, make):
    # given
    weight = make(48, 96)

    # then: up to the rounding of an fp32 sum
    error = (stored(kernels, weight) - weight).abs().max()
    assert float(error) < 5e-7 * float(weight.abs().max())


def test_other_weights_are_off_by_half_a_step_at_most(kernels: Kernels):
    # given
    weight = random(48, 96)

    # then
    groups = weight.view(48, 3, 32)
    step = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 255
    error = (stored(kernels, weight) - weight).view(48, 3, 32).abs()
    assert bool((error <= 0.75 * step).all())


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_weight_without_any_range_is_kept(kernels: Kernels, value: float):
    # given
    weight = torch.full((17, 40), value)

    # then
    torch.testing.assert_close(stored(kernels, weight), weight)


def test_a_token_never_depends_on_its_neighbours(kernels: Kernels):
    # given
    packed, x = kernels.pack(random(100, 70)), random(21, 70)

    # when
    together = kernels.product(packed, x)

    # then
    for first, last in ((0, 1), (3, 5), (4, 12), (13, 21)):
        assert torch.equal(kernels.product(packed, x[first:last]), together[first:last])


def test_both_kinds_of_processor_get_the_same_numbers(kernel_dir: Path):
    # given
    weight, x = random(100, 70), random(9, 70)
    sides = [opened(kernel_dir, target=target) for target in (build.NATIVE, AVX2)]

    # when
    native, avx2 = (side.product(side.pack(weight), x) for side in sides)

    # then
    torch.testing.assert_close(native, avx2, rtol=1e-6, atol=1e-5)


def test_threads_do_not_change_a_bit(kernel_dir: Path):
    # given
    weight, x = random(700, 200), random(33, 200)
    alone, team = opened(kernel_dir), opened(kernel_dir, threads=3)
    wanted = alone.product(alone.pack(weight), x)

    # then: many jobs in a row, so that late helpers meet the next one
    packed = team.pack(weight)
    for _ in range(300):
        assert torch.equal(team.product(packed, x), wanted)


def test_two_teams_work_side_by_side(kernel_dir: Path):
    # given
    weight, x = random(300, 64), random(9, 64)
    teams = [opened(kernel_dir, threads=2) for _ in range(3)]
    wanted = teams[0].product(teams[0].pack(weight), x)
    wrong: list[Kernels] = []

    def work(team: Kernels) -> None:
        packed = team.pack(weight)
        if not all(torch.equal(team.product(packed, x), wanted) for _ in range(200)):
            wrong.append(team)

    # when
    threads = [threading.Thread(target=work, args=(team,)) for team in teams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert wrong == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_number_spoils_its_own_token_only(kernels: Kernels, bad: float):
    # given
    packed, x = kernels.pack(random(48, 96)), random(5, 96)
    wanted = kernels.product(packed, x)
    x[2, 50] = bad

    # when
    got = kernels.product(packed, x)

    # then
    assert bool(got[2].isnan().all())
    assert torch.equal(got[[0, 1, 3, 4]], wanted[[0, 1, 3, 4]])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_weight_without_a_scale_is_refused(kernels: Kernels, bad: float):
    # given
    weight = random(48, 96)
    weight[21, 5] = bad

    # then
    with pytest.raises(ValueError, match="int8"):
        kernels.pack(weight)


def test_a_library_is_built_once(kernel_dir: Path, monkeypatch: pytest.MonkeyPatch):
    # given
    opened(kernel_dir)
    monkeypatch.setattr(build, "COMPILERS", ())

    # then
    assert built_library(kernel_dir).is_file()
    assert [path for path in kernel_dir.iterdir() if path.suffix != ".so"] == []


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # given
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))

    # then
    with pytest.raises(CannotBuild, match="no-such-compiler"):
        built_library(tmp_path / "kernels")


def test_a_processor_without_avx2_is_refused_at_build(tmp_path: Path):
    with pytest.raises(CannotBuild, match="AVX2|compiler"):
        built_library(tmp_path, target=("-mno-avx",))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_library_is_not_used(tmp_path: Path):
    # given
    path = tmp_path / "kernels.so"
    path.write_bytes(b"\x7fELF and nothing else")

    # then
    with pytest.raises(Unusable):
        Kernels(path, threads=1)


def test_a_library_that_computes_wrongly_is_not_used(
    kernel_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    # given
    opened(kernel_dir)
    monkeypatch.setattr(
        Kernels, "product", lambda self, weight, x: torch.zeros(len(x), weight.rows)
    )

    # then
    with pytest.raises(Unusable, match="wrong"):
        opened(kernel_dir)


@pytest.mark.parametrize("width", [1, 7, 16, 258, 1024, 1040, 5003])
@pytest.mark.parametrize("threads", [1, 3])
def test_peaks_are_those_that_torch_finds(kernel_dir: Path, width: int, threads: int):
    # given: ordinary rows, equal numbers, nothing but minus infinity, infinity
    kernels = opened(kernel_dir, threads=threads)
    logits = random(8, width)
    logits[1] = 2.5
    logits[2] = -torch.inf
    logits[3] = (logits[3] * 2).round()
    logits[4, width // 2] = torch.inf

    # when
    peaks = kernels.peaks(logits)

    # then
    assert peaks == [(peak.token, peak.logit) for peak in find_peaks(logits)]


@pytest.mark.parametrize("place", [0, 15, 1023, 1024, 2999])
def test_nan_stands_above_all(kernels: Kernels, place: int):
    # given
    logits = random(2, 3000)
    logits[1, place] = torch.nan
    logits[1, (place + 500) % 3000] = torch.inf

    # when
    [_, (found, value)] = kernels.peaks(logits)

    # then
    assert found == place
    assert value != value


@pytest.mark.parametrize("exact", [True, False])
def test_a_normed_product_is_a_product_of_what_was_normed(kernels: Kernels, exact: bool):
    # given
    hidden, norm = random(9, 96) * 3, random(96, seed=2)
    weight = kernels.pack(random(258, 96, seed=3), exact=exact)
    decoder = Decoder(hidden=96, norm_eps=1e-5)
    normed = torch.nn.functional.rms_norm(hidden, (96,), norm, 1e-5)

    # then
    torch.testing.assert_close(
        kernels.normed_product(decoder, norm, weight, hidden),
        kernels.product(weight, normed),
        rtol=1e-4,
        atol=1e-4 if exact else 0.1,
    )


CHANCES = [(i + 0.5) / 3000 for i in range(3000)]


@pytest.mark.parametrize("width", [1, 7, 258, 1024, 5003])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.9])
def test_draws_are_those_of_the_softmax(kernels: Kernels, width: int, temperature: float):
    # given: a row of which a tenth may not come
    row = random(width) * 2
    row[torch.arange(width) % 10 == 3] = -torch.inf
    ends = torch.softmax(row.double() / temperature, -1).cumsum(0)

    # then: the token whose stretch of the cumulative shares holds the chance, but for rounding
    for chance in CHANCES:
        token = kernels.draw(row, temperature, chance)
        start = float(ends[token - 1]) if token else 0.0
        assert start - 1e-6 <= chance <= float(ends[token]) + 1e-6
        assert row[token] > -torch.inf


def test_the_last_chance_draws_what_can_come(kernels: Kernels):
    # given
    row = torch.full((3000,), -torch.inf)
    row[[5, 1500]] = 1.0

    # then
    assert kernels.draw(row, 1.0, 1.0 - 2**-53) == 1500
    assert kernels.draw(row, 1.0, 0.0) == 5


@pytest.mark.parametrize("floor", [0.0, 1e-6, 0.02, 1.0])
def test_likely_tokens_are_those_that_torch_finds(kernels: Kernels, floor: float):
    # given
    row = random(5003) * 3

    # when
    tokens, shares = kernels.likely(row, 0.7, floor)
    wanted, wanted_shares = TORCH_SOFTMAX.likely(row, 0.7, floor)

    # then
    assert tokens.tolist() == wanted.tolist()
    torch.testing.assert_close(shares.double(), wanted_shares, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_p=0.9),
        SamplingParams(top_p=0.9999, temperature=2.0),
        SamplingParams(top_k=40),
        SamplingParams(top_k=3000, top_p=0.95),
        SamplingParams(min_p=0.05, temperature=1.5),
        SamplingParams(min_p=0.01, top_k=7, top_p=0.8),
    ],
)
def test_truncated_draws_are_those_of_torch(kernels: Kernels, params: SamplingParams):
    # given
    row = random(5003) * 2
    every = CHANCES[::10]

    # when
    ours = [draw(row, params, chance, kernels) for chance in every]
    wanted = [draw(row, params, chance) for chance in every]

    # then: a chance may fall on the border between two
    assert sum(one != other for one, other in zip(ours, wanted, strict=True)) <= 2
