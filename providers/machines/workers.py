"""In-house workers: the keys that let them join, their registration, heartbeats and join line.

A worker key is bound to a network; a worker that names an address outside it is refused. The
first registration publishes a price from the worker's own calibration, so that its offer can be
called at once. Checks of whether it still answers are in `providers.machines.checks`.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing import audit
from billing.money import PICO_PER_USD
from providers.machines import addresses, in_house
from providers.machines.engine_cost import calibrated_work
from providers.market import credentials, offers
from providers.market.model_names import creator_of, title_of
from providers.models import Model, Offer, Provider, Worker, WorkerKey

HEARTBEAT_S = 5
IN_HOUSE = "in-house"
USD_PER_HOUR_MAX = Decimal(10_000)
SPECULATION = "-speculation"
# Our engine renders chats as text; the rest it has only where the worker says so.
CAPABILITIES = [offers.CHAT, "text_only"]
FEATURES = ("json_schema", "tools")
SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
TOTALS_MAX = 40
MODELS_ALLOWED_MAX = 100


class WorkerRefused(ValueError):
    """A registration or heartbeat that does not fit; the text is for whoever runs the worker."""


class WorkerForbidden(Exception):
    """This worker key may not sell that model; the text names those that it may."""


class WorkerUnknown(LookupError):
    """No such worker under this key: it must register again."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker says of itself when it joins; validated by the API's serializer."""

    name: str
    base_url: str
    bearer: str
    model: str
    context_length: int
    max_output_tokens: int
    techniques: tuple[str, ...]
    usd_per_hour: Decimal
    usd_per_hour_source: str
    calibration: Mapping[str, object]
    engine: Mapping[str, object]
    features: tuple[str, ...] = ()
    costs: Mapping[str, object] = field(default_factory=dict)


def issue_key(
    *,
    label: str,
    allowed_network: str,
    created_by: str,
    now: datetime,
    models_allowed: Sequence[str] = (),
) -> tuple[WorkerKey, str]:
    """A new worker key and its plain text, which is shown once. ValueError for what is no network
    or no model's name; without models its workers may sell any."""
    network = str(ipaddress.ip_network(allowed_network.strip()))
    wrong = [model for model in models_allowed if not SLUG.fullmatch(model)]
    if wrong or len(models_allowed) > MODELS_ALLOWED_MAX:
        raise ValueError(f"up to {MODELS_ALLOWED_MAX} models' names, not {wrong}")
    secret = secrets.token_hex(32)
    with transaction.atomic():
        key = WorkerKey.objects.create(
            label=label[:80],
            public_id=secrets.token_hex(6),
            secret_hash=_hash(secret),
            allowed_network=network,
            models_allowed=sorted(set(models_allowed)),
        )
        audit.record(
            actor=created_by,
            action="worker_key.issue",
            subject=f"worker key {key.public_id}",
            after={"network": network, "models_allowed": key.models_allowed},
            now=now,
        )
    return key, f"wk-{key.public_id}-{secret}"


def revoke_key(*, key: WorkerKey, actor: str, now: datetime) -> None:
    """The key can neither register nor send heartbeats any more; its offers fall to checks."""
    with transaction.atomic():
        if WorkerKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
            audit.record(
                actor=actor,
                action="worker_key.revoke",
                subject=f"worker key {key.public_id}",
                before={"network": key.allowed_network},
                now=now,
            )


def authenticate(plain: str) -> WorkerKey | None:
    """The living key with this plain text."""
    prefix, _, rest = plain.partition("-")
    public_id, _, secret = rest.partition("-")
    key = WorkerKey.objects.filter(public_id=public_id, revoked_at=None).first()
    if prefix != "wk" or key is None:
        return None
    return key if hmac.compare_digest(_hash(secret), bytes(key.secret_hash)) else None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def join_line(*, console_url: str, plain_key: str) -> str:
    """What an operator runs in a clone of this project on another machine, at its own $/hour."""
    return f"WORKER_KEY={plain_key} make worker GATEWAY={console_url} NAME=my-gpu USD_PER_HOUR=1.20"


@transaction.atomic
def register(*, key: WorkerKey, registration: Registration, now: datetime) -> Worker:
    """Make or renew a worker and its offer, or say in WorkerRefused, WorkerForbidden or
    AddressRefused why not."""
    _check(registration)
    if key.models_allowed and registration.model not in key.models_allowed:
        raise WorkerForbidden(
            f"this worker key sells {', '.join(key.models_allowed)}, not {registration.model}"
        )
    base_url = addresses.checked_base_url(
        registration.base_url.rstrip("/").removesuffix("/v1"), network=key.allowed_network
    )
    worker = Worker.objects.select_for_update().filter(name=registration.name).first()
    if worker is not None and worker.key_id != key.pk:
        raise WorkerRefused(f"the name {registration.name} belongs to another worker key")
    offer = _offer(registration, worker, now)
    reprice = worker is None or worker.offer != offer or _cost_changed(worker, registration)
    worker = worker or Worker(name=registration.name, key=key)
    worker.offer = offer
    _renew(worker, registration, base_url, now)
    worker.save()
    if reprice:
        in_house.publish_calibrated(worker=worker, now=now)
    offers.set_state(offer_id=offer.pk, state=Offer.State.LIVE, reason="", now=now)
    return worker


