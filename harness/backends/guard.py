"""Processes that end with this one, however it ends: an engine left behind would keep the GPU's memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

# Reads until the pipe breaks, which it does when the other end's process is gone, then ends what it was given.
_WATCH = """
import os, signal, sys
sys.stdin.read()
for pid in map(int, sys.argv[1:]):
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
"""


class Guard:
    """Watches over this process from a small one beside it; `release` calls the watch off."""

    def __init__(self, pids: Iterable[int]) -> None:
        """`pids` are ended when this process is gone."""
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, *map(str, pids)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is for the others
        )

    def release(self) -> None:
        """The processes have ended, or may go on by themselves."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            with suppress(OSError):
                self._watcher.stdin.close()
