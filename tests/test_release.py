"""One release, named alike everywhere, with what a release must bring."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client

from gateway.runtime import supply_chain
from gateway.version import HEADER, VERSION

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]+\])?==([^ ;\\]+)", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_project_engine_and_images_are_of_one_version() -> None:
    # given
    services: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))["services"]
    images = {one["image"] for one in services.values() if one["image"].startswith("tokenhouse-")}

    # then
    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == VERSION
    assert f'ENGINE_VERSION = "{VERSION}"' in read("workers/config.py")
    assert images == {f"tokenhouse-gateway:{VERSION}", f"tokenhouse-worker:{VERSION}"}


def test_changelog_has_dated_releases_of_three_kinds_of_change() -> None:
    # when
    text = read("CHANGELOG.md")
    releases = re.findall(r"^## (\S+) — (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))

    # then
    assert [name for name, _ in releases][:2] == [VERSION, "0.1.0"]
    assert kinds == {"Added", "Changed", "Fixed"}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/health", "/login/", "/nowhere", "/api/v1/boards/"])
def test_every_answer_of_the_console_names_the_release(client: Client, path: str) -> None:
    assert client.get(path).headers[HEADER] == VERSION


@pytest.mark.django_db
def test_pages_and_health_tell_the_release(client: Client) -> None:
    assert f"Tokenhouse {VERSION}" in client.get("/").content.decode()
    assert client.get("/health").json() == {"status": "ok", "version": VERSION}


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "NOTICE",
        "THIRD_PARTY_NOTICES.md",
        "SECURITY.md",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        ".editorconfig",
        ".github/pull_request_template.md",
    ],
)
def test_a_release_brings_its_papers(name: str) -> None:
    assert read(name).strip()


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")))
def test_issue_forms_are_readable(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_notices_name_every_folder_that_others_made() -> None:
    # given
    notices = read("THIRD_PARTY_NOTICES.md")
    vendored = [one.name for one in (ROOT / "static/vendor").iterdir()]
    fonts = [one.name for one in (ROOT / "static/fonts").glob("*.woff2")]

    # then
    assert [name for name in [*vendored, *fonts] if name not in notices] == []


def test_vendored_versions_are_the_ones_that_the_notices_name() -> None:
    # given
    notices = read("THIRD_PARTY_NOTICES.md")

    # then
    echarts = re.search(r"ECharts (\S+)", notices)
    htmx = re.search(r"htmx (\S+)", notices)
    assert echarts is not None
    assert htmx is not None
    assert f'version="{echarts[1]}"' in read("static/vendor/echarts/echarts.min.js")
    assert f'version:"{htmx[1]}"' in read("static/vendor/htmx/htmx.min.js")


def test_bill_of_materials_lists_every_pinned_package(tmp_path: Path) -> None:
    # when
    written = supply_chain.write_sboms(tmp_path)

    # then
    for path in written:
        lock = read(f"{path.name.removesuffix('.cdx.json')}.lock")
        pinned = {f"{name}=={version}" for name, version in PINNED.findall(lock)}
        assert supply_chain.packages_in(path) == pinned
        assert all(
            one.get("externalReferences") for one in json.loads(path.read_text())["components"]
        )


def test_an_audit_names_the_weakness_and_what_mends_it() -> None:
    # given
    report = {
        "dependencies": [
            {"name": "sound", "version": "1.0", "vulns": []},
            {
                "name": "old",
                "version": "0.9",
                "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["1.0", "0.9.1"]}],
            },
            {"name": "private", "skip_reason": "not found"},
        ]
    }

    # then
    assert supply_chain.findings(json.dumps(report)) == (
        ["old 0.9: PYSEC-2026-1, mended in 1.0, 0.9.1"],
        "1 packages are unknown to the database",
    )


def test_an_audit_without_a_network_says_so() -> None:
    said = "noise\nrequests.exceptions.ConnectionError: no route"
    assert supply_chain.findings("", said=said) == ([], supply_chain.NOT_REACHED)


def test_secrets_of_the_containers_are_never_committed() -> None:
    command = ["git", "check-ignore", "secrets/database_url", ".env", "dist/requirements.cdx.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == command[2:]
