"""The gate against its definition, experts against the dense layer, and what each expert took."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bench.engine.sparse import Shape, flops_per_token
from tests.workers.checkpoints import write_checkpoint
from tests.workers.engines import make_engine, request, run
from workers.model.experts import Gate
from workers.model.shape import Sparse, UnsupportedModel


def sparse(**changes: object) -> Sparse:
    fields = {"layers": frozenset({0}), "experts": 8, "width": 4, "top_k": 2}
    return Sparse(**{**fields, **changes})


def scores_of(*values: float) -> torch.Tensor:
    """A token whose gate logits are `values`: the gate's weight is the identity."""
    return torch.tensor([values])


EYE = torch.eye(8)


def as_mapping(chosen: torch.Tensor, weights: torch.Tensor) -> dict[int, float]:
    pairs = zip(chosen[0].tolist(), weights[0].tolist(), strict=True)
    return {expert: round(weight, 5) for expert, weight in pairs}


def test_equal_scores_give_every_token_the_same_experts_and_halves():
    gate = Gate(sparse(normalised=True), torch.zeros(8, 8), None)
    chosen, weights = gate(torch.randn(50, 8))
    assert (chosen == chosen[0]).all()
    assert (weights == 0.5).all()


def test_weights_are_probabilities_among_all_or_among_the_chosen():
    token = scores_of(2.0, 1.0, 0, 0, 0, 0, 0, 0)
    shares = token.softmax(-1)[0]
    as_is = as_mapping(*Gate(sparse(), EYE, None)(token))
    normed = as_mapping(*Gate(sparse(normalised=True), EYE, None)(token))
    assert as_is == {0: round(float(shares[0]), 5), 1: round(float(shares[1]), 5)}
    assert normed == {0: 0.73106, 1: 0.26894}


def test_only_experts_of_the_best_groups_are_chosen():
    # given: the best expert alone in its group of two, the best pair in another
    token = scores_of(3.0, -9.0, 2.5, 2.4, 2.0, 2.0, 0, 0)

    # then: a softmax gate ranks groups by their best, a sigmoid gate by their best two
    by_best = sparse(groups=4, groups_kept=1)
    by_two = sparse(groups=4, groups_kept=1, score="sigmoid")
    assert set(as_mapping(*Gate(by_best, EYE, None)(token))) == {0, 1}
    assert set(as_mapping(*Gate(by_two, EYE, None)(token))) == {2, 3}


def test_a_choice_bias_chooses_but_does_not_weigh():
    # given
    token = scores_of(3.0, 2.0, 0, 0, 0, 0, 0, 0)
    bias = torch.tensor([0, 0, 0, 0, 0, 0, 0, 9.0])

    # when
    chosen = as_mapping(*Gate(sparse(score="sigmoid", scale=2.0), EYE, bias)(token))

    # then
    assert chosen == {7: 1.0, 0: round(2 * float(torch.tensor(3.0).sigmoid()), 5)}


@pytest.mark.parametrize(
    "changes", [{"top_k": 9}, {"groups": 3}, {"groups": 4, "groups_kept": 1, "top_k": 3}]
)
def test_a_choice_that_cannot_be_made_is_refused(changes: dict[str, int]):
    with pytest.raises(UnsupportedModel, match="cannot be chosen"):
        sparse(**changes)


def test_each_expert_s_tokens_are_counted_by_layer(tmp_path: Path):
    # given: a model whose second layer is sparse, and costs that were measured at start
    engine = make_engine(write_checkpoint(tmp_path, "qwen3-moe"), speculation="ngram")

    # when
    prompt = [5, 6, 7, 8] * 10
    run(engine, [request("a", prompt, max_tokens=20, ignore_eos=True)])
    engine.publish_gauges()

    # then: two experts took each token of the request, drafts that were in vain included
    def sample(name: str, **labels: str) -> float | None:
        return engine.metrics.registry.get_sample_value(f"tokenhouse_worker_{name}", labels)

    totals = engine.metrics.totals
    taken = [sample("expert_tokens_total", layer="1", expert=str(i)) for i in range(6)]
    assert sum(taken) == 2 * (len(prompt) + 20 - 1 + totals.drafted - totals.accepted)
    imbalance = sample("expert_load_imbalance", layer="1")
    assert imbalance == pytest.approx(max(taken) / (sum(taken) / 6))
    assert sample("expert_load_imbalance", layer="0") is None

    # and the times beside the experts' products, and of the drafts, are parts of the steps' time
    busy_s = totals.input_seconds + totals.output_seconds
    assert 0.0 < totals.dispatch_seconds < busy_s
    assert 0.0 < totals.draft_seconds < busy_s
    every, active = engine.model.expert_bytes
    assert 0 < every < engine.model.weight_bytes
    assert active * 6 == every * 2


def test_a_sparse_model_works_at_most_three_tenths_of_a_dense_one_of_its_size():
    shape = Shape(layers=2)
    ratio = flops_per_token(shape, sparse=True) / flops_per_token(shape, sparse=False)
    assert 8 / 64 < ratio <= 0.3


def test_stacked_checkpoints_are_read_as_transformers_holds_them(tmp_path: Path):
    """Guards the parity tests: without this name they would read the other layout twice."""
    folder = write_checkpoint(tmp_path, "mixtral", save_original_format=False)
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(folder / "model.safetensors")
