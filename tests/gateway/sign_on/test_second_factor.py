"""A second factor is given in every session, demanded of operators and by tenants, and not walked
around: by an address, by the management API, by single sign-on, by a session from before.
"""

import re
import time
from typing import Any

import pytest
import redis
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, hotp_value
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.core.cache.backends.redis import RedisCache
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from billing.models import AuditEntry
from gateway.exposure import operators_need_second_factor
from gateway.sign_on import second_factor_wall
from gateway.tenants import keys, sign_in_rules
from tests.people import Person

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_client"),
]
PASSWORD = "correct horse"
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
GIVE, SET_UP = "/account/second-factor/give/", "/account/second-factor/app/"
PAGE = "/budgets/"
UUID = "01900000-0000-7000-8000-000000000000"


def code_now(secret: str = SECRET, *, steps: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps))


def signed_in(name: str, **more: str) -> Client:
    client = Client(**more)  # type: ignore[arg-type]
    answer = client.post("/login/", {"username": name, "password": PASSWORD})
    assert answer.status_code == 302, answer.content
    return client


def enrol(person: Person) -> Authenticator:
    made: Authenticator = TOTP.activate(person.user, SECRET).instance
    return made


def set_up_app(client: Client) -> HttpResponse:
    """What a person does on the page, with the app's code."""
    page = client.get(SET_UP)
    assert page.status_code == 200, page
    secret = page.context["form"].secret
    answer: HttpResponse = client.post(SET_UP, {"code": code_now(secret)})
    return answer


@pytest.fixture
def operator(settings: Any, db: None) -> User:
    settings.OPERATORS_NEED_SECOND_FACTOR = True
    return User.objects.create_superuser("root", password=PASSWORD)


# --- setting one up ---------------------------------------------------------------------------


def test_a_person_sets_an_app_up_and_goes_on(alice: Person) -> None:
    # given
    client = signed_in("alice")

    # when
    answer = set_up_app(client)

    # then this session goes on, with recovery codes, and the secret is not in the clear
    assert answer["Location"] == "/account/second-factor/codes/"
    codes = client.get(answer["Location"]).content.decode()
    assert len(re.findall(r"\b\d{8}\b", codes)) == 10
    assert client.get(PAGE).status_code == 200
    kept = Authenticator.objects.get(type=Authenticator.Type.TOTP)
    assert kept.data["secret"].startswith("gAAAA")
    [entry] = AuditEntry.objects.filter(action="second_factor.add")
    assert (entry.actor, entry.subject) == ("alice", "authenticator app of alice")


def test_a_wrong_code_sets_nothing_up(alice: Person) -> None:
    client = signed_in("alice")
    client.get(SET_UP)

    answer = client.post(SET_UP, {"code": "000000"})

    assert answer.status_code == 200
    assert not Authenticator.objects.exists()
    assert not AuditEntry.objects.filter(action="second_factor.add").exists()


def test_an_old_session_types_the_password_before_it_changes_anything(alice: Person) -> None:
    # given a session in which no password was typed lately
    client = Client()
    client.force_login(alice.user)

    # when
    asked = client.get(SET_UP)

    # then
    assert asked["Location"].startswith("/account/confirm/?next=")
    client.post("/account/confirm/", {"password": "wrong"})
    assert client.get(SET_UP).status_code == 302
    client.post("/account/confirm/", {"password": PASSWORD})
    assert client.get(SET_UP).status_code == 200


# --- giving it --------------------------------------------------------------------------------


def test_a_password_alone_leads_to_the_second_factor_and_no_further(alice: Person) -> None:
    # given
    enrol(alice)
    client = signed_in("alice")

    # when
    answer = client.get(PAGE)

    # then
    assert answer["Location"] == f"{GIVE}?next=%2Fbudgets%2F"
    given = client.post(answer["Location"], {"code": code_now(), "next": PAGE})
    assert given["Location"] == PAGE
    assert client.get(PAGE).status_code == 200


