"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# Under CI the same examples every time, so that a change is judged by what it changes; elsewhere new ones are tried.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
