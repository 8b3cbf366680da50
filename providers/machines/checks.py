"""Are our machines still there? A silent worker is demoted; only failed direct checks remove it.

A heartbeat gap may be the console's fault, so it only moves the offer behind all live ones. Two
direct checks in a row that fail remove it, one that succeeds restores it. Attached pools send
no heartbeats and are only asked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from billing import fault_isolation
from providers.errors import AuthFailed
from providers.machines import pool_metrics
from providers.market import credentials, offers
from providers.models import Credential, Offer, Provider, Worker
from providers.outbound import small_requests
from providers.outbound.small_requests import Question, Reply
from providers.wires.error_answers import failure

HEARTBEAT_GAP = timedelta(seconds=15)
FAILURES_MAX = 2
CHECK_TIMEOUT_S = 3.0
DOUBTS_PER_RUN_MAX = 8
PAGE_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """One address to ask, and the headers that it wants."""

    offer_id: int
    url: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    offer_id: int
    failure: str  # empty: it answered


def check_all(*, now: datetime) -> int:
    """Ask every worker and pool once and move their offers accordingly; returns how many moved."""
    workers = {worker.offer_id: worker for worker in Worker.objects.select_related("offer")}

    def judge(answer: Answer) -> int:
        worker = workers.get(answer.offer_id)
        return _judge_worker(worker, answer, now) if worker else _judge_pool(answer, now)

    with fault_isolation.told_at_the_end():
        targets = fault_isolation.each(
            workers.values(), _worker_target, name=lambda w: f"worker {w.pk}"
        )
        targets += _pool_targets()
        answers = _ask([target for target in targets if target is not None])
        return sum(
            fault_isolation.each(answers, judge, name=lambda answer: f"offer {answer.offer_id}")
        )


def _worker_target(worker: Worker) -> Target | None:
    try:
        bearer = credentials.decrypt(worker.bearer_ciphertext)
    except credentials.CredentialUnreadable:
        return None
    headers = offers.headers_for(Provider.Wire.OPENAI, bearer)
    return Target(worker.offer_id, f"{worker.base_url}/health", headers)


def _pool_targets() -> list[Target | None]:
    pools = Offer.objects.filter(provider__kind=Provider.Kind.POOL).exclude(
        state=Offer.State.DISABLED
    )
    secrets = credentials.active()

    def target(offer: Offer) -> Target | None:
        headers = _headers(offer.provider, secrets.get(offer.provider_id))
        if headers is None:
            return None
        url = offer.provider.check_url or offers.models_url(offer.provider)
        return Target(offer.pk, url, headers)

    return fault_isolation.each(
        pools.select_related("provider"), target, name=lambda o: f"offer {o.pk}"
    )


def read_loads(*, now: datetime) -> int:
    """Ask every pool for its metrics and keep its load; returns how many showed one."""
    pools = Provider.objects.filter(kind=Provider.Kind.POOL, enabled=True)
    secrets = credentials.active()
    asked: list[tuple[Provider, Question]] = []
    for pool in pools:
        headers = _headers(pool, secrets.get(pool.pk))
        if headers is not None:
            asked.append(
                (pool, Question(f"{root_of(pool.base_url)}/metrics", headers, approved=True))
            )
    replies = ask([question for _, question in asked])

    def keep(pair: tuple[Provider, Reply]) -> bool:
        pool, reply = pair
        page = reply.body.decode(errors="replace") if reply.status == 200 else ""
        load = pool_metrics.load_of(page)
        # A load that is not renewed would be read as today's.
        shown = {"engine": load.engine, **load.figures, "at": now.isoformat()} if load else {}
        pool.load = shown
        pool.save(update_fields=["load"])
        if load and pool.salted is None and load.engine in pool_metrics.SALTED:
            offers.salt(pool.pk)
        return load is not None

    told = list(zip((pool for pool, _ in asked), replies, strict=True))
    return sum(fault_isolation.each(told, keep, name=lambda pair: pair[0].slug))


def root_of(base_url: str) -> str:
    """Where a server's own pages are, such as /health: above its version path."""
    return base_url.rstrip("/").removesuffix("/v1")


