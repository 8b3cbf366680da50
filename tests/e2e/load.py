"""Callers who go on asking while something happens, and whether what they were told is booked."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

import httpx

from tests.e2e.house import FOX, OPENAI, Customer, House, question
from tests.e2e.stack import sse_events
from tests.patience import PATIENCE_S, ran_s

PICO: Final = Decimal(10) ** 12
STREAMED_MAX: Final = 4_000
# From when the machine can run it again.
BACK_WITHIN_S: Final = 10.0


@dataclass
class Load:
    """What each caller was told, by the id of its request. One asks for each of `models`, over and
    over; `timeout_s` is a caller's patience."""

    house: House
    customer: Customer
    models: tuple[str, ...] = (FOX,)
    pause_s: float = 0.05
    timeout_s: float = PATIENCE_S
    told_pico: dict[str, int] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def ask(self, model: str = FOX, *, stream: bool = False) -> int:
        body = question(model, stream=True, max_tokens=STREAMED_MAX) if stream else question(model)
        try:
            answer = self.house.ask(OPENAI, body, self.customer.headers, timeout_s=self.timeout_s)
        except httpx.TransportError:
            return 0
        self.statuses.append(answer.status_code)
        if answer.status_code == 200:
            usage = _usage_of(answer, stream=stream)
            self.told_pico[answer.headers["x-request-id"]] = int(usage["cost"] * PICO)
        else:
            self.refusals.append(answer.text)
        return answer.status_code

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        over = threading.Event()

        def go_on(model: str) -> None:
            while not over.is_set():
                self.ask(model)
                over.wait(self.pause_s)

        askers = [threading.Thread(target=go_on, args=(model,)) for model in self.models]
        for asker in askers:
            asker.start()
        try:
            yield
        finally:
            over.set()
            for asker in askers:
                asker.join()

    def is_back(self) -> None:
        """Each model is served to somebody who asks now, within the time that all have."""
        deadline = ran_s() + BACK_WITHIN_S
        for model in dict.fromkeys(self.models):
            left_s = deadline - ran_s()
            self.house.stack.eventually(partial(self._is_served, model), timeout_s=left_s)

    def _is_served(self, model: str) -> bool:
        return self.ask(model) == 200

    def is_booked_as_told(self) -> None:
        """Each that was served is booked at what was told, and nothing else is."""
        stack = self.house.stack
        stack.eventually(self.house.is_reachable)
        stack.eventually(self._is_all_booked)
        assert self._booked_pico() == self.told_pico
        assert self.house.broken_sums() == []

    def _is_all_booked(self) -> bool:
        """All that was told at least, and nothing is on its way any more."""
        booked, house, customer = self._booked_pico(), self.house, self.customer
        has_told = all(booked.get(one, -1) >= pico for one, pico in self.told_pico.items())
        return has_told and not house.open_requests(customer) and house.is_drained(customer)

    def _booked_pico(self) -> dict[str, int]:
        rows = self.house.stack.sql(
            "SELECT request_id, sum(tenant_cost_pico) FROM billing_usageevent "
            "WHERE tenant_id = %s GROUP BY request_id",
            self.customer.tenant,
        )
        return {str(request_id): int(pico) for request_id, pico in rows}


def _usage_of(answer: httpx.Response, *, stream: bool) -> dict[str, Any]:
    if stream:
        usage: dict[str, Any] = sse_events(answer)[-1]["usage"]
    else:
        usage = answer.json(parse_float=Decimal)["usage"]
    return {**usage, "cost": Decimal(usage["cost"])}
