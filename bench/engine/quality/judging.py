"""From the scores of two settings to what the second one loses, slice by slice."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.engine.quality.scoring import Floats, Scorer, Scores
from bench.engine.quality.slices import RARE_SHARE, Item, Passage
from workers.quality import SliceQuality

RARE: Final = "rare tokens"
# Neighbouring positions of a text err together, so the bootstrap draws stretches of this length.
STRETCH: Final = 32
RESAMPLES: Final = 2_000
TAILS: Final = (0.025, 0.975)


@dataclass(slots=True)
class Sums:
    """What the stretches of a slice add up to; one entry for each stretch."""

    count: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)
    setting: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def add(self, *, full: Floats, setting: Floats, others: Floats) -> None:
        """`full` and `setting`: nats, or 1 for a right answer; `others`: 1 for another token."""
        if len(full):
            self.count.append(len(full))
            self.full.append(float(full.sum()))
            self.setting.append(float(setting.sum()))
            self.others.append(float(others.sum()))


def judge_texts(
    passages: Iterable[Passage], *, full: Scorer, setting: Scorer, vocab_size: int
) -> list[SliceQuality]:
    """Perplexity and agreement of each slice, and of the rare tokens of all of them."""
    slices: dict[str, Sums] = {}
    for passage in passages:
        before, after = full.passage(passage), setting.passage(passage)
        followers = np.asarray([passage.tokens[position + 1] for position in passage.judged])
        for start in range(0, len(followers), STRETCH):
            part = slice(start, start + STRETCH)
            rare = followers[part] >= RARE_SHARE * vocab_size
            _add(slices.setdefault(passage.slice, Sums()), before, after, part, ...)
            _add(slices.setdefault(RARE, Sums()), before, after, part, rare)
    return [_text_quality(name, sums) for name, sums in slices.items()]


def judge_tasks(items: Iterable[Item], *, full: Scorer, setting: Scorer) -> list[SliceQuality]:
    slices: dict[str, Sums] = {}
    for item in items:
        before, after = full.is_right(item), setting.is_right(item)
        slices.setdefault(item.slice, Sums()).add(
            full=np.array([float(before)]),
            setting=np.array([float(after)]),
            others=np.array([float(before != after)]),
        )
    return [_task_quality(name, sums) for name, sums in slices.items()]


def _add(sums: Sums, before: Scores, after: Scores, part: slice, chosen: object) -> None:
    others = (before.best != after.best).astype(np.float64)
    sums.add(
        full=before.nats[part][chosen],
        setting=after.nats[part][chosen],
        others=others[part][chosen],
    )


def _text_quality(name: str, sums: Sums) -> SliceQuality:
    def rise(count: Floats, full: Floats, setting: Floats) -> Floats:
        return np.asarray(np.expm1((setting - full) / count))

    count = sum(sums.count)
    return _quality(
        name,
        "text",
        sums,
        loss=rise,
        figures=(float(np.exp(sum(sums.full) / count)), float(np.exp(sum(sums.setting) / count))),
    )


def _task_quality(name: str, sums: Sums) -> SliceQuality:
    def lost(count: Floats, full: Floats, setting: Floats) -> Floats:
        return np.asarray((full - setting) / count)

    count = sum(sums.count)
    figures = (sum(sums.full) / count, sum(sums.setting) / count)
    return _quality(name, "task", sums, loss=lost, figures=figures)


def _quality(
    name: str,
    kind: str,
    sums: Sums,
    *,
    loss: Callable[[Floats, Floats, Floats], Floats],
    figures: tuple[float, float],
) -> SliceQuality:
    parts = np.array([sums.count, sums.full, sums.setting, sums.others])  # [4, stretches]
    picks = np.random.default_rng(0).integers(parts.shape[1], size=(RESAMPLES, parts.shape[1]))
    drawn = parts[:, picks].sum(axis=2)  # [4, resamples]
    total = parts.sum(axis=1)
    low, high = np.quantile(loss(drawn[0], drawn[1], drawn[2]), TAILS)
    return SliceQuality(
        slice=name,
        kind="text" if kind == "text" else "task",
        n=int(total[0]),
        full=round(figures[0], 4),
        setting=round(figures[1], 4),
        loss=float(loss(total[0], total[1], total[2])),
        loss_low=float(low),
        loss_high=float(high),
        disagreement=float(total[3] / total[0]),
        disagreement_high=float(np.quantile(drawn[3] / drawn[0], TAILS[1])),
    )
