"""An estimate as tables for a terminal."""

from __future__ import annotations

from typing import Any

from harness.estimate import Estimate

# Bytes; less would be printed as 0.0 MB.
WORTH_SAYING = 50_000


def tables(made: Estimate) -> list[Any]:
    """The estimate as tables for a terminal."""
    from rich.table import Table

    use = made.assumptions
    whose = "one core of a CPU" if use.device == "cpu" else f"one {use.device.upper()}"
    work = Table(
        "stage", "jobs", "ready", "rows", "updates", "tokens", "device hours", "memory", "by",
        title=f"{made.preset}, {made.suite}: hours of {whose} at {use.mfu:.0%} of its peak", header_style="bold",
    )  # fmt: skip
    for line in made.lines:
        about = "" if line.exact else "~"
        work.add_row(
            line.label, str(line.jobs), str(line.ready or ""), f"{line.rows:,}" if line.rows else "",
            f"{about}{line.updates:,}" if line.updates else "", f"{about}{_short(line.tokens)}",
            _hours(line.seconds), _size(line.memory_bytes), line.basis,
        )  # fmt: skip
    work.add_section()
    work.add_row(
        "all", str(sum(line.jobs for line in made.lines)), str(sum(line.ready for line in made.lines)), "", "",
        _short(sum(line.tokens for line in made.lines)), _hours(made.hours * 3600),
        _size(made.memory_bytes), "",
    )  # fmt: skip
    shown = [work] if made.lines else []
    if any(one.calls for one in made.calls):
        money = Table("calls", "model", "responses", "calls", "tokens in", "tokens out", "dollars", header_style="bold")
        for one in made.calls:
            cost = "unknown" if one.dollars is None else f"{one.dollars:.2f}"
            money.add_row(
                one.label, one.model, f"{one.responses:,}", f"{one.calls:,}", _short(one.tokens_in),
                _short(one.tokens_out), cost,
            )  # fmt: skip
        money.add_section()
        money.add_row("all", "", "", "", "", "", "unknown" if made.dollars is None else f"{made.dollars:.2f}")
        shown.append(money)
    return shown


def remarks(made: Estimate) -> list[str]:
    """What belongs under the tables: disk, what is left out, where figures come from."""
    disk = ", ".join(f"{name} {_size(size)}" for name, size in made.disk.items() if size >= WORTH_SAYING)
    lines = [f"Disk: {disk}." if disk else "Disk: nothing to speak of."]
    groups: dict[str, list[str]] = {}
    for cell, reason in made.left_out.items():
        groups.setdefault(reason, []).append(cell)
    lines += [f"Left out: {'; '.join(cells)}: {reason}." for reason, cells in groups.items()]
    lines += [
        f"{line.label}: {line.truncated:,} of {line.rows:,} rows are longer than the recipe's max_length and lose "
        "their end."
        for line in made.lines
        if line.truncated
    ]
    if any(line.basis != "estimated" for line in made.lines):
        lines.append(
            "measured: hours follow from the tokens a second of stages trained here before, on the same base and an "
            "equal device."
        )
    if any(not line.exact for line in made.lines):
        lines.append(
            "~ marks what is not known beforehand, such as how long answers will be, and is worked out from means; "
            "figures without it were counted on the rows themselves."
        )
    return [*lines, *made.notes]


def _short(number: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if name == 'k' else size):,.1f}{name}"
    return f"{round(number):,}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}" if seconds >= 36 else f"{seconds:.1f} s" if seconds else ""


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
