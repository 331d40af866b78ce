"""`harness synthesize`: from real data to fictitious data, checked and written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from factscore_mod.budget import Budget, BudgetReached
from factscore_mod.cache import ReplyCache
from factscore_mod.chat import Chat, Engine, Ledger
from factscore_mod.cost import PriceTable
from factscore_mod.judges import JudgeOptions, make_engine
from harness.data.files import read_jsonl
from harness.data.local import LocalSource
from harness.data.source import DataError
from harness.errors import Problems, UserError
from harness.paths import digest
from harness.synthesize import by_model, rules, two_hops, wordings, written
from harness.synthesize.asked import Count, counts, reasons
from harness.synthesize.biographies import persons
from harness.synthesize.checks import Check, check, titles_among
from harness.synthesize.known import known_names
from harness.synthesize.names import NameMaker
from harness.synthesize.output import write
from harness.synthesize.records import Seed, TaskSet
from harness.synthesize.rules import Relations, Sizes
from harness.synthesize.standin import Estimating, ReadOnly

TASKS = ("popqa", "hotpotqa", "persons", "medical")
LONG = ("persons", "medical")
# Versions of a subject, where none are asked for: those of the paper.
VERSIONS = {"popqa": 1, "hotpotqa": 1, "persons": 5, "medical": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizeOptions:
    """What is to be made of which data, and where to.

    `source` is a data folder or, for long-form tasks, a JSON-lines file with `subject` and `text`. `knowledge` is a
    knowledge source whose titles no subject may bear. With `dry_run` nothing is asked, made or written.
    """

    source: Path
    out: Path
    task: str = "popqa"
    judge: str = "rules"
    sizes: Sizes = field(default_factory=Sizes)
    seed: int = 0
    knowledge: Path | None = None
    engine: JudgeOptions = field(default_factory=JudgeOptions)
    cache: Path | None = None
    max_cost: float | None = None
    max_calls: int | None = None
    prices: tuple[Path, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model would be asked. `dollars` is None where its price is not known."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Synthesized:
    """What was made (rows by task and file), what was left out and why, the checks, and what was or would be spent.

    `sizes` are the numbers asked for and made, by task.
    """

    counts: dict[str, dict[str, int]]
    left_out: Counter[str]
    checks: tuple[Check, ...]
    spent: Estimate
    sizes: dict[str, tuple[Count, ...]] = field(default_factory=dict)


def synthesize(options: SynthesizeOptions) -> Synthesized:
    """Make, check and write.

    Raises DataError for data that cannot be used, Problems where a check fails (nothing is written then), UserError
    at a limit of cost: the same command with a higher limit goes on from there.
    """
    if options.task not in TASKS:
        raise DataError(f"--task: '{options.task}' is not one of {', '.join(TASKS)}")
    known = _known(options)
    sets, fingerprint = _chosen(options, known)
    left_out: Counter[str] = Counter()
    spent = Estimate()
    if options.judge != "rules":
        sets, left_out, spent = _asked(options, sets, known)
    if options.dry_run:
        return Synthesized({}, Counter(), (), spent)
    if not all(made.rows for made in sets):
        raise DataError(f"nothing could be made: {reasons(left_out) or 'there are no rows'}")
    checks = check(sets, known, options.knowledge)
    if failed := [one.line() for one in checks if one.wrong]:
        raise Problems(failed)
    about: dict[str, Any] = {
        "generator": options.judge,
        "prompts": [wordings.identity(), *(p.identity for p in written.prompts() if options.judge != "rules")],
        "seed": options.seed,
        "sizes": asdict(options.sizes),
        "source": fingerprint,
        "left_out": dict(sorted(left_out.items())),
    }
    sizes = {made.task: counts(made, options.sizes, by_rules=options.judge == "rules") for made in sets}
    return Synthesized(write(options.out, sets, checks, about, sizes), left_out, checks, spent, sizes)


def _known(options: SynthesizeOptions) -> set[str]:
    if options.source.is_dir():
        return known_names(options.source)
    return {seed.subject for seed in _seeds(options)}


def _chosen(options: SynthesizeOptions, known: set[str]) -> tuple[Sequence[TaskSet], str]:
    """What the rules make (for a model's long-form entries: nothing yet), and the fingerprint of the source."""
    task, sizes, seed = options.task, options.sizes, options.seed
    if task in LONG:
        seeds = _seeds(options)
        fingerprint = digest(["seeds", seeds])
        if options.judge != "rules":
            return [], fingerprint
        if task != "persons":
            raise DataError(f"--task {task}: the rules know persons only; use a model (--judge openai:MODEL)")
        names = NameMaker({"person": [one.subject for one in seeds]}, known, _lookup(options.knowledge))
        return [persons(seeds, names, sizes, seed)], fingerprint
    source = LocalSource(options.source, seed=seed, clean="none")
    held = (*source.rows("popqa", "validation"), *source.rows("popqa", "test"))
    relations = Relations(source.rows("popqa", "train"), held)
    names = NameMaker(relations.subjects(), known, _lookup(options.knowledge))
    if task == "hotpotqa":
        return [two_hops.hotpotqa(options.source, relations, names, sizes, seed)], source.fingerprint
    made = [rules.popqa(relations, names, sizes, seed)]
    if sizes.held_out:
        made.append(rules.grounding(relations, names, sizes, seed))
    return made, source.fingerprint


def _seeds(options: SynthesizeOptions) -> list[Seed]:
    """Real entries: those of a JSON-lines file, or the training rows of a data folder."""
    if options.task not in LONG:
        raise DataError(f"{options.source} is not a folder; --task {options.task} is made from a data folder")
    if options.source.is_dir():
        rows = LocalSource(options.source, seed=options.seed).rows(options.task, "train")
        seeds = [Seed(row.subject, row.target) for row in rows]
    else:
        seeds = [Seed(record.text("subject"), record.text("text")) for record in read_jsonl(options.source)]
    if not seeds:
        raise DataError(
            f"{options.source} has no {options.task} to learn from; give a JSON-lines file with `subject` and `text`"
        )
    return seeds


def _asked(
    options: SynthesizeOptions, sets: Sequence[TaskSet], known: set[str]
) -> tuple[Sequence[TaskSet], Counter[str], Estimate]:
    """The sets in a model's words, or (for long-form tasks) of its making. In a dry run a stand-in answers."""
    engine: Engine = make_engine(options.judge, _engine_options(options))
    prices = PriceTable(*options.prices)
    price = prices.get(engine.model)
    if options.max_cost is not None:
        prices.need(engine.model)
    budget = Budget() if options.dry_run else Budget(options.max_calls, options.max_cost)
    cache_type = ReadOnly if options.dry_run else ReplyCache
    with closing(cache_type(options.cache)) if options.cache else nullcontext() as cache:
        ledger = Ledger(cache=cache, budget=budget, prices=prices)
        chat = Chat(Estimating(engine) if options.dry_run else engine, ledger, options.engine.reasks)
        try:
            outcomes = asyncio.run(_outcomes(options, sets, chat, known))
        except BudgetReached as limit:
            raise UserError(
                f"{limit}; what was answered is kept: the same command with a higher limit goes on"
            ) from limit
    left_out: Counter[str] = sum((one.left_out for one in outcomes), Counter())
    spent = Estimate(
        ledger.sent,
        ledger.cached,
        ledger.prompt_tokens,
        ledger.completion_tokens,
        ledger.dollars if price or not ledger.sent else None,
    )
    return [one.made for one in outcomes], left_out, spent


async def _outcomes(
    options: SynthesizeOptions, sets: Sequence[TaskSet], chat: Chat, known: set[str]
) -> list[by_model.Outcome]:
    try:
        if options.task in LONG:
            seeds = _seeds(options)
            is_title = _lookup(options.knowledge)
            return [await by_model.biographies(options.task, seeds, chat, options.sizes, known, is_title)]
        return [await by_model.rewrite(made, chat, options.sizes) for made in sets]
    finally:
        await chat.aclose()


def _engine_options(options: SynthesizeOptions) -> JudgeOptions:
    if not options.dry_run:
        return options.engine
    return replace(options.engine, api_key=options.engine.api_key or "not needed for a dry run")


def _lookup(knowledge: Path | None) -> Callable[[str], bool]:
    if knowledge is None:
        return lambda name: False
    return lambda name: bool(titles_among([name], knowledge))
