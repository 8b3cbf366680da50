import pytest
import torch

from workers.weights.linear import PackedLinear, PlainLinear, choose_linear, packed_is_correct


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(48, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("tokens", [1, 2, 5, 33])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_products_equal_plain_ones(weight: torch.Tensor, tokens: int, biased: bool):
    # given
    if not packed_is_correct(weight):
        pytest.skip("this build has no oneDNN packing")
    bias = torch.randn(48) if biased else None
    packed, plain = PackedLinear(weight, bias), PlainLinear(weight, bias)
    x, y = torch.randn(tokens, 32), torch.randn(tokens, 48)

    # then
    torch.testing.assert_close(packed(x), plain(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed.silu(x), plain.silu(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed.relu(x), plain.relu(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed.times(x, y), plain.times(x, y), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed.plus(x, y), plain.plus(x, y), rtol=1e-4, atol=1e-4)


def test_a_packed_product_that_is_wrong_is_not_chosen(
    weight: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    # given: a processor on which packing gives slightly other numbers
    monkeypatch.setattr(PackedLinear, "__call__", lambda self, x: torch.ones(len(x), 48))

    # then
    assert choose_linear(weight) is PlainLinear


def test_a_packed_product_that_raises_is_not_chosen(
    weight: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    # given
    def refuse(self: PackedLinear, *parts: torch.Tensor) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(PackedLinear, "__init__", refuse)

    # then
    assert choose_linear(weight) is PlainLinear


def test_other_precisions_stay_plain(weight: torch.Tensor):
    assert choose_linear(weight.double()) is PlainLinear
