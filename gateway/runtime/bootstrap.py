"""Makes the virtual environments from the lock files, on a bare Python.

`python3 -m gateway.runtime.bootstrap gateway|dev|worker`. Standard library only. A stamp with the
lock's digest makes the second run immediate; an interrupted install leaves no stamp and is resumed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

CLONE: Final = Path(__file__).resolve().parents[2]
PYTHON_MINIMUM: Final = (3, 11)
INSTALL_TIMEOUT_S: Final = 3600
# The public torch wheel asks for these; a CPU build neither asks for them nor can use them.
CUDA_PREFIXES: Final = ("nvidia-", "cuda-", "triton")


@dataclass(frozen=True, slots=True)
class Target:
    folder: str
    lock: str
    covered_by: str = ""  # an install that holds everything this one would


TARGETS: Final = {
    "gateway": Target(folder=".venv", lock="requirements.lock", covered_by="dev"),
    "dev": Target(folder=".venv", lock="requirements-dev.lock"),
    "worker": Target(folder=".venv-worker", lock="requirements-worker.lock"),
}


class InstallFailed(RuntimeError):
    """The text is for the person at the terminal: what failed and what to do about it."""


def install(name: str) -> None:
    """Brings one virtual environment to what its lock file says; immediate when it is there."""
    target = TARGETS[name]
    if is_installed(name) or (target.covered_by and is_installed(target.covered_by)):
        return
    started = time.monotonic()
    lock = CLONE / target.lock
    python = _make_environment(CLONE / target.folder)
    _say(f"installing {target.lock} into {target.folder}")
    requirements = requirement_blocks(lock.read_text(encoding="utf-8"))
    torch = [block for package, block in requirements if package == "torch"]
    cpu_build = _cpu_build(python, torch[0]) if torch else None
    if cpu_build is not None:
        _say("torch: found a CPU build, leaving out CUDA")
        requirements = [
            (package, cpu_build if package == "torch" else block)
            for package, block in requirements
            if not package.startswith(CUDA_PREFIXES)
        ]
    _pip_install(
        python, "".join(f"{block}\n" for _, block in requirements), packages=len(requirements)
    )
    _stamp(name).write_text(_digest(name), encoding="ascii")
    _say(f"{target.folder} is ready after {time.monotonic() - started:.0f} s")


def is_installed(name: str) -> bool:
    stamp = _stamp(name)
    return stamp.exists() and stamp.read_text(encoding="ascii") == _digest(name)


def _stamp(name: str) -> Path:
    return CLONE / TARGETS[name].folder / f".installed-{name}"


def _digest(name: str) -> str:
    return hashlib.sha256((CLONE / TARGETS[name].lock).read_bytes()).hexdigest()


def _make_environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        _say(f"making {folder.name} with Python {sys.version.split()[0]}")
        venv.create(folder, symlinks=True, with_pip=find_spec("ensurepip") is not None)
    if _run([str(python), "-m", "pip", "--version"]).returncode != 0:
        _provide_pip(python)
    return python


def _provide_pip(python: Path) -> None:
    """Debian's python3 comes without ensurepip: borrow any pip or uv, or let apt bring it."""
    system_pip = [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    if find_spec("pip") is not None:
        done = _run([*system_pip, "--python", str(python), "install", "-q", "pip"])
    elif uv is not None:
        done = _run([uv, "pip", "install", "-q", "--python", str(python), "pip"])
    else:
        done = _pip_from_apt(python)
    if done.returncode != 0:
        raise InstallFailed(f"cannot put pip into {python.parents[1].name}: {done.stderr.strip()}")


def _pip_from_apt(python: Path) -> "subprocess.CompletedProcess[str]":
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    advice = f"Python's venv module has no pip here. Run: apt-get install {package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise InstallFailed(advice)
    _say(f"installing {package} with apt-get")
    _run(["apt-get", "update", "-qq"])
    if _run(["apt-get", "install", "-qq", "-y", package]).returncode != 0:
        raise InstallFailed(advice)
    return _run([str(python), "-m", "ensurepip", "--upgrade"])


def requirement_blocks(lock: str) -> list[tuple[str, str]]:
    """Splits a lock into (package, its pin with marker and hashes); a package may have several."""
    blocks: list[tuple[str, str]] = []
    for line in lock.splitlines():
        if not line or line.lstrip().startswith("#"):
            continue
        if line.startswith(" "):
            package, block = blocks.pop()
            blocks.append((package, f"{block}\n{line}"))
        else:
            package = line.split("==")[0].split("[")[0].strip().lower()
            blocks.append((package, line))
    return blocks


def _cpu_build(python: Path, block: str) -> str | None:
    """The pin of a CPU build of torch, if that is what pip would take and the lock knows its hash.

    It is pinned by its full version: among wheels of one version pip would otherwise prefer the one
    whose address carries an expected hash, which a folder of wheels does not.
    """
    pin = block.split("\\")[0].strip()
    command = [str(python), "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
    done = _run([*command, "--no-deps", "--report", "-", pin])
    if done.returncode != 0:
        raise InstallFailed(f"pip finds no {pin}: {done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout)["install"][0]
    needs = found["metadata"].get("requires_dist", [])
    digest = found["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if any(need.startswith(CUDA_PREFIXES) for need in needs) or f"sha256:{digest}" not in block:
        return None
    return f"torch=={found['metadata']['version']} --hash=sha256:{digest}"


def _pip_install(python: Path, requirements: str, *, packages: int) -> None:
    """The lock is complete, so dependencies are not resolved again."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(requirements)
        file.flush()
        command = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        command += ["--no-input", "--no-deps", "--require-hashes", "-r", file.name]
        pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = _follow(pip, packages)
        if pip.wait(INSTALL_TIMEOUT_S) != 0:
            raise InstallFailed("pip could not install the pinned packages:\n" + "".join(said))


def _follow(pip: "subprocess.Popen[str]", packages: int) -> list[str]:
    """Turns pip's many lines into a count; returns the last ones, for when it fails."""
    said: deque[str] = deque(maxlen=40)
    seen = 0
    for line in pip.stdout or ():
        said.append(line)
        if line.startswith(("Collecting ", "Processing ", "Requirement already")):
            seen += 1
            _progress(f"fetching {seen} of {packages}", is_last=seen == packages)
        elif line.startswith("Installing collected"):
            _say(f"unpacking {packages} packages")
    return [*said]


def _progress(line: str, *, is_last: bool) -> None:
    """One line that changes on a terminal; in a file only what matters."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r  {line}" + ("\n" if is_last else ""))
        sys.stdout.flush()
    elif is_last:
        _say(line)


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)


def _say(line: str) -> None:
    sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()


def main() -> None:
    if sys.version_info < PYTHON_MINIMUM:
        sys.exit("Tokenhouse needs Python 3.11 or newer; make up PYTHON=/path/to/python3.11")
    try:
        for name in sys.argv[1:]:
            install(name)
    except InstallFailed as problem:
        sys.exit(f"\n{problem}")


if __name__ == "__main__":
    main()
