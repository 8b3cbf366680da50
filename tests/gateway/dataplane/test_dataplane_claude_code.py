"""Claude Code against the running data plane: what it may not have it hears at once.

Needs node and npm, which fetches the pinned version into a temporary folder; skipped without.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from providers.models import Offer
from tests.fakes.upstream import TOKENS, FakeUpstream
from tests.gateway.world import World, add_offer, add_provider
from tests.patience import PATIENCE_S, ran_s

pytestmark = pytest.mark.alone

VERSION = "2.1.332"
PACKAGE = f"@anthropic-ai/claude-code@{VERSION}"
FOLDER = Path(tempfile.gettempdir()) / f"tokenhouse-claude-code-{VERSION}-{os.getuid()}"
INSTALL_S_MAX = 180
ANSWERED_S_MAX = 2.0


def catalogue(upstream: FakeUpstream) -> None:
    pool = add_provider("pool", upstream.url)
    add_offer(provider=pool, model="claude-fox", upstream_model="good")
    keyless = add_provider("keyless", upstream.url, kind="external")
    add_offer(provider=keyless, model="claude-keyless", upstream_model="good")
    Offer.objects.update(context_length=200_000)


@pytest.fixture(scope="module")
def claude() -> Path:
    program = FOLDER / "node_modules/.bin/claude"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("node and npm are not here")
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_S_MAX)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("npm could not fetch it")
    return program


def printed(
    claude: Path, world: World, folder: Path, *, key: str, model: str
) -> tuple[subprocess.CompletedProcess[str], float]:
    """What it prints in print mode, and in how many seconds, its own start included."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ANTHROPIC_BASE_URL": world.plane.url,
        "ANTHROPIC_AUTH_TOKEN": key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    began = ran_s()
    done = subprocess.run(
        [str(claude), "-p", "hello", "--model", model],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )
    return done, ran_s() - began


def start_s(claude: Path) -> float:
    """What its own start takes on this machine; the first one also reads its files."""
    took_s = []
    for _ in range(2):
        began = ran_s()
        subprocess.run([str(claude), "--version"], check=True, capture_output=True)
        took_s.append(ran_s() - began)
    return took_s[-1]


@pytest.mark.parametrize(
    ("key", "model", "words"),
    [
        ("tk-nobody-knows-this", "claude-fox", "API key"),
        ("", "claude-keyless", "claude-keyless"),
        ("", "no-such-claude", "no-such-claude"),
    ],
)
def test_a_wrong_key_or_model_is_heard_at_once(
    claude: Path, the_world: World, tmp_path: Path, key: str, model: str, words: str
) -> None:
    # given
    alice = the_world.caller()
    alone_s = start_s(claude)

    # when
    done, took_s = printed(claude, the_world, tmp_path, key=key or alice.plain, model=model)

    # then it says so, and does not repeat it for minutes
    assert done.returncode == 1
    assert words in done.stdout
    assert took_s - alone_s < ANSWERED_S_MAX


def test_a_turn_is_served(claude: Path, the_world: World, tmp_path: Path) -> None:
    alice = the_world.caller()

    done, _ = printed(claude, the_world, tmp_path, key=alice.plain, model="claude-fox")

    assert (done.returncode, done.stdout.strip()) == (0, "".join(TOKENS))
    assert len(the_world.settled(alice)) == 1
