"""Tables as Markdown."""

from collections.abc import Iterable


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    cells = list(head)
    rows = [cells, ["---"] * len(cells), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
