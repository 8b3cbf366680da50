"""What the probes found, each as a Markdown table."""

from typing import Any, Final

from bench.engine.probes.costs import Costs
from bench.engine.probes.crowds import Crowds
from bench.engine.probes.drafts import Drafts
from bench.engine.probes.gaps import Gaps, quantile
from bench.engine.probes.held import RESERVED, Held
from bench.engine.probes.schemas import Schemas
from bench.engine.tables.markdown import table

HELD_BAR: Final = 4.0
PERCENTS: Final = (50, 95, 99, 100)


def render(name: str, result: dict[str, Any]) -> str:
    """The table of the probe `name`; its first word says which kind it is."""
    kind = name.split()[0]
    if kind == "held":
        return _held(Held(**result))
    if kind == "costs":
        return _costs(name, Costs(**result))
    if kind == "sparse":
        return _sparse(result)
    if kind == "gaps":
        return _gaps(name, Gaps(**result))
    if kind == "drafts":
        return _drafts(name, Drafts(**result))
    if kind == "schemas":
        return _schemas(name, Schemas(**result))
    return _crowds(name, Crowds(**result))


def _held(held: Held) -> str:
    lines = [
        (
            f"{length} tokens reserved for each",
            str(held.reserved_holds(length)),
            f"{held.held_mean:.1f}",
            f"{held.held_mean / held.reserved_holds(length):.1f}",
            "held" if held.held_mean >= HELD_BAR * held.reserved_holds(length) else "missed",
        )
        for length in RESERVED
    ]
    head = (
        f"sequences in {held.budget_tokens} tokens of KV ({held.tokens_mean:.0f} used each)",
        "contiguous",
        f"blocks ({held.preemptions} preempted)",
        "ratio",
        f"≥ {HELD_BAR:g} ×",
    )
    return table(head, lines)


def _sparse(result: dict[str, Any]) -> str:
    """Sparse experts beside a dense model of all their parameters; counted, and timed by batch."""
    share = result["flops_sparse"] / result["flops_dense"]
    batches = list(result["time_ratios"])
    lines = [
        ("FLOPs of a token against dense", f"{share:.3f}", *[""] * (len(batches) - 1)),
        (
            "dense step ÷ sparse step",
            *(
                f"{middle:.2f} ({low:.2f}-{high:.2f})"
                for middle, low, high in result["time_ratios"].values()
            ),
        ),
        (
            "share of a step in gate and dispatch",
            *(f"{part:.2f}" for part in result["gate_and_dispatch_share"].values()),
        ),
    ]
    active, total = result["active_millions"], result["parameters_millions"]
    head = (
        f"experts: {active:g} of {total:g} M parameters active "
        f"({4 * active:.0f} of {4 * total:.0f} MB in fp32)",
        *(f"batch {rows}" for rows in batches),
    )
    return table(head, lines)


def _costs(name: str, costs: Costs) -> str:
    return table(
        (f"{name}: tokens in a step", *map(str, costs.tokens)),
        [("ms", *(f"{ms:.1f}" for ms in costs.step_ms))],
    )


def _gaps(name: str, gaps: Gaps) -> str:
    rows = (("alone", gaps.alone_ms), ("while 16 others run", gaps.crowded_ms))
    lines = [
        (who, str(len(values)), *(f"{quantile(values, percent):.1f}" for percent in PERCENTS))
        for who, values in rows
    ]
    head = (f"{name}: ms between tokens of one stream", "n", "p50", "p95", "p99", "longest")
    return table(head, lines)


def _drafts(name: str, drafts: Drafts) -> str:
    one, every = drafts.step_ms
    lines = [
        (
            mode,
            str(megabytes),
            f"{drafts.one_ms[mode]:.2f} ({drafts.one_ms[mode] / one:.2f} ×)",
            f"{drafts.all_ms[mode]:.2f} ({drafts.all_ms[mode] / every:.2f} ×)",
        )
        for mode, megabytes in drafts.memory_mb.items()
    ]
    head = (
        f"{name}: {drafts.depth} tokens proposed (of a plain step)",
        "MB more",
        f"ms, one text (step {one:.1f})",
        f"ms, {drafts.texts} texts (step {every:.1f})",
    )
    return table(head, lines)


def _crowds(name: str, crowds: Crowds) -> str:
    rows = (
        ("prompts, while there are some", crowds.prompt),
        ("answers, once all prompts are read", crowds.decode),
        ("answers, end to end", crowds.end_to_end),
    )
    lines = [(what, *(f"{speed:.0f}" for speed in speeds)) for what, speeds in rows]
    return table((f"{name}: tok/s, requests at once", *map(str, crowds.at_once)), lines)


def _schemas(name: str, schemas: Schemas) -> str:
    lines = [
        (
            "without drafts" if kind == "off" else kind,
            f"{valid} of {schemas.answers}",
            str(schemas.cut[kind]),
            f"{schemas.schema_tps[kind]:.0f}",
            f"{schemas.free_tps[kind]:.0f}",
            f"{schemas.tokens_per_step[kind]:.2f}",
            "{median:.2f} ({low:.2f}-{high:.2f})".format(**schemas.ratio[kind]),
        )
        for kind, valid in schemas.valid.items()
    ]
    head = (
        f"{name}: {schemas.tokens_mean:.0f} tokens each, {schemas.same_texts} of "
        f"{schemas.answers} the same with drafts",
        "valid",
        "cut",
        "tok/s",
        "tok/s free",
        "tokens per step",
        "against free",
    )
    return table(head, lines)
