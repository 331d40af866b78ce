"""Limits on what a run may spend, checked before every call that costs something."""

from __future__ import annotations

from dataclasses import dataclass, field


class BudgetReached(Exception):
    """A limit was reached. What is finished is kept; the same command with a higher limit goes on."""


@dataclass(slots=True)
class Budget:
    """Counts calls and dollars against `max_calls` and `max_dollars`; `None` is no limit.

    A call is reserved at its highest price before it is sent and settled at its real one afterwards, so that
    calls in flight together cannot overshoot.
    """

    max_calls: int | None = None
    max_dollars: float | None = None
    calls: int = 0
    dollars: float = 0.0
    _reserved: float = field(default=0.0, repr=False)

    def reserve(self, dollars: float) -> None:
        """Ask for one call that may cost up to `dollars`. Raises BudgetReached where that is too much."""
        if self.max_calls is not None and self.calls >= self.max_calls:
            raise BudgetReached(f"stopped at the limit of {self.max_calls:,} calls")
        if self.max_dollars is not None and self.dollars + self._reserved + dollars > self.max_dollars:
            raise BudgetReached(f"stopped at the limit of ${self.max_dollars:,.2f} (spent ${self.dollars:,.4f})")
        self.calls += 1
        self._reserved += dollars

    def settle(self, reserved: float, dollars: float) -> None:
        """Replace a reservation by what the call cost in the end; 0 for one that failed."""
        self._reserved -= reserved
        self.dollars += dollars
