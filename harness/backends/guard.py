"""Processes that end with this one, however it ends: an engine left behind would keep the GPU's memory."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Reads until the pipe breaks, which it does when the other end's process is gone, then ends all that have the mark
# in their environment. Looks twice, because a process shows its own environment only once it has begun.
_WATCH = """
import os, signal, sys, time
sys.stdin.read()
mark, told, quiet, start = sys.argv[1].encode(), set(), 0, time.monotonic()
while quiet < 2 and time.monotonic() < start + 60:
    quiet += 1
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if mark not in file.read():
                    continue
            quiet = 0
            if pid not in told:
                os.kill(int(pid), signal.SIGTERM)
            elif time.monotonic() > start + 10:
                os.kill(int(pid), signal.SIGKILL)
            told.add(pid)
        except OSError:
            pass
    time.sleep(0.5)
"""


class Guard:
    """Watches over this process from a small one beside it; `release` calls the watch off.

    What is started within `starting`, and what that starts in turn, ends when this process is gone. It is told by a
    mark in its environment, so that it makes no difference when this process dies. Without /proc nothing is ended.
    """

    def __init__(self) -> None:
        self._mark = f"HARNESS_GUARD_{uuid.uuid4().hex}"
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, self._mark],
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is for the others
        )

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Mark the processes that are started within."""
        # Engines name themselves, and write their name over their environment unless they are asked not to.
        os.environ |= {self._mark: "1", "SPT_NOENV": "1"}
        try:
            yield
        finally:
            del os.environ[self._mark]

    def release(self) -> None:
        """The processes have ended, or may go on by themselves."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            with suppress(OSError):
                self._watcher.stdin.close()