def _check(registration: Registration) -> None:
    for what, value in (("name", registration.name), ("model", registration.model)):
        if not SLUG.fullmatch(value):
            raise WorkerRefused(f"{what} must match {SLUG.pattern}")
    if not 0 < registration.usd_per_hour <= USD_PER_HOUR_MAX:
        raise WorkerRefused(f"usd_per_hour must lie between 0 and {USD_PER_HOUR_MAX}")
    if registration.usd_per_hour_source not in Worker.RateSource.values:
        raise WorkerRefused(
            f"usd_per_hour_source must be one of {', '.join(Worker.RateSource.values)}"
        )
    calibrated_work(registration.calibration)


def _renew(worker: Worker, registration: Registration, base_url: str, now: datetime) -> None:
    worker.base_url = base_url
    worker.bearer_ciphertext = credentials.encrypt(registration.bearer)
    worker.techniques = list(registration.techniques)
    # Only what was checked counts as its costs.
    worker.engine = {**registration.engine, "costs": dict(registration.costs)}
    worker.calibration = dict(registration.calibration)
    worker.usd_per_hour_pico = _usd_per_hour_pico(registration)
    worker.usd_per_hour_source = registration.usd_per_hour_source
    worker.registered_at = worker.heartbeat_at = now
    worker.check_failures = 0


def _cost_changed(worker: Worker, registration: Registration) -> bool:
    """Whether what its price was made from is no longer what the worker says."""
    return worker.calibration != dict(registration.calibration) or (
        worker.usd_per_hour_pico != _usd_per_hour_pico(registration)
    )


def _usd_per_hour_pico(registration: Registration) -> int:
    return int(registration.usd_per_hour * PICO_PER_USD)


def _offer(registration: Registration, worker: Worker | None, now: datetime) -> Offer:
    """The offer it sells from now on: its own, unless its variant has become another."""
    model, _ = Model.objects.get_or_create(
        slug=registration.model,
        defaults={
            "name": title_of(registration.model),
            "creator": creator_of(registration.model),
            "context_length": registration.context_length,
        },
    )
    if worker is not None and worker.offer.model_id != model.pk:
        sold = worker.offer.model.slug
        raise WorkerRefused(f"{registration.name} sells {sold}; choose another name")
    variant = variant_of(registration.techniques)
    if worker is not None and variant_of(tuple(worker.techniques)) == variant:
        offer = worker.offer
    else:
        offer = _free_offer(model, variant) or _new_offer(registration, model, now)
    offer.context_length = registration.context_length
    offer.max_output_tokens = registration.max_output_tokens
    offer.techniques = list(registration.techniques)
    offer.upstream_model = registration.model
    known = [feature for feature in FEATURES if feature in registration.features]
    offer.capabilities = [*CAPABILITIES, *known]
    offer.quantization = str(registration.engine.get("dtype", ""))[:16]
    offer.save()
    return offer


def _free_offer(model: Model, variant: str) -> Offer | None:
    """One of this variant that a worker has left: in int8 after fp32 it sells something else."""
    return Offer.objects.filter(
        provider__slug=IN_HOUSE, model=model, variant=variant, worker=None
    ).first()


def _new_offer(registration: Registration, model: Model, now: datetime) -> Offer:
    provider, _ = Provider.objects.get_or_create(
        slug=IN_HOUSE,
        defaults={
            "name": "In-house",
            "kind": Provider.Kind.IN_HOUSE,
            "wire": Provider.Wire.OPENAI,
        },
    )
    variant = variant_of(registration.techniques)
    if Offer.objects.filter(provider=provider, model=model, variant=variant).exists():
        variant = f"{variant}-{registration.name}"[:80]
    return Offer(
        provider=provider,
        model=model,
        variant=variant,
        sku=f"{IN_HOUSE}/{model.slug}/{variant}",
        state_changed_at=now,
    )


def variant_of(techniques: tuple[str, ...]) -> str:
    """`ngram` for one whose first drafts are "ngram-speculation", `plain` for one without any; then
    `int8` or `int4`, if so."""
    speculation = [name.removesuffix(SPECULATION) for name in techniques if SPECULATION in name]
    precision = [name for name in techniques if name in ("int8", "int4")]
    return "-".join([*(speculation[:1] or ["plain"]), *precision])


@transaction.atomic
def heartbeat(
    *,
    key: WorkerKey,
    worker_id: int,
    load: Mapping[str, object],
    totals: Mapping[str, float],
    now: datetime,
) -> Worker:
    """Note that a worker lives: a demoted offer is live again, a removed one waits for a check."""
    worker = (
        Worker.objects.select_for_update(of=("self",))
        .select_related("offer")
        .filter(pk=worker_id, key=key)
        .first()
    )
    if worker is None:
        raise WorkerUnknown(f"no worker {worker_id} under this key: register again")
    if len(totals) > TOTALS_MAX:
        raise WorkerRefused(f"more than {TOTALS_MAX} totals")
    worker.load, worker.totals, worker.heartbeat_at = dict(load), dict(totals), now
    worker.save(update_fields=["load", "totals", "heartbeat_at"])
    if worker.offer.state == Offer.State.DEMOTED:
        offers.set_state(offer_id=worker.offer_id, state=Offer.State.LIVE, reason="", now=now)
    return worker
