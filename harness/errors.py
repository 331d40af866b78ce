"""The errors that a user can mend; the command line prints them without a traceback and exits with status 2."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """Something that was asked for cannot be done; the message says what, where and how to mend it."""


class Problems(UserError):
    """Several problems at once, so that a user mends them in one go."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        several = len(self.problems) > 1
        super().__init__("\n".join(f"- {problem}" if several else problem for problem in self.problems))