def test_a_code_is_good_once(alice: Person) -> None:
    enrol(alice)
    code = code_now()
    first, second = signed_in("alice"), signed_in("alice")
    first.post(GIVE, {"code": code})

    answer = second.post(GIVE, {"code": code})

    assert first.get(PAGE).status_code == 200
    assert answer.status_code == 200
    assert second.get(PAGE).status_code == 302


def test_guesses_of_codes_are_limited_by_person(alice: Person, charlie: Person) -> None:
    # given
    enrol(alice)
    enrol(charlie)
    guesser, other = signed_in("alice"), signed_in("charlie")

    # when
    for guess in range(10):
        guesser.post(GIVE, {"code": f"{guess:06d}"})
    guesser.post(GIVE, {"code": code_now()})
    other.post(GIVE, {"code": code_now()})

    # then the right one comes too late, and the neighbour is not locked out
    assert guesser.get(PAGE).status_code == 302
    assert other.get(PAGE).status_code == 200


def test_a_recovery_code_stands_in_once(alice: Person) -> None:
    # given
    client = signed_in("alice")
    answer = set_up_app(client)
    code = re.findall(r"\b\d{8}\b", client.get(answer["Location"]).content.decode())[0]
    first, second = signed_in("alice"), signed_in("alice")

    # when
    for each in (first, second):
        each.post(GIVE, {"code": code})

    # then
    assert first.get(PAGE).status_code == 200
    assert second.get(PAGE).status_code == 302


def test_who_lost_everything_is_let_in_at_the_machine(alice: Person) -> None:
    enrol(alice)

    call_command("reset_second_factor", "alice")

    assert not Authenticator.objects.exists()
    assert AuditEntry.objects.filter(action="second_factor.reset").count() == 1
    assert signed_in("alice").get(PAGE).status_code == 200
    with pytest.raises(CommandError):
        call_command("reset_second_factor", "nobody")


# --- not walked around ------------------------------------------------------------------------


def every_address() -> list[tuple[str, str]]:
    """Each address of the console with its view's name, arguments filled in somehow."""
    found: list[tuple[str, str]] = []

    def walk(patterns: Any, prefix: str, space: str) -> None:
        for pattern in patterns:
            part = str(pattern.pattern).removeprefix("^").removesuffix("$").removesuffix("\\Z")
            path = prefix + part
            if isinstance(pattern, URLResolver):
                inner = f"{space}{pattern.namespace}:" if pattern.namespace else space
                walk(pattern.url_patterns, path, inner)
            elif isinstance(pattern, URLPattern) and pattern.name and "(" not in path:
                path = path.replace("<uuid:request_id>", UUID)
                filled = re.sub(r"<\w+:\w+>|<\w+>", "1", path)
                found.append((f"/{filled}", f"{space}{pattern.name}"))

    walk(get_resolver().url_patterns, "", "")
    return found


@pytest.mark.parametrize("state", ["asked for its factor", "asked to set one up"])
def test_no_address_is_reached_without_it(state: str, operator: User) -> None:
    # given an operator, whom everything would be open to
    missing = (
        second_factor_wall.Missing.PROOF
        if state == "asked for its factor"
        else second_factor_wall.Missing.ENROLMENT
    )
    if missing == second_factor_wall.Missing.PROOF:
        TOTP.activate(operator, SECRET)
    client = signed_in("root")
    addresses = [
        (path, name)
        for path, name in every_address()
        if name not in second_factor_wall.OPEN[missing]
    ]

    # when
    answers = [(path, client.get(path), client.post(path)) for path, _ in addresses]

    # then
    assert len(addresses) > 120
    door = reverse(
        second_factor_wall.STEP_UP
        if missing == second_factor_wall.Missing.PROOF
        else second_factor_wall.ENROL
    )
    for path, *both in answers:
        for answer in both:
            if path.startswith(("/api/", "/live/")):
                assert answer.status_code == 403, path
            else:
                assert answer.status_code == 302, path
                assert answer["Location"].startswith(door), path
    if missing == second_factor_wall.Missing.PROOF:
        # A session without the factor adds none of its own, and takes none away.
        assert client.get(SET_UP)["Location"].startswith(GIVE)
        assert client.post("/account/second-factor/app/remove/")["Location"].startswith(GIVE)
        assert Authenticator.objects.get().type == Authenticator.Type.TOTP


