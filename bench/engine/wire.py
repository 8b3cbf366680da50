"""What the bench and its sides tell each other: jobs and outcomes as JSON lines over pipes.

A side is one engine in a process of its own. This file is all that a side imports of the bench, so
it needs the standard library only: peers live in an environment without torch.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Prompts (token ids) to be answered at once, each with exactly `output_tokens`, greedily.

    `salt` is new for every job: nothing of an earlier job may be found in a cache. With
    `shared_salt` the prompts of the job may share what they have in common.
    """

    prompts: list[list[int]]
    output_tokens: int
    salt: str
    shared_salt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a side made of a job, on its own clock: from the first prompt in to the last token.

    `first_seconds`: until every prompt had its first token, where the side can tell.
    """

    seconds: float
    output_tokens: int
    texts: list[str]
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    first_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A side that is ready: how to run a job, and what it says about itself."""

    run: Callable[[Job], Outcome]
    facts: dict[str, str] = field(default_factory=dict)


def serve(start: Callable[[Settings], Started]) -> None:
    """Start the side with the settings of the command line, then answer jobs until stdin ends.

    The pipe is kept apart from file descriptor 1: libraries that print would break the protocol.
    """
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    started = start(json.loads(sys.argv[1]))
    send(started.facts | {"memory_mb": str(resident_mb())})
    for line in sys.stdin:
        send(asdict(started.run(Job(**json.loads(line)))))


def resident_mb() -> int:
    """Resident memory of this process in megabytes, 0 where the system does not tell."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    sizes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return sizes[0] // 1000 if sizes else 0
