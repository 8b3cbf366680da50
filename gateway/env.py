"""The only reader of the process environment.

Every variable of the gateway is declared here once, with its type, its limits and one line that
says what it is for; a value that does not fit stops start-up with a message that names the
variable. Secrets come from NAME or from the file that NAME_FILE points to. Workers have
`EngineConfig` instead.
"""

import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"0", "false", "no", "off"})


class EnvironmentRefused(ValueError):
    """A variable is missing or its value does not fit; the text names it and says what would."""


@dataclass(frozen=True, slots=True)
class Variable:
    """What the documentation, `.env.example` and the compose test know about one variable."""

    name: str
    purpose: str
    default: str | None  # None: there is no default and start-up refuses without a value
    is_secret: bool = False


DECLARED: Final[dict[str, Variable]] = {}


def text(name: str, *, purpose: str, default: str | None = None) -> str:
    return _read(name, purpose=purpose, default=default, parse=str)


def integer(name: str, *, purpose: str, default: int, minimum: int, maximum: int) -> int:
    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            raise EnvironmentRefused(f"{name}={raw!r} is not a whole number") from None
        if not minimum <= value <= maximum:
            raise EnvironmentRefused(f"{name}={value} is outside {minimum}..{maximum}")
        return value

    return _read(name, purpose=purpose, default=str(default), parse=parse)


def boolean(name: str, *, purpose: str, default: bool) -> bool:
    def parse(raw: str) -> bool:
        word = raw.lower()
        if word in TRUE_WORDS:
            return True
        if word in FALSE_WORDS:
            return False
        raise EnvironmentRefused(f"{name}={raw!r} is neither yes nor no (use 1 or 0)")

    return _read(name, purpose=purpose, default="1" if default else "0", parse=parse)


def choice(name: str, *, purpose: str, default: str, options: tuple[str, ...]) -> str:
    def parse(raw: str) -> str:
        if raw not in options:
            raise EnvironmentRefused(f"{name}={raw!r} is not one of {', '.join(options)}")
        return raw

    return _read(name, purpose=purpose, default=default, parse=parse)


def words(name: str, *, purpose: str, default: str = "") -> list[str]:
    """Reads a list separated by commas; blanks around and between are dropped."""

    def parse(raw: str) -> list[str]:
        return [word.strip() for word in raw.split(",") if word.strip()]

    return _read(name, purpose=purpose, default=default, parse=parse)


def url(name: str, *, purpose: str, schemes: tuple[str, ...], default: str | None = None) -> str:
    """Reads an address that may carry a password, so NAME_FILE works and no error repeats it."""
    DECLARED[name] = Variable(name, purpose, default, is_secret=True)
    raw = _secret_value(name, os.environ) or default
    if raw is None:
        raise EnvironmentRefused(f"{name} is not set: {purpose}")
    if not raw.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        expected = " or ".join(f"{scheme}://" for scheme in schemes)
        raise EnvironmentRefused(f"{name} does not start with {expected}")
    return raw


def secret(name: str, *, purpose: str, minimum_length: int = 32) -> str:
    """Reads a secret; there is no default, so that none can reach production unnoticed."""
    DECLARED[name] = Variable(name, purpose, None, is_secret=True)
    raw = _secret_value(name, os.environ)
    if raw is None:
        raise EnvironmentRefused(f"{name} (or {name}_FILE) is not set: {purpose}")
    if len(raw) < minimum_length:
        raise EnvironmentRefused(f"{name} is shorter than {minimum_length} characters")
    return raw


def optional_secret(name: str, *, purpose: str) -> str:
    """Reads a secret that need not be there; empty then."""
    DECLARED[name] = Variable(name, purpose, "", is_secret=True)
    return _secret_value(name, os.environ) or ""


def apply_defaults(values: Mapping[str, str]) -> None:
    """Sets the variables that are not set yet; what the operator chose always wins."""
    for name, value in values.items():
        given = os.environ.get(name) or os.environ.get(f"{name}_FILE")
        if not given:
            os.environ[name] = value


def overrule(values: Mapping[str, str]) -> None:
    """Sets variables whatever was there: a test session must not reach anybody's real database."""
    for name, value in values.items():
        os.environ.pop(f"{name}_FILE", None)
        os.environ[name] = value


def inherited() -> MutableMapping[str, str]:
    """A copy of this process' environment, to be handed to a child process."""
    return dict(os.environ)


def lookup(name: str) -> str | None:
    """An optional variable before any settings exist; empty counts as unset."""
    return os.environ.get(name) or None


def as_example_file() -> str:
    """The text of `.env.example`: every declared variable, its purpose and its default."""
    lines = [
        "# Every variable that the gateway reads, with its default. Generated from gateway/env.py:",
        "#   .venv/bin/python -m gateway.runtime.env_example > .env.example",
        "# `make up` needs none of them. A secret NAME can also be given as a file in NAME_FILE.",
    ]
    for variable in DECLARED.values():
        lines += ["", f"# {variable.purpose}"]
        if variable.default is None:
            lines.append(f"# {variable.name}=")
        else:
            lines.append(f"# {variable.name}={variable.default}")
    return "\n".join(lines) + "\n"


def _read(name: str, *, purpose: str, default: str | None, parse: Callable[[str], T]) -> T:
    DECLARED[name] = Variable(name, purpose, default)
    raw = os.environ.get(name, "").strip() or default
    if raw is None:
        raise EnvironmentRefused(f"{name} is not set: {purpose}")
    return parse(raw)


def _secret_value(name: str, environment: Mapping[str, str]) -> str | None:
    given = environment.get(name, "").strip()
    path = environment.get(f"{name}_FILE", "").strip()
    if given and path:
        raise EnvironmentRefused(f"{name} and {name}_FILE are both set; keep one")
    if not path:
        return given or None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError as problem:
        raise EnvironmentRefused(f"{name}_FILE: {problem.strerror}: {path}") from None
