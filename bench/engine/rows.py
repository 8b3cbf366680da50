"""The rows of the table: which side against which, over which classes, and what bar to pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.engine.prompts import COPY_HEAVY, HELD_OUT
from bench.engine.rounds import Measured, Round
from bench.engine.statistics import Interval, median_interval

OTHER_CLASSES: Final = tuple(name for name in HELD_OUT if name not in COPY_HEAVY)
ROUNDS_FOR_A_CLAIM: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`subject` is to be `bar` times as fast as `peer`; a row without a bar is shown only.

    Times are end to end, with the prefill, unless the row is of decoding alone.
    """

    experiment: str
    title: str
    subject: str
    peer: str
    groups: tuple[str, ...] | None = None
    bar: float | None = None
    stretch: float | None = None
    decode_only: bool = False

    def seconds(self, measured: Measured) -> float | None:
        return measured.decode_seconds if self.decode_only else measured.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    row: Row
    ratio: Interval
    same_texts: int

    @property
    def verdict(self) -> str:
        """`held` means that the whole interval is above the bar."""
        if self.row.bar is None:
            return ""
        if self.ratio.n < ROUNDS_FOR_A_CLAIM:
            return "too few pairs"
        if self.ratio.low >= self.row.bar:
            return "held"
        return "within noise" if self.ratio.high >= self.row.bar else "missed"


def _against_itself(
    precision: str, drafts: str, groups: tuple[str, ...], *, others: tuple[str, ...] = ()
) -> list[Row]:
    """One stream with drafts against the same engine without, and beside it other drafts or the
    decoding alone. On copying work only the first has a bar; elsewhere no drafts may cost."""
    copies = groups == COPY_HEAVY

    def row(title: str, drafts: str, *, bar: float | None, decode_only: bool = False) -> Row:
        return Row(
            experiment="one-stream",
            title=title,
            subject=f"{precision} {drafts}",
            peer=precision,
            groups=groups,
            bar=bar,
            decode_only=decode_only,
        )

    *first, last = drafts.split("+")
    classes = "copy-heavy" if copies else "other classes"
    title = f"speculation against itself off, {classes}, {precision}, {', '.join(first)} and {last}"
    rows = [row(title, drafts, bar=2.0 if copies else 0.97)]
    for other in others:
        if other == "decoding alone":
            rows.append(row("the same, decoding alone", drafts, bar=None, decode_only=True))
        else:
            words = other.replace("+", " and ") if "+" in other else f"{other} alone"
            rows.append(row(f"the same, {words}", other, bar=None if copies else 0.97))
    return rows


ROWS: Final = (
    Row(
        experiment="one-stream",
        title="one stream, int8, against transformers generate",
        subject="int8",
        peer="generate",
        bar=3.5,
    ),
    Row(
        experiment="one-stream",
        title="one stream, fp32-exact, against transformers generate",
        subject="fp32",
        peer="generate",
        bar=1.6,
    ),
    Row(
        experiment="one-stream",
        title="one stream, copy-heavy, int8 with ngram, against llama.cpp",
        subject="int8 ngram",
        peer="llama.cpp",
        groups=COPY_HEAVY,
        bar=1.0,
        stretch=1.3,
    ),
    Row(
        experiment="one-stream",
        title="the same, against llama.cpp with its own ngram drafts",
        subject="int8 ngram",
        peer="llama.cpp ngram",
        groups=COPY_HEAVY,
    ),
    Row(
        experiment="one-stream",
        title="one stream, all classes, int8 with ngram, against llama.cpp",
        subject="int8 ngram",
        peer="llama.cpp",
    ),
    *_against_itself("int8", "phrases+ngram+eagle", COPY_HEAVY, others=("decoding alone",)),
    *_against_itself(
        "int8", "phrases+ngram", COPY_HEAVY, others=("decoding alone", "ngram", "suffix+ngram")
    ),
    *_against_itself("fp32", "phrases+ngram+eagle", COPY_HEAVY, others=("decoding alone",)),
    *_against_itself("fp32", "phrases+ngram", COPY_HEAVY, others=("decoding alone", "ngram")),
    *_against_itself("int8", "phrases+ngram+eagle", OTHER_CLASSES),
    *_against_itself("int8", "phrases+ngram", OTHER_CLASSES, others=("ngram", "suffix+ngram")),
    *_against_itself("fp32", "phrases+ngram+eagle", OTHER_CLASSES),
    *_against_itself("fp32", "phrases+ngram", OTHER_CLASSES, others=("ngram",)),
    Row(
        experiment="batch",
        title="16 at once, int8, against transformers continuous batching",
        subject="int8",
        peer="transformers batching",
        bar=2.0,
        stretch=3.0,
    ),
    Row(
        experiment="batch",
        title="16 at once, fp32, against transformers continuous batching",
        subject="fp32",
        peer="transformers batching",
        bar=2.0,
        stretch=3.0,
    ),
    Row(
        experiment="batch",
        title="16 at once, int8, against llama.cpp with 16 slots",
        subject="int8",
        peer="llama.cpp",
        bar=1.8,
        stretch=2.5,
    ),
    Row(
        experiment="batch",
        title="16 at once, fp32, against llama.cpp with 16 slots",
        subject="fp32",
        peer="llama.cpp",
    ),
    Row(
        experiment="batch",
        title="16 at once, speculation against itself off, int8, phrases and ngram",
        subject="int8 phrases+ngram",
        peer="int8",
        bar=0.97,
    ),
    Row(
        experiment="batch",
        title="the same, ngram alone",
        subject="int8 ngram",
        peer="int8",
        bar=0.97,
    ),
    Row(
        experiment="crowd",
        title="64 at once behind one system prompt, int8, against sequential generate",
        subject="int8",
        peer="generate",
        bar=8.0,
        stretch=12.0,
    ),
    Row(
        experiment="crowd",
        title="64 at once behind one system prompt, fp32, against sequential generate",
        subject="fp32",
        peer="generate",
        bar=8.0,
        stretch=12.0,
    ),
)


def latest(rounds: Sequence[Round], experiment: str) -> list[Round]:
    """The experiment's rounds that ran on the same code as its newest one."""
    own = [item for item in rounds if item.experiment == experiment]
    return [item for item in own if item.code == own[-1].code]


def evaluate(row: Row, rounds: Sequence[Round]) -> Result | None:
    """The row's figure, or None while nothing of it has been measured."""
    chosen = [
        item
        for item in latest(rounds, row.experiment)
        if {row.subject, row.peer} <= item.measured.keys()
        and (row.groups is None or item.group in row.groups)
    ]
    if not chosen:
        return None
    pairs = [(item.measured[row.subject], item.measured[row.peer]) for item in chosen]
    times = [(row.seconds(subject), row.seconds(peer)) for subject, peer in pairs]
    ratios = [peer / subject for subject, peer in times if subject and peer]
    if not ratios:
        return None
    return Result(
        row=row,
        ratio=median_interval(ratios),
        same_texts=sum(subject.text_hash == peer.text_hash for subject, peer in pairs),
    )
