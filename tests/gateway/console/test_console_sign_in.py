"""Signing in: limited, one door, and no way out through it to another site."""

import redis
from django.contrib.auth.models import User
from django.test import Client

from gateway.console.sign_in_limit import TRIES_PER_PAIR
from tests.people import Person

PASSWORD = "correct horse"


def test_signing_in_leads_to_the_overview(
    alice: Person, client: Client, redis_client: redis.Redis
) -> None:
    answer = client.post("/login/", {"username": "alice", "password": PASSWORD})

    assert answer["Location"] == "/overview/"


def test_too_many_tries_are_refused_even_with_the_right_password(
    alice: Person, client: Client, redis_client: redis.Redis
) -> None:
    for _ in range(TRIES_PER_PAIR):
        client.post("/login/", {"username": "alice", "password": "wrong"})

    answer = client.post("/login/", {"username": "alice", "password": PASSWORD})

    assert answer.status_code == 429
    assert answer["Retry-After"] == "300"
    assert "_auth_user_id" not in client.session


def test_signing_in_leads_to_no_other_site(
    alice: Person, client: Client, redis_client: redis.Redis
) -> None:
    asked = {"username": "alice", "password": PASSWORD, "next": "https://evil.example/"}

    assert client.post("/login/", asked)["Location"] == "/overview/"


def test_the_admins_login_is_the_same_door(client: Client, db: None) -> None:
    assert client.get("/admin/login/?next=/admin/")["Location"] == "/login/?next=/admin/"


def test_who_may_not_into_the_admin_is_told_so_and_not_sent_in_circles(
    alice: Person, client: Client
) -> None:
    # given
    client.force_login(alice.user)

    # when
    answer = client.get("/admin/", follow=True)

    # then
    assert answer.status_code == 403
    assert "not open to this account" in answer.content.decode()


def test_who_may_not_into_the_admin_can_sign_in_as_another(
    alice: Person, client: Client, redis_client: redis.Redis
) -> None:
    # given
    User.objects.create_superuser("root", password=PASSWORD)
    client.force_login(alice.user)

    # when
    asked = {"username": "root", "password": PASSWORD, "next": "/admin/"}
    answer = client.post("/login/", asked, follow=True)

    # then
    assert answer.redirect_chain == [("/admin/", 302)]
    assert answer.status_code == 200


def test_the_theme_is_kept_in_a_cookie_and_leads_back(client: Client, db: None) -> None:
    answer = client.post("/theme/", {"theme": "dark", "next": "/models/small/"})

    assert answer["Location"] == "/models/small/"
    assert 'data-theme="dark"' in client.get("/").content.decode()


def test_a_theme_from_elsewhere_leads_home(client: Client, db: None) -> None:
    answer = client.post("/theme/", {"theme": "pink", "next": "//evil.example/"})

    assert answer["Location"] == "/"
    assert "theme" not in answer.cookies


def test_pages_allow_no_inline_script(client: Client, db: None) -> None:
    policy = client.get("/")["Content-Security-Policy"]

    assert "script-src 'self';" in f"{policy};"
    assert "unsafe" not in policy