def _headers(provider: Provider, credential: Credential | None) -> dict[str, str] | None:
    """The authorisation of this provider's wire; None where it has one that is of no use now: to
    ask without it would be another question."""
    if credential is None:
        return {}
    if credential.dead_reason:
        return None
    try:
        secret = credentials.decrypt(credential.ciphertext)
    except credentials.CredentialUnreadable:
        return None
    return offers.headers_for(provider.wire, secret)


def ask(questions: list[Question]) -> list[Reply]:
    """What these servers say, each within the limits of a check."""
    return small_requests.ask(questions, timeout_s=CHECK_TIMEOUT_S, bytes_max=PAGE_BYTES_MAX)


def _ask(targets: list[Target]) -> list[Answer]:
    replies = ask([Question(one.url, one.headers, approved=True) for one in targets])
    return [
        Answer(target.offer_id, _failure_of(reply))
        for target, reply in zip(targets, replies, strict=True)
    ]


def _failure_of(reply: Reply) -> str:
    if reply.problem:
        return f"no answer: {reply.problem}"
    return "" if reply.status == 200 else f"answered {reply.status}"


def settle_doubts(*, now: datetime) -> int:
    """Ask the providers of doubted credentials whether they are dead; returns how many are. A call
    that costs nothing, and that no tenant's request has a part in. No answer settles nothing."""
    doubted = Credential.objects.filter(active=True, dead_reason="", doubted_at__isnull=False)
    asked = doubted.select_related("provider")[:DOUBTS_PER_RUN_MAX]
    buried = fault_isolation.each(
        asked, lambda credential: _settle_doubt(credential, now), name=lambda c: c.provider.slug
    )
    return sum(buried)


def _settle_doubt(credential: Credential, now: datetime) -> bool:
    provider = credential.provider
    headers = _headers(provider, credential)
    if headers is None or not provider.base_url:
        return False
    reason = _refusal_of_credential(provider, headers)
    if reason is None:
        return False
    if reason:
        return credentials.mark_dead(provider_id=provider.pk, reason=reason, seen_at=now)
    Credential.objects.filter(pk=credential.pk).update(doubted_at=None)
    return False


def _refusal_of_credential(provider: Provider, headers: dict[str, str]) -> str | None:
    """Why this provider takes no call with these headers; empty where it does, None where it does
    not say."""
    is_ours = provider.kind != Provider.Kind.EXTERNAL
    (reply,) = ask([Question(offers.models_url(provider), headers, approved=is_ours)])
    if reply.problem or reply.status >= 500:
        return None
    if reply.status == 200:
        return ""
    # A 403 alone may say only that this key lists no models.
    problem = failure(reply.status, {}, reply.body, offers.wire_of(provider))
    if isinstance(problem, AuthFailed):
        return f"answered {reply.status} when asked for its models"
    return ""


def _judge_worker(worker: Worker, answer: Answer, now: datetime) -> int:
    worker.checked_at = now
    worker.check_failures = worker.check_failures + 1 if answer.failure else 0
    worker.save(update_fields=["checked_at", "check_failures"])
    silent = now - worker.heartbeat_at
    if worker.check_failures >= FAILURES_MAX:
        state, reason = Offer.State.REMOVED, answer.failure
    elif silent > HEARTBEAT_GAP:
        state, reason = Offer.State.DEMOTED, f"no heartbeat for {int(silent.total_seconds())} s"
    elif answer.failure and worker.offer.state == Offer.State.REMOVED:
        return 0
    else:
        state, reason = Offer.State.LIVE, ""
    return offers.set_state(offer_id=worker.offer_id, state=state, reason=reason, now=now)


def _judge_pool(answer: Answer, now: datetime) -> int:
    """The first failed check demotes a pool, the second removes it."""
    if not answer.failure:
        return offers.set_state(
            offer_id=answer.offer_id, state=Offer.State.LIVE, reason="", now=now
        )
    state = Offer.objects.filter(pk=answer.offer_id).values_list("state", flat=True).get()
    worse = Offer.State.DEMOTED if state == Offer.State.LIVE else Offer.State.REMOVED
    return offers.set_state(offer_id=answer.offer_id, state=worse, reason=answer.failure, now=now)
