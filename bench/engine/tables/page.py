"""The page that carries what is exact of the engine: each table between marks that name it."""

from typing import Final

from bench.engine.side import CLONE

PAGE: Final = CLONE / "docs/engine-exactness.md"


def put(name: str, text: str) -> None:
    """Replace what stands between the marks of `name`. Raises ValueError if there are none."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin", f"<!-- {name}: end -->"
    before, opened, rest = page.partition(begin)
    comment, closed, rest = rest.partition("-->")
    _, ended, after = rest.partition(end)
    if not (opened and closed and ended):
        raise ValueError(f"{PAGE} has no place for {name}: {begin} ... --> and {end}")
    parts = f"{before}{begin}{comment}-->\n\n{text.strip()}\n\n{end}{after}"
    PAGE.write_text(parts, encoding="utf-8")
