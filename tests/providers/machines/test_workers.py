"""Workers join with a key bound to their network, and are routable at once."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing.prices import versions as prices
from providers.machines import addresses, workers
from providers.machines.addresses import AddressRefused
from providers.machines.workers import WorkerRefused, WorkerUnknown
from providers.market import offers
from providers.models import Model, Offer, Worker, WorkerKey
from tests import listed
from tests.providers.made_offers import NOW, registration, worker_key

pytestmark = pytest.mark.django_db


def test_a_registered_worker_is_an_offer_with_a_price() -> None:
    # given
    key, _ = worker_key()

    # when
    worker = workers.register(key=key, registration=registration(), now=NOW)

    # then
    assert worker.offer.sku == "in-house/smollm2-135m-instruct/plain"
    (price,) = listed.price_at(worker.offer.sku, NOW)
    assert (price.input_pico, price.output_pico) == (250_000, 2_000_000)
    (view,) = offers.views(NOW)
    assert view.not_routable == ""
    assert view.base_url == "http://127.0.0.1:8101"
    assert view.headers == {"authorization": "Bearer worker-bearer-secret"}
    assert view.salted


def test_the_bearer_is_not_stored_in_the_clear() -> None:
    # given
    key, _ = worker_key()

    # when
    worker = workers.register(key=key, registration=registration(), now=NOW)

    # then
    assert b"worker-bearer-secret" not in bytes(worker.bearer_ciphertext)


def test_speculation_names_the_variant_and_a_second_machine_gets_its_own() -> None:
    # given
    key, _ = worker_key()
    techniques = ("paged-kv", "ngram-speculation")

    # when
    skus = [
        workers.register(
            key=key, registration=registration(name=name, techniques=techniques), now=NOW
        ).offer.sku
        for name in ("one", "two")
    ]

    # then
    assert skus == [
        "in-house/smollm2-135m-instruct/ngram",
        "in-house/smollm2-135m-instruct/ngram-two",
    ]


@pytest.mark.parametrize(
    ("techniques", "variant"),
    [
        ((), "plain"),
        (("paged-kv", "int8"), "plain-int8"),
        (("int8", "ngram-speculation"), "ngram-int8"),
    ],
)
def test_an_int8_offer_says_so(techniques: tuple[str, ...], variant: str) -> None:
    # given
    key, _ = worker_key()
    engine = {"dtype": "int8"}

    # when
    worker = workers.register(
        key=key, registration=registration(techniques=techniques, engine=engine), now=NOW
    )

    # then
    assert (worker.offer.variant, worker.offer.quantization) == (variant, "int8")


def test_a_worker_that_computes_otherwise_sells_another_offer_and_finds_its_old_one_again() -> None:
    # given a worker in fp32
    key, _ = worker_key()
    workers.register(key=key, registration=registration(), now=NOW)
    quick = registration(techniques=("paged-kv", "int8"), engine={"dtype": "int8"})

    # when it starts in int8, and one day in fp32 again
    fast = workers.register(key=key, registration=quick, now=NOW + timedelta(hours=1))
    refusals = {view.sku: view.not_routable for view in offers.views(NOW + timedelta(hours=1))}
    back = workers.register(key=key, registration=registration(), now=NOW + timedelta(hours=2))

    # then
    plain, int8 = (f"in-house/smollm2-135m-instruct/{name}" for name in ("plain", "plain-int8"))
    assert (fast.offer.sku, back.offer.sku) == (int8, plain)
    assert refusals == {plain: "no worker has registered for this offer", int8: ""}
    assert listed.price_at(int8, NOW + timedelta(hours=1))
    assert Worker.objects.count() == 1


def test_registering_again_renews_and_prices_only_what_changed() -> None:
    # given
    key, _ = worker_key()
    first = workers.register(key=key, registration=registration(), now=NOW)

    # when
    same = workers.register(key=key, registration=registration(), now=NOW + timedelta(hours=1))
    dearer = registration(usd_per_hour=Decimal("0.72"))
    workers.register(key=key, registration=dearer, now=NOW + timedelta(hours=2))

    # then
    assert same.pk == first.pk
    assert Worker.objects.count() == 1
    sku = first.offer.sku
    assert [v.output_pico for v in prices.history(sku)] == [2_000_000, 2_200_000]


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3:8101",
        "http://169.254.169.254/latest",
        "http://127.0.0.1:8101@10.0.0.1",
        "http://user:secret@127.0.0.1:8101",
        "http://127.0.0.1:99999",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "http://0.0.0.0:8101",
        "http://[fd00:ec2::254]/",
        "//127.0.0.1",
    ],
)
def test_an_address_outside_the_keys_network_is_refused(url: str) -> None:
    # given
    key, _ = worker_key()

    # when
    with pytest.raises(AddressRefused):
        workers.register(key=key, registration=registration(base_url=url), now=NOW)

    # then
    assert not Worker.objects.exists()
    assert not Offer.objects.exists()


def test_a_name_over_http_is_pinned_to_the_address_that_was_checked() -> None:
    # when
    pinned = addresses.checked_base_url("http://localhost:8101/v1/", network=None)

    # then
    assert pinned in ("http://127.0.0.1:8101/v1", "http://[::1]:8101/v1")


def test_metadata_addresses_are_refused_even_by_a_key_for_everywhere() -> None:
    # given
    key, _ = worker_key("0.0.0.0/0")

    # then
    with pytest.raises(AddressRefused, match="link-local"):
        workers.register(
            key=key, registration=registration(base_url="http://169.254.169.254"), now=NOW
        )


@pytest.mark.parametrize(
    "host", ["64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:5601:5601"]
)
def test_no_worker_lives_behind_a_tunnel(host: str) -> None:
    with pytest.raises(AddressRefused, match="tunnel"):
        addresses.checked_base_url(f"http://[{host}]:8101", network="::/0")


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../etc"},
        {"usd_per_hour": Decimal(0)},
        {"usd_per_hour": Decimal(10**9)},
        {"usd_per_hour_source": "guessed"},
    ],
)
def test_nonsense_is_refused(changed: dict[str, object]) -> None:
    # given
    key, _ = worker_key()

    # then
    with pytest.raises(WorkerRefused):
        workers.register(key=key, registration=registration(**changed), now=NOW)


def test_one_key_cannot_take_over_the_worker_of_another() -> None:
    # given
    workers.register(key=worker_key()[0], registration=registration(), now=NOW)

    # then
    with pytest.raises(WorkerRefused, match="another worker key"):
        workers.register(key=worker_key()[0], registration=registration(), now=NOW)


def test_a_heartbeat_lifts_a_demotion_and_not_a_removal() -> None:
    # given
    key, _ = worker_key()
    worker = workers.register(key=key, registration=registration(), now=NOW)
    states = []

    # when
    for state in (Offer.State.DEMOTED, Offer.State.REMOVED):
        offers.set_state(offer_id=worker.offer_id, state=state, reason="test", now=NOW)
        workers.heartbeat(key=key, worker_id=worker.pk, load={}, totals={}, now=NOW)
        states.append(Offer.objects.get().state)

    # then
    assert states == [Offer.State.LIVE, Offer.State.REMOVED]


def test_a_heartbeat_of_an_unknown_worker_asks_it_to_register() -> None:
    # given
    key, _ = worker_key()
    worker = workers.register(key=worker_key()[0], registration=registration(), now=NOW)

    # then
    for worker_id in (worker.pk, 999_999):
        with pytest.raises(WorkerUnknown):
            workers.heartbeat(key=key, worker_id=worker_id, load={}, totals={}, now=NOW)


def test_only_a_living_key_authenticates() -> None:
    # given
    key, plain = worker_key()

    # then
    assert workers.authenticate(plain) == key
    assert workers.authenticate(plain[:-1]) is None
    assert workers.authenticate("") is None
    workers.revoke_key(key=key, actor="op", now=NOW)
    assert workers.authenticate(plain) is None


def test_an_offer_can_what_its_worker_says_and_no_more() -> None:
    # given
    key, _ = worker_key()
    stated = registration(features=("tools", "json_schema", "vision", "chat"))

    # when
    worker = workers.register(key=key, registration=stated, now=NOW)

    # then: what the gateway does not know of such a worker is left out
    assert worker.offer.capabilities == ["chat", "text_only", "json_schema", "tools"]


def test_a_key_for_some_models_registers_no_other() -> None:
    # given
    key, _ = workers.issue_key(
        label="lab",
        allowed_network="127.0.0.0/8",
        models_allowed=["b-model", "a-model"],
        created_by="op",
        now=NOW,
    )
    # when / then
    with pytest.raises(workers.WorkerForbidden, match="sells a-model, b-model, not smollm2"):
        workers.register(key=key, registration=registration(), now=NOW)
    assert not Worker.objects.exists()
    assert not Model.objects.exists()
    worker = workers.register(key=key, registration=registration(model="a-model"), now=NOW)
    assert worker.offer.model.slug == "a-model"


@pytest.mark.parametrize("models", [["Not A Slug"], [""], ["m"] * 101])
def test_a_key_for_what_is_no_model_is_not_made(models: list[str]) -> None:
    with pytest.raises(ValueError, match="models' names"):
        workers.issue_key(
            label="lab",
            allowed_network="127.0.0.0/8",
            models_allowed=models,
            created_by="op",
            now=NOW,
        )
    assert not WorkerKey.objects.exists()
