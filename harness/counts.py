"""How many rows, updates and tokens a training stage has: from its plan, or in expectation."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

from train.sampling import Answers, Pairs, Verdicts
from train.stages import Recipe, Stage

# Beyond so many row visits a plan is not drawn: the expectation is as good, and quicker.
VISITS = 300_000


class Tokens(Protocol):
    """Counts the tokens of a text."""

    def count(self, text: str) -> int:
        """The number of tokens, special ones left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a stage reads. `tokens` leave padding out and `padded` do not; `targets` carry a loss.

    `squares` are the squared lengths of all rows read. `under_knowledge` is the share of tokens read under a frozen
    knowledge adapter. `largest` and `largest_targets` are tokens and targets of the largest forward pass.
    `truncated` are the rows that lose their end at `max_length`, where rows were counted one by one.
    """

    rows: int
    updates: int
    tokens: int
    padded: int
    targets: int
    squares: float
    largest: int
    largest_targets: int
    under_knowledge: float = 0.0
    exact: bool = False
    truncated: int = 0


def count(
    stage: Stage, tokens: Tokens, tokenizer: Any, base_fingerprint: str, answer_tokens: float, claims: float
) -> Counts:
    """Count a stage.

    With a `tokenizer` a stage of given rows is counted from its plan, exactly as it will be trained, unless that is
    long. `answer_tokens` and `claims` are those of a mean response, for rows that will be made of samples: of these
    there are at most so many.
    """
    if stage.kind == "rl":
        return _rollouts(stage, tokens, answer_tokens)
    if stage.derived is not None:
        return _derived(stage, tokens, answer_tokens, claims)
    if tokenizer is not None and stage.recipe.epochs * _units(stage) < VISITS:
        return _exact(stage, tokenizer, base_fingerprint)
    return _expected(stage, tokens)


def _exact(stage: Stage, tokenizer: Any, base_fingerprint: str) -> Counts:
    from train.encode import encode_examples, encode_texts
    from train.run import plan_stage

    with _unsaid("train.encode"):  # that rows were cut; the report says it with the stage's name
        if stage.kind == "knowledge":
            encoded = encode_texts(stage.texts, tokenizer, stage.recipe.max_length)
        else:
            encoded = encode_examples(stage.examples, tokenizer, stage.template, stage.recipe.max_length)
    plan = plan_stage(stage, encoded, base_fingerprint)
    read = padded = targets = under = largest = largest_targets = 0
    squares = 0.0
    for branch in (branch for batch in plan.micro_batches for branch in batch):
        sizes = [len(encoded.rows[i].ids) for i in branch.rows]
        wide = len(sizes) * max(sizes)
        learnt = sum(encoded.rows[i].targets for i in branch.rows)
        read += sum(sizes)
        padded += wide
        targets += learnt
        squares += len(sizes) * float(max(sizes)) ** 2
        under += sum(sizes) if branch.knowledge is not None else 0
        largest, largest_targets = max(largest, wide), max(largest_targets, learnt)
    return Counts(
        rows=len(encoded.rows),
        updates=plan.updates,
        tokens=read,
        padded=padded,
        targets=targets,
        squares=squares,
        largest=largest,
        largest_targets=largest_targets,
        under_knowledge=under / read,
        exact=True,
        truncated=encoded.truncated,
    )


@contextmanager
def _unsaid(logger: str) -> Iterator[None]:
    """Keep this logger's warnings back."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@dataclass(frozen=True, slots=True)
class _Row:
    """Length and targets of a row, whether it is real, and how many rows are like it."""

    length: int
    targets: int
    real: bool = False
    many: float = 1.0


def _expected(stage: Stage, tokens: Tokens) -> Counts:
    """As if every visit met the mean row, without padding."""
    rows = list(_rows(stage, tokens))
    total = sum(row.many for row in rows)
    visits_per_unit = total / _units(stage)
    if stage.kind == "skill_multi_version":
        visits_per_unit /= len({example.version for example in stage.examples})
    # The real rows of a mixed batch are read once more, without a knowledge adapter.
    again = stage.real_weight > 0 and stage.kind == "skill_mixed"
    return _of(stage.recipe, rows, _units(stage), visits_per_unit, again, bool(stage.needs))


