"""An installation without workers of its own that sells an attached server, seen from outside.

Its customers are tenants made to measure. `books` is everything that a refusal must leave alone.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from billing import registers
from billing.holding import usage_stream
from billing.holding.scopes import scope_of
from billing.money import PICO_PER_NANO
from billing.registers import SNAPSHOT_VERSION_KEY
from gateway.runtime.data_folders import CLONE
from tests.e2e.stack import Stack
from tests.fakes.upstream import FakeUpstream
from tests.patience import PATIENCE_S

INPUT_PICO: Final = 1_000_000
CACHED_PICO: Final = 500_000
OUTPUT_PICO: Final = 2_000_000
USD: Final = 10**12
OPENAI: Final = "/v1/chat/completions"
ANTHROPIC: Final = "/v1/messages"
DIALECTS: Final = (OPENAI, ANTHROPIC)
FOX: Final = "fox-good"
RENEWED: Final = (b"leases:", b"open:", b"hold:", b"clock:")

# What the events of each tenant or supplier cost, beside what the ledger's entries took for them.
EVENTS_AND_POSTINGS: Final = """
    SELECT {of}, coalesce(used.pico, 0), coalesce(posted.pico, 0) FROM (
        SELECT {of}, sum({cost}) AS pico FROM billing_usageevent
        WHERE state = 'posted' GROUP BY {of}
    ) used FULL JOIN (
        SELECT a.{of}, sum(e.amount_pico) AS pico FROM billing_entry e
        JOIN billing_account a ON a.id = e.account_id
        JOIN billing_transfer t ON t.id = e.transfer_id
        WHERE t.code = 'usage' AND a.kind IN {kinds} GROUP BY a.{of}
    ) posted USING ({of})
"""
OF_TENANTS: Final = {"of": "tenant_id", "cost": "tenant_cost_pico", "kinds": "('tenant_credit')"}
OF_SUPPLIERS: Final = {
    "of": "supplier",
    "cost": "supplier_cost_pico",
    "kinds": "('cost_of_sales', 'provider_waste')",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Credit, caps as (scope, window, limit) and rate limits by scope."""

    credit_pico: int = USD
    quotas: Sequence[tuple[str, str, int]] = ()
    rates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Customer:
    tenant: int
    slug: str
    team: int
    key_id: int
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@dataclass(frozen=True, slots=True)
class Books:
    """What Redis and Postgres have for one tenant."""

    registers: Mapping[bytes, bytes]
    passing: frozenset[bytes]
    """Which of them Redis forgets by itself at some time."""
    last_entry: bytes
    events: int
    entries: int

    @property
    def but_leases(self) -> "Books":
        """Without what open requests renew on their own."""
        kept = {k: v for k, v in self.registers.items() if not k.startswith(RENEWED)}
        return replace(self, registers=kept, passing=self.passing & kept.keys())

    def but_forgotten(self, later: "Books") -> "Books":
        """Without what Redis has forgotten since: outcomes some minutes after the deadline of their
        requests, counters after their minute."""
        kept = {
            key: value
            for key, value in self.registers.items()
            if key in later.registers or key not in self.passing
        }
        return replace(self, registers=kept, passing=self.passing & kept.keys())


