"""What `make up` shows: a live list of steps on a terminal, plain lines anywhere else."""

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
DETAIL_WIDTH: Final = 60


class State(Enum):
    RUNNING = "…"
    DONE = "✓"
    FAILED = "✗"


STYLES: Final = {State.RUNNING: "cyan", State.DONE: "green", State.FAILED: "bold red"}


@dataclass(slots=True)
class Step:
    text: str
    state: State
    started_s: float
    seconds: float
    detail: str = ""


class Display:
    """Steps are named by a key; setting one again updates its line."""

    def __init__(self, clock: Callable[[], float], console: Console | None = None) -> None:
        self._clock = clock
        self._console = console or Console(highlight=False, file=sys.stdout)
        self._steps: dict[str, Step] = {}
        self._live: Live | None = None
        self._frame = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # Drawn from our own loop: a drawing thread and forks do not go together.
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self.draw()
            self._live.stop()
            self._live = None

    def begin(self, key: str, text: str) -> None:
        self._steps[key] = Step(text, State.RUNNING, started_s=self._clock(), seconds=0.0)
        self._say(f"{State.RUNNING.value} {text}")

    def detail(self, key: str, detail: str) -> None:
        """A fleeting note behind a running step; seen on terminals only."""
        self._steps[key].detail = detail[:DETAIL_WIDTH]

    def end(self, key: str, *, failed: bool = False, detail: str = "") -> None:
        step = self._steps[key]
        if step.state is not State.RUNNING:
            return
        step.state = State.FAILED if failed else State.DONE
        step.seconds = self._clock() - step.started_s
        step.detail = detail
        self._say(f"{step.state.value} {step.text} ({step.seconds:.1f} s) {detail}".rstrip())

    def note(self, line: str) -> None:
        """A line that stays, above the list on a terminal."""
        # Nobody to tell, or no room for it in the file behind our output: no reason to end.
        with suppress(OSError):
            self._console.print(line, markup=False, soft_wrap=True)
            self._console.file.flush()

    def draw(self) -> None:
        if self._live is not None:
            self._frame += 1
            with suppress(OSError):
                self._live.update(Group(*map(self._line, self._steps.values())), refresh=True)

    def _line(self, step: Step) -> Text:
        is_running = step.state is State.RUNNING
        mark = SPINNER[self._frame % len(SPINNER)] if is_running else step.state.value
        seconds = self._clock() - step.started_s if is_running else step.seconds
        line = Text.assemble(
            (f" {mark} ", STYLES[step.state]), step.text, (f"  {seconds:.1f} s", "dim")
        )
        if step.detail:
            line.append(f"  {step.detail}", style="dim")
        line.no_wrap = True
        return line

    def _say(self, line: str) -> None:
        if self._live is None:
            self.note(line)