def test_the_apis_session_is_held_to_it_and_keys_are_not(alice: Person) -> None:
    # given
    enrol(alice)
    client = signed_in("alice")
    path = "/api/v1/tenants/aurora/balance/"
    key = keys.issue(
        tenant=alice.tenant,
        name="ops",
        created_by="alice",
        now=timezone.now(),
        scopes=(keys.MANAGEMENT,),
    )

    # when
    refused = client.get(path)
    by_key = Client().get(path, headers={"Authorization": f"Bearer {key.plain}"})

    # then
    assert (refused.status_code, refused.json()["code"]) == (403, "second_factor_required")
    assert refused["Content-Type"] == "application/problem+json"
    assert by_key.status_code == 200
    client.post(GIVE, {"code": code_now()})
    assert client.get(path).status_code == 200


def test_a_session_from_before_it_was_set_up_is_asked_for_it(alice: Person) -> None:
    # given a session that is remembered elsewhere
    elsewhere, here = signed_in("alice"), signed_in("alice")
    assert elsewhere.get(PAGE).status_code == 200

    # when
    set_up_app(here)

    # then
    assert elsewhere.get(PAGE)["Location"].startswith(GIVE)
    assert here.get(PAGE).status_code == 200


def test_single_sign_on_is_asked_for_it(alice: Person, rf: Any) -> None:
    # given a session as `sign_on.back` begins it
    enrol(alice)
    client = Client()
    client.get("/login/")
    request = rf.get("/")
    request.session = client.session
    login(request, alice.user, backend="django.contrib.auth.backends.ModelBackend")
    request.session.save()
    client.cookies["sessionid"] = request.session.session_key

    # then
    assert client.get(PAGE)["Location"].startswith(GIVE)


def test_who_has_no_password_sets_one_up(alice: Person) -> None:
    # given somebody whom the company's identity provider vouches for
    sign_in_rules.set_second_factor(
        tenant=alice.tenant, is_demanded=True, actor="alice", now=timezone.now()
    )
    alice.user.set_unusable_password()
    alice.user.save()
    client = Client()
    client.force_login(alice.user)
    assert client.get(PAGE)["Location"].startswith("/account/second-factor/?")

    # then
    assert set_up_app(client).status_code == 302
    assert client.get(PAGE).status_code == 200


def test_signing_out_forgets_what_was_proved(alice: Person) -> None:
    enrol(alice)
    client = signed_in("alice")
    client.post(GIVE, {"code": code_now()})
    client.post("/logout/")
    client.post("/login/", {"username": "alice", "password": PASSWORD})

    assert client.get(PAGE)["Location"].startswith(GIVE)


def test_without_redis_no_code_is_taken(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    enrol(alice)
    client = signed_in("alice")

    def away(*_: object, **__: object) -> bool:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(RedisCache, "add", away)
    answer = client.post(GIVE, {"code": code_now()})
    monkeypatch.undo()

    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert client.get(PAGE).status_code == 302


# --- who has to -------------------------------------------------------------------------------


def test_an_operators_first_sign_in_leads_through_setting_it_up(operator: User) -> None:
    # given
    client = signed_in("root")

    # when
    asked = client.get("/admin/")
    set_up_app(client)

    # then
    assert asked["Location"] == "/account/second-factor/?next=%2Fadmin%2F"
    assert client.get(asked["Location"]).status_code == 200
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    ("chosen", "listens_on", "public_url", "needed"),
    [
        ("unless-local", "127.0.0.1", "http://127.0.0.1:8001", False),
        ("unless-local", "::1", "http://[::1]:8001", False),
        ("unless-local", "localhost", "http://localhost:8001", False),
        ("unless-local", "0.0.0.0", "http://127.0.0.1:8001", True),
        ("unless-local", "127.0.0.1", "https://tokens.example.org", True),
        ("unless-local", "127.0.0.1", "https://localhost.example.org", True),
        ("always", "127.0.0.1", "http://127.0.0.1:8001", True),
        ("never", "0.0.0.0", "https://tokens.example.org", False),
    ],
)
def test_operators_need_one_as_soon_as_the_console_can_be_reached(
    chosen: str, listens_on: str, public_url: str, needed: bool
) -> None:
    assert (
        operators_need_second_factor(chosen, listens_on=listens_on, public_url=public_url) is needed
    )


