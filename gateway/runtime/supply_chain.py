"""`make sbom` and the audit in `make check`: what the lock files bring, and what is known of it.

The list is made offline. The audit asks an advisory database; where none can be reached it says so
and passes, because a check that fails without a network would be switched off.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

CLONE: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = ("requirements", "requirements-worker")
SBOM_TIMEOUT_S: Final = 120
AUDIT_TIMEOUT_S: Final = 60
NOT_REACHED: Final = "the advisory database cannot be reached from here"


def write_sboms(folder: Path) -> list[Path]:
    """One CycloneDX file for each lock, with every package's version and digests."""
    folder.mkdir(exist_ok=True)
    written = []
    for name in LOCKS:
        target = folder / f"{name}.cdx.json"
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", f"{name}.lock"]
        command += ["--output-reproducible", "--of", "JSON", "-o", str(target)]
        subprocess.run(command, cwd=CLONE, check=True, timeout=SBOM_TIMEOUT_S)
        written.append(target)
    return written


def packages_in(sbom: Path) -> set[str]:
    """`name==version` of every component."""
    components = json.loads(sbom.read_text(encoding="utf-8"))["components"]
    return {f"{one['name'].lower()}=={one['version']}" for one in components}


def audit(lock: str) -> tuple[list[str], str]:
    """Known weaknesses of a lock's packages, and why there may be no answer (empty: there is)."""
    command = [sys.executable, "-m", "pip_audit", "-r", f"{lock}.lock", "--disable-pip"]
    command += ["--require-hashes", "--vulnerability-service", "osv", "--progress-spinner", "off"]
    command += ["--format", "json", "--timeout", "10"]
    try:
        done = subprocess.run(
            command, cwd=CLONE, capture_output=True, text=True, timeout=AUDIT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return [], f"no answer within {AUDIT_TIMEOUT_S} s"
    return findings(done.stdout, said=done.stderr)


def findings(report: str, *, said: str = "") -> tuple[list[str], str]:
    """What an audit's report holds, a line a weakness; a reason where it is no report."""
    try:
        audited = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        reason = (said.strip().splitlines() or ["no report"])[-1]
        return [], NOT_REACHED if "ConnectionError" in reason else reason
    found = [
        f"{one['name']} {one['version']}: {weakness['id']}, mended in "
        f"{', '.join(weakness['fix_versions']) or 'no version yet'}"
        for one in audited
        for weakness in one.get("vulns", [])
    ]
    skipped = sum("skip_reason" in one for one in audited)
    return found, f"{skipped} packages are unknown to the database" if skipped else ""


def main() -> None:
    if sys.argv[1:] == ["sbom"]:
        for path in write_sboms(CLONE / "dist"):
            sys.stdout.write(f"  {path.relative_to(CLONE)}: {len(packages_in(path))} packages\n")
        return
    known: list[str] = []
    for lock in LOCKS:
        found, gap = audit(lock)
        known += found
        if gap:
            sys.stdout.write(f"  {lock}.lock was not wholly audited: {gap}\n")
    if known:
        sys.exit("\n".join(["Packages with known weaknesses:", *known]))


if __name__ == "__main__":
    main()
