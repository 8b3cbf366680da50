"""A step of the model: parts of requests in, hidden states and logits for each out.

It knows the model, its cache and its recorded steps, and nothing of what becomes of a token.
"""

from dataclasses import dataclass

from torch import Tensor

from workers.cache.kv import BlockPool, BlockTable
from workers.config import EngineConfig
from workers.device import Clock
from workers.engine.scheduler import Scheduled
from workers.model.batch import Layout, Part, build_batch
from workers.model.cuda_graphs import recorded_steps
from workers.model.decoder import Model
from workers.model.sampler import Peak
from workers.speculation.policy import CostCurve

# Costs of steps are measured behind so many tokens, within about this time.
COST_CONTEXT = 256
COST_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Computed:
    """What a step computed for one request; the logits begin at its last known token."""

    item: Scheduled
    logits: Tensor  # [1 + draft, vocab], or none while the prompt is not complete
    peaks: list[Peak]
    hidden: Tensor  # [item.total, hidden], before the final norm


class Forward:
    def __init__(self, config: EngineConfig, model: Model, *, context_length: int) -> None:
        self.model = model
        self.cache = model.new_cache(num_blocks=config.kv_blocks, block_size=config.block_size)
        self.graphs = recorded_steps(
            model,
            self.cache,
            wanted=config.cuda_graphs,
            requests_max=config.max_running_requests,
            keys_max=context_length,
        )
        self._block_size = config.block_size

    def over(self, plan: list[Scheduled]) -> list[Computed]:
        """One step of the model over the plan."""
        hidden, logits, peaks, order = self.compute([_part(item) for item in plan])
        if not all(item.sequence.request.is_plainly_greedy for item in plan):
            # Draws, edits and grammars are the host's; greedy steps leave logits where they are.
            logits = logits.cpu()
        computed: list[Computed] = []
        row = wanted = 0
        for item in (plan[index] for index in order):
            part = slice(wanted, wanted + _wanted(item))
            rows = slice(row, row + item.total)
            computed.append(Computed(item, logits[part], peaks[part], hidden[rows]))
            row, wanted = rows.stop, part.stop
        return computed

    def compute(self, parts: list[Part]) -> tuple[Tensor, Tensor, list[Peak], list[int]]:
        """Hidden states [tokens, hidden]; where they are wanted, logits and their peaks; and in
        what order the parts lie there."""
        recorded = None if self.graphs is None else self.graphs.run(parts)
        if recorded is not None:
            hidden, logits = recorded
            return hidden, logits, self.model.peaks(logits), list(range(len(parts)))
        layout = self.layout(parts)
        hidden = self.model.hidden_states(layout.batch, self.cache)
        logits = self.model.logits(hidden.index_select(0, layout.batch.logit_rows))
        return hidden, logits, self.model.peaks(logits), layout.order

    def layout(self, parts: list[Part]) -> Layout:
        model = self.model
        return build_batch(
            parts,
            block_size=self._block_size,
            group=model.config.group,
            device=model.device,
            paged=model.kernel is not None,
        )

    def costs(self, config: EngineConfig, pool: BlockPool, *, room: int, clock: Clock) -> CostCurve:
        """Time steps of growing size behind a context, on scratch blocks that are zeroed again."""
        limit = min(config.token_budget, room)
        context = min(COST_CONTEXT, room - limit)
        scratch = BlockTable(root=b"")
        if not pool.grow(scratch, context + limit):
            raise RuntimeError("costs are measured before the first request")
        touched = list(scratch.block_ids)
        # Memory that was never written is read faster than a cache that is in use.
        self.cache.scrub(touched)

        def time_step(tokens: int) -> float:
            part = Part([0] * tokens, scratch.block_ids, first=context, wanted=tokens)
            # The whole step, with the choice of every row's best token, for which it waits.
            started = clock()
            self.compute([part])
            return clock() - started

        curve = CostCurve.measured(time_step, limit=limit, seconds=COST_SECONDS)
        pool.release(scratch)
        self.cache.scrub(touched)
        self.model.take_expert_use()
        return curve


def _wanted(item: Scheduled) -> int:
    """After how many tokens of this step the next one is wanted."""
    return 1 + len(item.sequence.draft) if item.reaches_end else 0


def _part(item: Scheduled) -> Part:
    sequence, first = item.sequence, item.sequence.num_computed
    tokens = sequence.tokens[first : first + item.count] + sequence.draft
    return Part(tokens, sequence.table.block_ids, first=first, wanted=_wanted(item))
