"""What a setting (int8, for example) costs in quality, as the bench measured it, kept by the model.

The report is made once by `python -m bench.engine.quality` and read at registration, so that an
offer can show its worst slice. A setting that loses more than the margins on any slice is brittle.
"""

from pathlib import Path
from typing import Literal

import msgspec

# Relative rise of perplexity, lost share of right answers, share of other most likely tokens.
RISE_MAX = 0.05
LOST_MAX = 0.05
DISAGREEMENT_MAX = 0.10


class SliceQuality(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of texts (perplexity) or tasks (share of right answers), full precision first.

    `loss` is the relative rise of perplexity or the lost share, with its 95 % interval;
    `disagreement` the share of `n` positions whose most likely token is another one.
    """

    slice: str
    kind: Literal["text", "task"]
    n: int
    full: float
    setting: float
    loss: float
    loss_low: float
    loss_high: float
    disagreement: float
    disagreement_high: float

    @property
    def strain(self) -> float:
        """How much of its margins the loss takes up; above 1 is too much."""
        if self.kind == "task":
            return self.loss / LOST_MAX
        return max(self.loss / RISE_MAX, self.disagreement / DISAGREEMENT_MAX)


class QualityFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an offer shows of a report: its worst slice, in percent of full precision."""

    brittle: bool
    worst_slice: str
    loss_percent: float
    disagreement_percent: float
    measure: Literal["perplexity", "right answers"]
    sample: int


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """A setting's report: all slices, for the texts and tasks of one version of the bench."""

    setting: str
    reference: str
    slices: list[SliceQuality]

    @property
    def worst(self) -> SliceQuality:
        return max(self.slices, key=lambda item: item.strain)

    @property
    def is_brittle(self) -> bool:
        return self.worst.strain > 1.0

    def facts(self) -> QualityFacts:
        worst = self.worst
        return QualityFacts(
            brittle=self.is_brittle,
            worst_slice=worst.slice,
            loss_percent=round(100 * worst.loss, 2),
            disagreement_percent=round(100 * worst.disagreement, 2),
            measure="perplexity" if worst.kind == "text" else "right answers",
            sample=sum(item.n for item in self.slices),
        )


def path_of(model_dir: Path, setting: str) -> Path:
    return model_dir / f"quality-{setting}.json"


def stored(model_dir: Path, setting: str) -> Quality | None:
    """The report of this setting, None where nobody has measured it (or the file is damaged)."""
    path = path_of(model_dir, setting)
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Quality)
    except msgspec.DecodeError:
        return None


def store(model_dir: Path, quality: Quality) -> Path:
    path = path_of(model_dir, quality.setting)
    staged = path.with_suffix(".new")
    staged.write_bytes(msgspec.json.format(msgspec.json.encode(quality), indent=1))
    return staged.replace(path)
