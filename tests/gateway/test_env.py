"""Variables are refused when they do not fit, and `.env.example` lists them all."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway import env
from gateway.runtime.data_folders import CLONE

NAME = "TOKENHOUSE_TEST_ONLY"


@pytest.fixture(autouse=True)
def _undeclare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "DECLARED", {})


def read_integer() -> int:
    return env.integer(NAME, purpose="a test", default=5, minimum=1, maximum=10)


@pytest.mark.parametrize("raw", ["eleven", "1.5", "0", "11", "1e1", "0x5"])
def test_integers_outside_their_limits_are_refused(
    monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    monkeypatch.setenv(NAME, raw)
    with pytest.raises(env.EnvironmentRefused, match=NAME):
        read_integer()


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "  ")
    assert read_integer() == 5


@pytest.mark.parametrize(("raw", "expected"), [("YES", True), ("0", False), ("off", False)])
def test_booleans_are_words(monkeypatch: pytest.MonkeyPatch, raw: str, expected: bool) -> None:
    monkeypatch.setenv(NAME, raw)
    assert env.boolean(NAME, purpose="a test", default=not expected) is expected


def test_a_boolean_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "maybe")
    with pytest.raises(env.EnvironmentRefused, match="neither yes nor no"):
        env.boolean(NAME, purpose="a test", default=False)


def test_a_choice_names_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "blue")
    with pytest.raises(env.EnvironmentRefused, match="red, green"):
        env.choice(NAME, purpose="a test", default="red", options=("red", "green"))


def test_a_missing_secret_stops_the_start() -> None:
    with pytest.raises(env.EnvironmentRefused, match=f"{NAME}_FILE"):
        env.secret(NAME, purpose="a test")


def test_a_short_secret_is_refused_without_being_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "hunter2")
    with pytest.raises(env.EnvironmentRefused) as refused:
        env.secret(NAME, purpose="a test")
    assert "hunter2" not in str(refused.value)


def test_a_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("s" * 40 + "\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    assert env.secret(NAME, purpose="a test") == "s" * 40


def test_a_secret_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "s" * 40)
    monkeypatch.setenv(f"{NAME}_FILE", "/nonexistent")
    with pytest.raises(env.EnvironmentRefused, match="keep one"):
        env.secret(NAME, purpose="a test")


def test_an_address_of_another_kind_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NAME, "mysql://me:hunter2@host/name")
    with pytest.raises(env.EnvironmentRefused, match="postgresql://") as refused:
        env.url(NAME, purpose="a test", schemes=("postgresql",))
    assert "hunter2" not in str(refused.value)


def test_what_the_operator_chose_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "7")
    env.apply_defaults({NAME: "8"})
    assert read_integer() == 7


def test_a_secret_file_keeps_a_default_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{NAME}_FILE", "/somewhere")
    env.apply_defaults({NAME: "8"})
    assert env.lookup(NAME) is None


def test_the_example_file_lists_every_variable() -> None:
    environment = {
        "PATH": env.inherited()["PATH"],
        "DATABASE_URL": "postgresql://nobody@/none",
        "REDIS_URL": "redis://nowhere",
        "TOKENHOUSE_SECRET_KEY": "s" * 40,
        "TOKENHOUSE_CREDENTIAL_KEYS": "s" * 44,
    }
    printed = subprocess.run(
        [sys.executable, "-m", "gateway.runtime.env_example"],
        cwd=CLONE,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (CLONE / ".env.example").read_text(encoding="utf-8") == printed.stdout


def test_settings_refuse_to_load_without_their_secrets() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import gateway.settings"],
        cwd=CLONE,
        env={"PATH": env.inherited()["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "TOKENHOUSE_SECRET_KEY (or TOKENHOUSE_SECRET_KEY_FILE) is not set" in done.stderr
