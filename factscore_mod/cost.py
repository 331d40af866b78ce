"""What calls cost: a table of prices in TOML, and a rough count of tokens for estimates."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{4}|latest)$")


class PriceError(ValueError):
    """A price table cannot be read, or a model has no price where one is needed."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens in and out."""

    input: float
    output: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for one call."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class PriceTable:
    """Prices by model: the package's own, then those of `extra` files, which win.

    A model is found by its exact name, else without the date that it ends in (`gpt-4o-mini-2024-07-18` costs what
    `gpt-4o-mini` does). Any other ending may be another model at another price, and is not guessed.
    """

    def __init__(self, *extra: Path) -> None:
        """Raises PriceError where a file is not a table of prices."""
        self._prices = _parse(files("factscore_mod").joinpath("prices.toml").read_text("utf-8"), "prices.toml")
        for path in extra:
            try:
                text = Path(path).read_text("utf-8")
            except OSError as problem:
                raise PriceError(f"{path}: cannot be read ({problem})") from problem
            self._prices |= _parse(text, str(path))

    def get(self, model: str) -> Price | None:
        """The model's price, or `None` where it is not known."""
        return self._prices.get(model) or self._prices.get(_DATE.sub("", model))

    def need(self, model: str) -> Price:
        """The model's price. Raises PriceError where it is not known."""
        price = self.get(model)
        if price is None:
            raise PriceError(
                f"no price for model {model!r}: add it to a price table "
                f'(["{model}"] input = ..., output = ... in dollars a million tokens), or limit calls instead'
            )
        return price


def _parse(text: str, where: str) -> dict[str, Price]:
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise PriceError(f"{where}: not TOML ({problem})") from problem
    prices = {}
    for model, row in table.items():
        values: list[Any] = [row.get("input"), row.get("output")] if isinstance(row, dict) else [None]
        if not all(isinstance(value, (int, float)) and value >= 0 for value in values):
            raise PriceError(f"{where}: model {model!r} needs numbers `input` and `output`, not {row!r}")
        prices[model] = Price(float(values[0]), float(values[1]))
    return prices


def estimate_tokens(text: str) -> int:
    """About how many tokens an English text has: four characters each."""
    return len(text) // 4 + 1
