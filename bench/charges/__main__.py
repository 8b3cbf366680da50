"""What 500 requests without a count are charged, against what they really used.

.venv/bin/python -m bench.charges
"""

import statistics
import sys
import time
from collections.abc import Iterable

from bench.charges import rounds
from bench.charges.rounds import Row
from gateway.estimates.ratios import Ratios


def line(name: str, rows: Iterable[Row]) -> str:
    found = list(rows)
    off = sorted(abs(row.off) for row in found)
    true, charged = (sum(getattr(r, f"{f}_pico") for r in found) for f in ("true", "charged"))
    return (
        f"{name:20} {len(found):5} {statistics.median(off):9.1%} {off[len(off) * 9 // 10]:7.1%} "
        f"{charged / true - 1:+9.1%} {max(r.charged_pico / r.hold_pico for r in found):9.0%}"
    )


def main() -> None:
    rows = list(rounds.charged(Ratios(time.monotonic)))
    out = [f"{'':20} {'n':>5} {'median':>9} {'p90':>7} {'sum':>9} {'of hold':>9}"]
    out.append(line("all", rows))
    out.append(line("first calls", (row for row in rows if row.is_first_call)))
    for kind in dict.fromkeys(row.kind for row in rows):
        out.append(line(kind, (row for row in rows if row.kind == kind)))
    for end in dict.fromkeys(row.end for row in rows):
        out.append(line(end, (row for row in rows if row.end == end)))
    sys.stdout.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
