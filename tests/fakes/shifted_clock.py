"""A machine whose wall clock is off by what a file says, for processes that are started with it.

Compiled with the C compiler that the engine's kernels need; skips where there is none.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long off_s(void) {
    FILE *file = fopen(getenv("TEST_CLOCK_FILE"), "r");
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (id == CLOCK_REALTIME) at->tv_sec += off_s();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@dataclass(frozen=True, slots=True)
class ShiftedClock:
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of whoever shall live by it."""
        return {
            "LD_PRELOAD": str(self.folder / "clock.so"),
            "TEST_CLOCK_FILE": str(self.folder / "off"),
        }

    def set(self, seconds: int) -> None:
        fresh = self.folder / "off.new"
        fresh.write_text(str(seconds))
        os.replace(fresh, self.folder / "off")


def shifted_clock(folder: Path) -> ShiftedClock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "clock.c"
    source.write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(source), "-ldl"]
    subprocess.run(command, check=True)
    made = ShiftedClock(folder)
    made.set(0)
    return made
