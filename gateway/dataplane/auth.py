"""Whose call this is: from the key's hash to a Principal, from memory.

A key that the snapshot does not know is looked up in Postgres once for all who ask at the same
time, and what was found is remembered: a new key until the snapshot has it, an unknown one for a
while. Revocation is not decided here: the hold script
reads the key's status, so that it takes effect at the next call in every process. Postgres
away is our outage, never a wrong key.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from billing.holding.holds import RateScope, SpendScope
from billing.prices.price_spans import ListSpans
from gateway.errors import InvalidApiKey, InvalidRequest, PermissionDenied, Unavailable
from gateway.kinds import INFERENCE
from gateway.routing.policies import PolicyView

KEY_PREFIX = b"tk-"
KEY_BYTES_MAX = 200
KEY_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
ANSWERS_MAX = 10_000
UNKNOWN_FOR_S = 10.0
# No longer than a snapshot may be behind.
FOUND_FOR_S = 1.0
ASKED_AT_ONCE_MAX = 200

KeyHash = bytes


@dataclass(frozen=True, slots=True)
class CallUse:
    """What calls at one model used so far, by the key's own past or its tenant's: output tokens,
    and input in thousandths of its bound."""

    calls: int
    whose: str
    output_mean: int
    output_p95: int
    output_p99: int
    input_mean: int
    input_p95: int
    input_p99: int


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated key with everything that a call of it is checked against. An overdraft
    says that holds are what is expected; without one they are the most a request can cost."""

    key_id: int
    public_id: str
    name: str
    tenant_id: int
    tenant_slug: str
    team_id: int | None
    scopes: frozenset[str]
    models_allowed: frozenset[str]  # empty: every model
    expires_at_ms: int | None
    max_output_tokens: int
    cache_salt: str
    spend: tuple[SpendScope, ...]
    rates: tuple[RateScope, ...]
    policy: PolicyView
    price_lists: ListSpans = ()
    spend_by_model: Mapping[str, tuple[SpendScope, ...]] = field(default_factory=dict)
    spend_by_provider: Mapping[str, tuple[SpendScope, ...]] = field(default_factory=dict)
    session_cap: SpendScope | None = None
    overdraft_nano: int = 0
    call_use: Mapping[str, CallUse] = field(default_factory=dict)  # by model
    tenant_name: str = ""
    team_name: str = ""

    def called(self, kind: str, scope_id: str) -> str:
        """A scope in the words of those who made it, not by its number."""
        name = {"key": self.name, "team": self.team_name, "tenant": self.tenant_name}.get(kind, "")
        return f"{kind} “{name}”" if name else f"{kind} {scope_id}".strip()


Lookup = Callable[[KeyHash], Awaitable[Principal | None]]


class UnknownKeys:
    """Looks up what the snapshot does not hold: single-flight, and bounded in what it remembers."""

    def __init__(self, lookup: Lookup, *, monotonic: Callable[[], float]) -> None:
        self._lookup = lookup
        self._monotonic = monotonic
        self._answers: OrderedDict[KeyHash, tuple[float, Principal | None]] = OrderedDict()
        self._asking: dict[KeyHash, asyncio.Task[Principal | None]] = {}

    async def find(self, key_hash: KeyHash) -> Principal | None:
        until, known = self._answers.get(key_hash, (None, None))
        if until is not None and self._monotonic() < until:
            return known
        asking = self._asking.get(key_hash)
        if asking is None:
            if len(self._asking) >= ASKED_AT_ONCE_MAX:
                raise Unavailable("Too many unknown keys are being checked. Try again shortly.")
            asking = asyncio.create_task(self._ask(key_hash))
            self._asking[key_hash] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key_hash, None))
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """Keys may have been made or changed since: called when a new snapshot is in force."""
        self._answers.clear()

    async def _ask(self, key_hash: KeyHash) -> Principal | None:
        found = await self._lookup(key_hash)
        known_for_s = UNKNOWN_FOR_S if found is None else FOUND_FOR_S
        self._answers[key_hash] = (self._monotonic() + known_for_s, found)
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
        return found


def key_hash_of(
    headers: Mapping[bytes, bytes], *, repeated: frozenset[bytes] = frozenset()
) -> KeyHash:
    """The hash of the presented key; InvalidApiKey where there is none or it has no key's form.
    `repeated` are headers that came more than once: no guess is made which one counts."""
    if not repeated.isdisjoint(KEY_HEADERS):
        raise _ambiguous()
    keys = _presented(headers)
    if not keys:
        raise InvalidApiKey(
            "No API key was sent. Put it into the header `Authorization: Bearer tk-…`, "
            "`x-api-key: tk-…` or `api-key: tk-…`.",
            code="missing_api_key",
        )
    # Clients also send what they know of other vendors.
    ours = {key for key in keys if key.startswith(KEY_PREFIX)}
    if len(ours) > 1:
        raise _ambiguous()
    presented = ours.pop() if ours else b""
    if not presented or len(presented) > KEY_BYTES_MAX:
        raise InvalidApiKey("This is not an API key of this gateway; they begin with `tk-`.")
    return hashlib.sha256(presented).digest()


def _presented(headers: Mapping[bytes, bytes]) -> list[bytes]:
    """What was sent as a key: of OpenAI's, Anthropic's and Azure's clients."""
    authorization = headers.get(b"authorization", b"")
    bearer = authorization[7:] if authorization[:7].lower() == b"bearer " else b""
    sent = (bearer, headers.get(b"x-api-key", b""), headers.get(b"api-key", b""))
    return [key.strip() for key in sent if key.strip()]


def _ambiguous() -> InvalidRequest:
    return InvalidRequest(
        "More than one API key was sent; send one, in one header.", code="several_api_keys"
    )


def check_principal(principal: Principal | None, *, now_ms: int) -> Principal:
    """The principal if it may use the API at all."""
    if principal is None:
        raise InvalidApiKey("This API key does not exist or was revoked.")
    if principal.expires_at_ms is not None and principal.expires_at_ms <= now_ms:
        raise InvalidApiKey("This API key has expired.", code="expired_api_key")
    if INFERENCE not in principal.scopes:
        raise PermissionDenied("This API key may not be used for inference.", code="missing_scope")
    return principal
