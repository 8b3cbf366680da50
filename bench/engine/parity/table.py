"""The matrix as Markdown: one line for each proposer, and every tie and difference by name."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from bench.engine.parity.matrix import MODES, Compared
from bench.engine.tables.markdown import table

HEAD = (
    "proposer",
    "answers",
    "identical",
    "ties",
    "different",
    "batches of",
    "preempted",
    "drafted",
    "accepted",
)


def render(batches: Sequence[Compared], *, against: str) -> str:
    """The table, or a line that says that there is nothing to show."""
    if not batches:
        return f"{against}: nothing is compared yet.\n"
    ordered = sorted(batches, key=lambda item: MODES.index(item.mode))
    lines = [_line(mode, list(items)) for mode, items in groupby(ordered, lambda item: item.mode)]
    named = "\n".join(f"- {line}" for item in ordered for line in _exceptions(item))
    parts = [f"{against}:", table(HEAD, lines), named]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(mode: str, batches: list[Compared]) -> tuple[str, ...]:
    sizes = sorted({item.size for item in batches})
    return (
        mode,
        str(sum(item.size for item in batches)),
        str(sum(item.identical for item in batches)),
        str(sum(len(item.ties) for item in batches)),
        str(sum(len(item.different) for item in batches)),
        ", ".join(map(str, sizes)),
        str(sum(item.preemptions for item in batches)),
        str(sum(item.drafted for item in batches)),
        str(sum(item.accepted for item in batches)),
    )


def _exceptions(batch: Compared) -> Iterator[str]:
    for kind, answers in (("tie", batch.ties), ("DIFFERENT", batch.different)):
        for answer in answers:
            tokens = "; ".join(
                f"token {tie['position']}: {tie['token']} for {tie['best']}, "
                f"{tie['gap']:.6f} less in logits"
                for tie in answer["tokens"]
            )
            where = f"{batch.mode}, batch of {batch.size}, prompt {answer['prompt']}"
            yield f"{kind} ({where}): {tokens or 'another length or another text'}"
