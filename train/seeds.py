"""One seed for everything: every consumer of randomness derives its own from it."""

from __future__ import annotations

import hashlib
import json
import random


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed keyed by (seed, purpose), the same on every machine and in every process."""
    key = json.dumps([seed, *purpose]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> random.Random:
    """A random generator of its own for one purpose."""
    return random.Random(derive_seed(seed, *purpose))
