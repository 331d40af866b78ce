"""`harness synthesize`: from a data folder to fictitious data, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.data.local import LocalSource
from harness.data.source import DataError
from harness.errors import Problems
from harness.records import Row
from harness.synthesize import rules, two_hops, wordings
from harness.synthesize.checks import Check, check, titles_among
from harness.synthesize.known import known_names
from harness.synthesize.names import NameMaker
from harness.synthesize.output import write
from harness.synthesize.records import TaskSet
from harness.synthesize.rules import Relations, Sizes

TASKS = ("popqa", "hotpotqa")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizeOptions:
    """What is to be made of which data, and where to; `knowledge` is a source whose titles no subject may bear."""

    source: Path
    out: Path
    task: str = "popqa"
    judge: str = "rules"
    sizes: Sizes = field(default_factory=Sizes)
    seed: int = 0
    knowledge: Path | None = None


@dataclass(frozen=True, slots=True)
class Synthesized:
    """What was made: rows by task and file, and the checks that were passed."""

    counts: dict[str, dict[str, int]]
    checks: tuple[Check, ...]


def synthesize(options: SynthesizeOptions) -> Synthesized:
    """Make, check and write. Raises DataError for data that cannot be used and Problems where a check fails; nothing
    is written then."""
    if options.task not in TASKS:
        raise DataError(f"--task: '{options.task}' is not one of {', '.join(TASKS)}")
    known = known_names(options.source)
    source = LocalSource(options.source, seed=options.seed, clean="none")
    sets = _by_rules(options, source, known)
    checks = check(sets, known, options.knowledge)
    if failed := [one.line() for one in checks if one.wrong]:
        raise Problems(failed)
    about = {
        "generator": options.judge,
        "prompts": [wordings.identity()],
        "seed": options.seed,
        "sizes": asdict(options.sizes),
        "source": source.fingerprint,
    }
    return Synthesized(write(options.out, sets, checks, about), checks)


def _by_rules(options: SynthesizeOptions, source: LocalSource, known: set[str]) -> Sequence[TaskSet]:
    held: tuple[Row, ...] = (*source.rows("popqa", "validation"), *source.rows("popqa", "test"))
    relations = Relations(source.rows("popqa", "train"), held)
    names = NameMaker(relations.subjects(), known, _lookup(options.knowledge))
    if options.task == "hotpotqa":
        return [two_hops.hotpotqa(options.source, relations, names, options.sizes, options.seed)]
    made = [rules.popqa(relations, names, options.sizes, options.seed)]
    if options.sizes.held_out:
        made.append(rules.grounding(relations, names, options.sizes, options.seed))
    return made


def _lookup(knowledge: Path | None) -> Callable[[str], bool]:
    if knowledge is None:
        return lambda name: False
    return lambda name: bool(titles_among([name], knowledge))