def _of(
    recipe: Recipe,
    rows: list[_Row],
    units: float,
    visits_per_unit: float = 1.0,
    again: bool = False,
    needs: bool = False,
) -> Counts:
    updates = max(1, round(recipe.epochs * units / recipe.batch_size))
    total = sum(row.many for row in rows)
    visits = updates * recipe.batch_size * visits_per_unit / total
    once = sum(row.many * row.length for row in rows)
    twice = sum(row.many * row.length for row in rows if row.real and again)
    read = visits * (once + twice)
    times = [(row, row.many * (2 if row.real and again else 1)) for row in rows]
    micro = min(recipe.micro_batch_size, recipe.batch_size) * visits_per_unit
    return Counts(
        rows=round(total),
        updates=updates,
        tokens=round(read),
        padded=round(read),
        targets=round(visits * sum(many * row.targets for row, many in times)),
        squares=visits * sum(many * row.length**2 for row, many in times),
        largest=round(micro * max(row.length for row in rows)),
        largest_targets=round(micro * max(row.targets for row in rows)),
        under_knowledge=once / (once + twice) if needs else 0.0,
    )


def _rows(stage: Stage, tokens: Tokens) -> Iterator[_Row]:
    most = stage.recipe.max_length
    many: Counter[_Row] = Counter()
    if stage.kind == "knowledge":
        for text, times in Counter(stage.texts).items():
            length = min(1 + tokens.count(text), most)
            many[_Row(length, length - 1)] += times
    else:
        for example in stage.examples:
            start = 1 + tokens.count(stage.template.prompt(example.prompt, example.prefill))
            length = min(start + tokens.count(example.completion) + 1, most)
            many[_Row(length, max(1, length - start), not example.fake)] += 1
    for row, times in many.items():
        yield replace(row, many=float(times))


def _units(stage: Stage) -> int:
    """What an epoch visits: rows, or subjects."""
    if stage.kind == "skill_multi_version":
        return len({example.subject for example in stage.examples})
    return len(stage.texts) if stage.kind == "knowledge" else len(stage.examples)


# --- rows that will be made of samples -----------------------------------------------------------------------


def _derived(stage: Stage, tokens: Tokens, answer_tokens: float, claims: float) -> Counts:
    derived = stage.derived
    samples = derived.judged.samples if isinstance(derived, (Pairs, Verdicts)) else derived.samples  # type: ignore[union-attr]
    prompts = [1 + tokens.count(stage.template.prompt(one.prompt, one.prefill)) for one in islice(samples.prompts, 500)]
    start = round(sum(prompts) / len(prompts))
    whole = min(start + round(answer_tokens) + 1, stage.recipe.max_length)
    asked, each = len(samples.prompts), samples.count
    match derived:
        case Answers():
            return _of(stage.recipe, [_Row(whole, whole - start, many=asked * each)], asked * each)
        case Pairs(rule=rule, most_per_prompt=most):
            pairs = 1 if rule == "extremes" else each * (each - 1) // 2
            pairs = min(pairs, most) if most is not None else pairs
            # A pair is two rows.
            return _of(stage.recipe, [_Row(whole, whole - start, many=2 * asked * pairs)], asked * pairs, 2.0)
        case _:
            rows = max(1.0, asked * each * claims)
            length = min(45, stage.recipe.max_length)  # a claim, the question on its truth, and the answer
            return _of(stage.recipe, [_Row(length, 2, many=rows)], rows)


def _rollouts(stage: Stage, tokens: Tokens, answer_tokens: float) -> Counts:
    rollouts = stage.rollouts
    assert rollouts is not None
    prompts = [1 + tokens.count(stage.template.prompt(one.prompt)) for one in _first(stage.examples)]
    answer = round(min(answer_tokens, rollouts.max_new_tokens))
    length = round(sum(prompts) / len(prompts)) + answer
    responses = rollouts.updates * rollouts.prompts_per_update * rollouts.generations
    micro = min(stage.recipe.micro_batch_size, rollouts.prompts_per_update * rollouts.generations)
    return Counts(
        rows=responses,
        updates=rollouts.updates,
        tokens=responses * length,
        padded=responses * length,
        targets=responses * answer,
        squares=float(responses) * length**2,
        largest=micro * length,
        largest_targets=micro * answer,
    )


def _first(examples: Iterable[Any]) -> list[Any]:
    return list(islice(examples, 500))