def test_a_tenant_demands_it_of_its_members_and_of_nobody_else(
    alice: Person, bob: Person, charlie: Person
) -> None:
    # given
    owner = signed_in("alice")
    others = {name: signed_in(name) for name in ("bob", "charlie")}

    # when
    owner.post("/members/second-factor/", {"second_factor": "on"})

    # then: of Bob, who is a member, and of Alice herself
    assert others["bob"].get(PAGE)["Location"].startswith("/account/second-factor/?")
    assert others["charlie"].get(PAGE).status_code == 200
    assert owner.get(PAGE).status_code == 302
    set_up_app(owner)
    page = owner.get("/members/")
    assert page.context["second_factor_demanded"]
    assert page.context["with_second_factor"] == {alice.user.pk}
    owner.post("/members/second-factor/", {})
    assert others["bob"].get(PAGE).status_code == 200
    assert AuditEntry.objects.filter(action="tenant.second_factor").count() == 2


def test_the_demand_is_set_and_read_by_the_api(alice: Person, bob: Person) -> None:
    # given
    path = "/api/v1/tenants/aurora/settings/"
    owner, member = signed_in("alice"), signed_in("bob")
    set_up_app(owner)

    # when
    refused = member.patch(path, {"second_factor_demanded": True}, content_type="application/json")
    said = owner.patch(path, {"second_factor_demanded": True}, content_type="application/json")

    # then
    assert refused.status_code == 403
    assert said.json()["second_factor_demanded"] is True
    assert member.get(PAGE).status_code == 302


# --- passwords --------------------------------------------------------------------------------


def change(client: Client, new: str, old: str = PASSWORD) -> HttpResponse:
    body = {"old_password": old, "new_password1": new, "new_password2": new}
    answer: HttpResponse = client.post("/account/password/", body)
    return answer


def test_a_password_is_changed_and_other_sessions_end(alice: Person) -> None:
    client, elsewhere = signed_in("alice"), signed_in("alice")

    answer = change(client, "battery staple 7")

    assert answer["Location"] == "/account/"
    assert client.get(PAGE).status_code == 200
    assert elsewhere.get(PAGE)["Location"].startswith("/login/")
    alice.user.refresh_from_db()
    assert alice.user.check_password("battery staple 7")


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("short7", "too short"),
        ("password123", "too common"),
        ("73918264028163", "entirely numeric"),
        ("alice@example.org", "too similar"),
    ],
)
def test_every_validator_judges_a_new_password(new: str, why: str, alice: Person) -> None:
    answer = change(signed_in("alice"), new)

    assert answer.status_code == 422
    assert why in answer.content.decode()
    alice.user.refresh_from_db()
    assert alice.user.check_password(PASSWORD)


def test_the_old_password_is_asked_for_and_not_guessed(alice: Person) -> None:
    client = signed_in("alice")

    said = [change(client, "battery staple 7", old=f"guess {n}").status_code for n in range(11)]

    assert said == [422] * 10 + [429]
    assert change(client, "battery staple 7").status_code == 429
    alice.user.refresh_from_db()
    assert alice.user.check_password(PASSWORD)
