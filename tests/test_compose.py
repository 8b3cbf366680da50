"""The production files against the facts they depend on; nothing here starts a container."""

import importlib.util
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands
from django.urls import resolve
from jsonschema.validators import validator_for

from gateway import env
from gateway.celery import CLOCKWORK

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"migrate", "model"}
GATEWAY = {
    "migrate",
    "dataplane",
    "console",
    "celery-money",
    "celery-boards",
    "celery-beat",
}
WORKERS = {"model", "worker-cpu", "worker-gpu"}
# Read by the images of postgres, not by us.
FOREIGN_VARIABLES = {
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD_FILE",
    "POSTGRES_INITDB_ARGS",
}
INTERPOLATED = re.compile(r"(?<!\$)\$\{([A-Z_][A-Z0-9_]*)[^}]*\}")
EXAMPLE_LINE = re.compile(r"^#? ?([A-Z][A-Z0-9_]+)=", re.MULTILINE)


def schema() -> dict[str, Any]:
    folder = files("check_jsonschema.builtin_schemas.vendor")
    text = (folder / "compose-spec.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def words_of(service: str) -> list[str]:
    command = SERVICES[service]["command"]
    return command.split() if isinstance(command, str) else [str(word) for word in command]


def is_declared(name: str) -> bool:
    if name in env.DECLARED:
        return True
    of_file = env.DECLARED.get(name.removesuffix("_FILE"))
    return name.endswith("_FILE") and of_file is not None and of_file.is_secret


def test_compose_file_fits_the_specification() -> None:
    # given
    specification = schema()

    # when
    problems = list(validator_for(specification)(specification).iter_errors(COMPOSE))

    # then
    assert [f"{problem.json_path}: {problem.message}" for problem in problems] == []


def test_schema_refuses_a_misspelt_field() -> None:
    # given
    specification = schema()
    broken = {"services": {"redis": {"image": "redis", "helthcheck": {}}}}

    # when
    problems = list(validator_for(specification)(specification).iter_errors(broken))

    # then
    assert len(problems) == 1


def test_all_services_of_the_production_shape_are_there() -> None:
    assert set(SERVICES) == GATEWAY | WORKERS | {"postgres", "redis"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_environment_names_only_variables_that_are_read(name: str) -> None:
    # when
    given = set(SERVICES[name].get("environment", {}))

    # then
    assert {variable for variable in given if not is_declared(variable)} <= FOREIGN_VARIABLES


def test_variables_taken_from_the_caller_are_declared() -> None:
    # given
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")

    # when
    undeclared = {name for name in INTERPOLATED.findall(text) if name not in env.DECLARED}

    # then
    assert undeclared == set()


def test_example_file_lists_exactly_the_declared_variables() -> None:
    # given
    text = (ROOT / ".env.example").read_text(encoding="utf-8")

    # when
    listed = set(EXAMPLE_LINE.findall(text))

    # then
    assert listed == set(env.DECLARED)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_service_has_a_health_check_and_is_restarted(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_has_a_memory_limit_and_bounded_logs(name: str) -> None:
    assert SERVICES[name]["mem_limit"]
    assert SERVICES[name]["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", sorted(GATEWAY))
def test_gateway_waits_for_healthy_services(name: str) -> None:
    # when
    waits = SERVICES[name]["depends_on"]

    # then
    assert waits["postgres"]["condition"] == "service_healthy"
    assert waits["redis"]["condition"] == "service_healthy"
    if name != "migrate":
        assert waits["migrate"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_secrets_and_volumes_are_declared(name: str) -> None:
    # when
    volumes = {mount.split(":")[0] for mount in SERVICES[name].get("volumes", [])}
    secrets = set(SERVICES[name].get("secrets", []))
    read = set(re.findall(r"/run/secrets/(\w+)", json.dumps(SERVICES[name])))

    # then
    assert volumes <= set(COMPOSE["volumes"])
    assert secrets <= set(COMPOSE["secrets"])
    assert read == secrets


def test_images_are_pinned_to_a_version() -> None:
    # when
    images = {service["image"] for service in SERVICES.values()}

    # then
    assert all(re.search(r":\d+\.\d+", image) for image in images), images


def test_every_queue_of_the_clockwork_has_a_worker() -> None:
    # given
    wanted = {queue for _, queue in CLOCKWORK.values()}

    # when
    served: set[str] = set()
    for name in ("celery-money", "celery-boards"):
        (option,) = (word for word in words_of(name) if word.startswith("--queues="))
        served |= set(option.removeprefix("--queues=").split(","))

    # then
    assert wanted <= served
    assert "--queues=money" in words_of("celery-money")


def test_redis_appends_and_never_evicts() -> None:
    # when
    command = " ".join(words_of("redis"))

    # then
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_gpu_worker_is_behind_a_profile_with_a_device() -> None:
    # given
    worker = SERVICES["worker-gpu"]

    # when
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]

    # then
    assert worker["profiles"] == ["gpu"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert all("profiles" not in SERVICES[name] for name in set(SERVICES) - {"worker-gpu"})


def test_databases_and_workers_are_reached_from_inside_only() -> None:
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    for name in ("postgres", "redis", "worker-cpu", "worker-gpu"):
        assert SERVICES[name]["networks"] == ["backend"]
        assert "ports" not in SERVICES[name]
    for name in ("dataplane", "console"):
        (published,) = SERVICES[name]["ports"]
        assert ":-127.0.0.1}" in published


def test_servers_load_applications_that_exist() -> None:
    assert words_of("dataplane")[-1] == "gateway.dataplane.app:app"
    assert words_of("console")[-1] == "gateway.asgi:application"
    for module in ("gateway.dataplane.app", "gateway.asgi", "workers.convert", "workers.server"):
        assert importlib.util.find_spec(module) is not None


def test_health_checks_ask_for_pages_that_exist() -> None:
    # when
    asked = {
        name: re.findall(r":(\d+)(/\w+)", SERVICES[name]["healthcheck"]["test"][-1])
        for name in ("console", "dataplane")
    }

    # then
    assert asked == {"console": [("8001", "/health")], "dataplane": [("8000", "/ready")]}
    assert resolve("/health")
    assert '"/ready"' in (ROOT / "gateway/dataplane/info_endpoints.py").read_text(encoding="utf-8")


def test_one_shot_runs_management_commands_that_exist() -> None:
    # when
    named = set(re.findall(r"manage\.py (\w+)", " ".join(words_of("migrate"))))

    # then
    assert named == {"migrate", "seed_catalogue", "rebuild_registers"}
    assert named <= set(get_commands())


@pytest.mark.parametrize("name", ["model", "worker-cpu", "worker-gpu"])
def test_workers_are_given_only_flags_that_they_take(name: str) -> None:
    # given
    module = "convert.py" if name == "model" else "server/__main__.py"
    source = (ROOT / "workers" / module).read_text(encoding="utf-8")

    # when
    flags = {word.split("=")[0] for word in words_of(name) if word.startswith("--")}

    # then
    assert flags
    assert {flag for flag in flags if f'"{flag}"' not in source} == set()


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.worker"])
def test_images_copy_only_what_exists_and_is_let_through(dockerfile: str) -> None:
    # given
    text = (ROOT / dockerfile).read_text(encoding="utf-8")
    let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))

    # when
    lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    copied = [source for line in lines for source in line.split()[:-1]]

    # then
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert [path for path in copied if path.split("/")[0] not in let_through] == []


def test_gateway_image_has_no_torch() -> None:
    # given
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    # then
    assert not re.search(r"^(torch|transformers)==", lock, re.MULTILINE)
    assert "requirements-worker" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^COPY requirements\.lock ", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