@dataclass
class House:
    stack: Stack
    upstream: FakeUpstream

    def __post_init__(self) -> None:
        self._serial = itertools.count(1)

    def open(self, *, model: str = FOX, **fields: Any) -> None:
        """Starts it, and returns when it has sold one of the upstream's models."""
        self.stack.start()
        self.attach("story", self.upstream.url)
        key = self.stack.api_keys[0]
        self.stack.eventually(lambda: self.stack.serves(key=key, model=model, **fields))

    def planes(self) -> list[int]:
        """The worker processes of the data plane's server."""
        server = self.stack.children()["dataplane"]
        listed = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [int(pid) for pid in listed]

    def attach(self, name: str, url: str) -> None:
        """A server as a seller, known to every data plane."""
        self.manage("attach_pool", name, url, "--input-usd", "1", "--output-usd", "2")
        self.until_known()

    def manage(self, *words: str, said: str = "") -> str:
        """A command of `manage.py` on this installation, and what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=CLONE,
            env=self.stack.variables(),
            input=said,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def _operate(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        code = "from tests.e2e import newcomer; newcomer.main()"
        said = self.manage("shell", "--no-imports", "-c", code, said=json.dumps(asked))
        made: list[dict[str, Any]] = json.loads(said.splitlines()[-1])
        return made

    def customers(self, *wanted: Wanted) -> list[Customer]:
        asked = [{"slug": f"story-{next(self._serial)}", **asdict(each)} for each in wanted]
        return [Customer(**made) for made in self._operate(asked)]

    def customer(self, **wanted: Any) -> Customer:
        [made] = self.customers(Wanted(**wanted))
        return made

    def grant(self, customer: Customer, amount_pico: int) -> None:
        self._operate([{"tenant": customer.tenant, "grant_pico": amount_pico}])

    def ask(
        self,
        path: str,
        body: bytes | Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        timeout_s: float = PATIENCE_S,
    ) -> httpx.Response:
        """One call on a connection of its own, so that any process may get it."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"{self.stack.api}{path}"
        return httpx.post(url, content=content, headers=headers, timeout=timeout_s, trust_env=False)

    def board(self, model: str) -> list[dict[str, Any]]:
        """The public board's rows of this model; none where it has no board."""
        # Of a day, so that no request slides out of it while the stories go on.
        answer = self.stack.get(f"/api/v1/leaderboards/{model}/?window=24h")
        rows: list[dict[str, Any]] = answer.json()["rows"] if answer.is_success else []
        return rows

    def page(self, path: str) -> str:
        """A public page of the console."""
        answer = self.stack.get(path)
        assert answer.status_code == 200
        return answer.text

    def books(self, customer: Customer) -> Books:
        with self.stack.redis() as redis:
            stream = registers.stream_key(_tag(customer))
            kept = {
                key: redis.dump(key)
                for key in redis.scan_iter(match=f"*:{_tag(customer)}*", count=1000)
                if key != stream.encode()
            }
            passing = frozenset(key for key in kept if redis.pttl(key) >= 0)
            last = redis.xinfo_stream(stream)["last-generated-id"]
        [(events,)] = self.stack.sql(
            "SELECT count(*) FROM billing_usageevent WHERE tenant_id = %s", customer.tenant
        )
        [(entries,)] = self.stack.sql(
            "SELECT count(*) FROM billing_entry e JOIN billing_account a ON a.id = e.account_id "
            "WHERE a.tenant_id = %s",
            customer.tenant,
        )
        return Books(kept, passing, last, events, entries)

    def register(self, customer: Customer) -> dict[str, int]:
        """Credit, spent and held in Redis, in nano-dollars; `pico` is the rest below one."""
        with self.stack.redis() as redis:
            found = redis.hgetall(registers.tenant_key(_tag(customer), customer.tenant))
        return {
            name: int(found.get(name.encode(), 0)) for name in ("credit", "spent", "pico", "held")
        }

    def spent_pico(self, customer: Customer) -> int:
        register = self.register(customer)
        return register["spent"] * PICO_PER_NANO + register["pico"]

    def caps(self, customer: Customer) -> dict[str, tuple[int, int]]:
        """What the registers of the customer's spend caps have, by scope and window: pico-dollars
        that are spent, and nano-dollars that are held."""
        found = {}
        with self.stack.redis() as redis:
            prefix = registers.spend_key(
                _tag(customer), customer.tenant, kind="", scope="", bucket=""
            ).rstrip(":")
            for key in redis.scan_iter(match=f"{prefix}:*", count=1000):
                kind, _, window = scope_of(key.decode())
                if window != registers.SESSION:
                    row = [int(n or 0) for n in redis.hmget(key, "spent", "pico", "held")]
                    found[f"{kind} {window}"] = (row[0] * PICO_PER_NANO + row[1], row[2])
        return found

    def open_requests(self, customer: Customer) -> int:
        with self.stack.redis() as redis:
            return int(redis.zcard(registers.leases_key(_tag(customer))))

    def is_drained(self, customer: Customer) -> bool:
        """Whether all of the shard's usage stream is posted and acknowledged. Asked in the order in
        which an event moves, or one that moves meanwhile would be in neither place."""
        shard = registers.shard_of(customer.tenant)
        with self.stack.redis() as redis:
            is_read = usage_stream.oldest_unread_ms(redis, shard) is None
            return is_read and not usage_stream.has_pending(redis, shard)

    def until_booked(self, customer: Customer, *, events: int) -> None:
        """So many events are posted, and the registers have heard of it: the drain acknowledges
        what it posted, which corrects them, a moment later."""
        self.stack.eventually(
            lambda: len(self.posted(customer)) == events and self.is_drained(customer)
        )

    def posted(self, customer: Customer) -> list[tuple[str, int, int]]:
        """Outcome, cost and overage of every event of the tenant."""
        return self.stack.sql(
            "SELECT outcome, tenant_cost_pico, overage_pico FROM billing_usageevent "
            "WHERE tenant_id = %s ORDER BY id",
            customer.tenant,
        )

    def debited_pico(self, customer: Customer) -> int:
        """What the ledger took from the tenant's credit for usage."""
        [(total,)] = self.stack.sql(
            "SELECT coalesce(sum(e.amount_pico), 0) FROM billing_entry e "
            "JOIN billing_account a ON a.id = e.account_id "
            "JOIN billing_transfer t ON t.id = e.transfer_id "
            "WHERE a.kind = 'tenant_credit' AND a.tenant_id = %s AND t.code = 'usage'",
            customer.tenant,
        )
        return int(total)

    def outcomes(self, customer: Customer) -> dict[str, tuple[str, int]]:
        """How Redis remembers each request of the tenant's shard: its state, and the nano-dollars
        that its settle charged."""
        prefix = registers.hold_key(_tag(customer), "")
        with self.stack.redis() as redis:
            keys = list(redis.scan_iter(match=f"{prefix}*", count=1000))
            with redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hmget(key, "state", "charged")
                found = pipe.execute()
        return {
            key.decode().removeprefix(prefix): (state.decode(), int(charged or 0))
            for key, (state, charged) in zip(keys, found, strict=True)
        }

    def broken_sums(self) -> list[str]:
        """Which of the ledger's totals differ, over all that was ever posted here, by the rows
        themselves: Σ entries = 0, and Σ events = Σ postings of each tenant and supplier."""
        [(everything,)] = self.stack.sql("SELECT coalesce(sum(amount_pico), 0) FROM billing_entry")
        tenants = self.stack.sql(EVENTS_AND_POSTINGS.format(**OF_TENANTS))
        suppliers = self.stack.sql(EVENTS_AND_POSTINGS.format(**OF_SUPPLIERS))
        differing = [
            f"{who}: {used} used, {posted} posted"
            for who, used, posted in (*tenants, *suppliers)
            if used != posted
        ]
        assert tenants
        assert suppliers
        return [*differing, *([f"entries sum to {everything}"] if everything else [])]

    def is_reachable(self) -> bool:
        """Whether PostgreSQL answers."""
        try:
            return self.stack.sql("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def until_known(self) -> None:
        """Each data plane has loaded what is in PostgreSQL now: told once more, for they may have
        heard of a change while it was made."""
        changed_ms = time.time() * 1000
        with self.stack.redis() as redis:
            redis.incr(SNAPSHOT_VERSION_KEY)
        self.stack.eventually(lambda: self._are_loaded_since(changed_ms))

    def until_ready(self) -> None:
        """Each data plane admits requests."""
        self.stack.eventually(lambda: self._are_loaded_since(0))

    def _are_loaded_since(self, changed_ms: float) -> bool:
        """Who accepts a connection is not for us to choose, so the processes are told apart by what
        they answer. One that was never asked is not known to be ready."""
        processes = int(self.stack.variables().get("TOKENHOUSE_DATAPLANE_PROCESSES", "1"))
        urls = [f"{self.stack.api}/ready"] * (12 * processes)
        try:
            answers = [httpx.get(url, trust_env=False, timeout=PATIENCE_S) for url in urls]
        except httpx.TransportError:
            return False  # One of them is being started again.
        loaded = {
            answer.json()["process"]
            for answer in answers
            if answer.status_code == 200 and answer.json()["snapshot_ms"] > changed_ms
        }
        return len(loaded) == processes


def _tag(customer: Customer) -> str:
    return registers.shard_tag(customer.tenant)


def question(model: str = FOX, **more: Any) -> dict[str, Any]:
    """A body that both dialects take."""
    return {
        "model": model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": "What does the fox do?"}],
        **more,
    }


def error_of(answer: httpx.Response, path: str) -> dict[str, Any]:
    """The error inside an answer of this dialect; the shape is checked on the way."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    if path == ANTHROPIC:
        assert (body["type"], body["request_id"]) == ("error", answer.headers["x-request-id"])
        assert set(body["error"]) >= {"type", "message"}
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) >= {"message", "type", "param", "code"}
    found: dict[str, Any] = body["error"]
    return found
