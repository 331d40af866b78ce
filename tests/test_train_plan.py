"""Plans: which rows meet which frozen adapters, in which order and with which weight."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from train.encode import Encoded
from train.knowledge import plan_knowledge
from train.plan import Plan, StageError, micro_batches_per_update
from train.rows import Example
from train.sft import plan_sft
from train.skill import plan_mixed, plan_multi_version
from train.stages import Recipe, Stage

BASE = "base"
RECIPE = Recipe(epochs=6, batch_size=8, micro_batch_size=4)
KNOWN = "53c6e896d83be2153725e7cd49fcb7e36d4c390e15aca684646b011eba1f82b2"


def knowledge(format_: str, fake: bool, version: int | None) -> Stage:
    return Stage(
        name=f"{format_}-{fake}-{version}", kind="knowledge", recipe=RECIPE, seed=0, texts=("x",),
        format=format_, fake=fake, version=version,  # type: ignore[arg-type]
    )  # fmt: skip


def encoded(examples: tuple[Example, ...]) -> list[Encoded]:
    """Sequences of different lengths and numbers of targets."""
    return [Encoded(tuple(range(5 + i % 4)), trained_from=2 + i % 2) for i in range(len(examples))]


def multi_version_stage(versions: int = 11, subjects: int = 12, needs: bool = True) -> Stage:
    return Stage(
        name="skill",
        kind="skill_multi_version",
        recipe=RECIPE,
        seed=3,
        examples=tuple(
            Example("q", "a", f"s{s}", fake=True, version=v) for s in range(subjects) for v in range(versions)
        ),
        needs=tuple(knowledge(f, True, v) for v in range(versions) for f in ("statement", "passage")) if needs else (),
    )


def mixed_stage(needs: bool = True) -> Stage:
    rows = [Example("q", "a", f"f{i}", fake=True) for i in range(10)] + [Example("q", "a", f"r{i}") for i in range(10)]
    return Stage(
        name="skill", kind="skill_mixed", recipe=RECIPE, seed=5, examples=tuple(rows), real_weight=0.5,
        needs=tuple(knowledge(f, fake, None) for f in ("statement", "passage") for fake in (True, False))
        if needs else (),
    )  # fmt: skip


def rows_read(plan: Plan) -> list[tuple[int, ...]]:
    return [branch.rows for batch in plan.micro_batches for branch in batch]


def describe(stage: Stage) -> dict[str | None, Stage]:
    return {need.fingerprint(BASE): need for need in stage.needs}


def test_a_visit_shows_one_version_of_a_subject_under_an_adapter_of_that_version() -> None:
    stage = multi_version_stage()
    plan = plan_multi_version(stage, encoded(stage.examples), BASE)
    needs = describe(stage)
    versions = Counter()
    for batch in plan.micro_batches:
        (branch,) = batch
        shown = [stage.examples[i] for i in branch.rows]
        assert len({row.version for row in shown}) == 1
        assert needs[branch.knowledge].version == shown[0].version
        assert len({row.subject for row in shown}) == len(shown) == 4
        versions[shown[0].version] += 1
    # 12 subjects, 6 epochs, batches of 8: nine updates in two micro-batches.
    assert plan.updates == 9 and plan.per_update == 2 and len(versions) > 5


def test_formats_alternate_and_every_update_has_both_equally_often() -> None:
    for stage, plan_it in ((multi_version_stage(), plan_multi_version), (mixed_stage(), plan_mixed)):
        plan = plan_it(stage, encoded(stage.examples), BASE)
        needs = describe(stage)
        formats = [
            {needs[b.knowledge].format for b in batch if b.knowledge is not None} for batch in plan.micro_batches
        ]
        assert all(len(of_batch) == 1 for of_batch in formats)
        flat = [next(iter(of_batch)) for of_batch in formats]
        assert all(a != b for a, b in zip(flat[::2], flat[1::2], strict=True))
        assert len(set(flat[::2])) == 1


def test_an_odd_number_of_micro_batches_is_made_even_for_alternation() -> None:
    assert micro_batches_per_update(Recipe(batch_size=24, micro_batch_size=24), even=True) == 2
    assert micro_batches_per_update(Recipe(batch_size=24, micro_batch_size=24)) == 1
    assert micro_batches_per_update(Recipe(batch_size=24, micro_batch_size=10), even=True) == 4
    assert micro_batches_per_update(Recipe(batch_size=1, micro_batch_size=1), even=True) == 1


@pytest.mark.parametrize("make", [multi_version_stage, mixed_stage])
def test_the_control_without_knowledge_reads_the_same_rows_in_the_same_order(make: object) -> None:
    with_needs, without = make(needs=True), make(needs=False)  # type: ignore[operator]
    plan_it = plan_mixed if with_needs.kind == "skill_mixed" else plan_multi_version
    rows = encoded(with_needs.examples)
    treated, control = plan_it(with_needs, rows, BASE), plan_it(without, rows, BASE)
    assert rows_read(treated) == rows_read(control)
    strip = [[replace(b, knowledge=None) for b in batch] for batch in treated.micro_batches]
    assert strip == [list(batch) for batch in control.micro_batches]


def test_mixed_rows_meet_the_adapters_of_their_kind_and_real_rows_come_again_without() -> None:
    stage = mixed_stage()
    rows = encoded(stage.examples)
    plan = plan_mixed(stage, rows, BASE)
    needs = describe(stage)
    for start in range(0, len(plan.micro_batches), plan.per_update):
        branches = [b for batch in plan.micro_batches[start : start + plan.per_update] for b in batch]
        joint = [b for b in branches if b.knowledge is not None]
        alone = [b for b in branches if b.knowledge is None]
        assert sorted(i for b in joint for i in b.rows if not stage.examples[i].fake) == sorted(
            i for b in alone for i in b.rows
        )
        for branch in joint:
            assert {stage.examples[i].fake for i in branch.rows} == {needs[branch.knowledge].fake}
        # Each term is a token-mean over the whole update: its weights add up to 1 and to lambda.
        assert sum(b.weight * rows[i].targets for b in joint for i in b.rows) == pytest.approx(1)
        assert sum(b.weight * rows[i].targets for b in alone for i in b.rows) == pytest.approx(stage.real_weight)


def test_every_row_is_read_once_an_epoch() -> None:
    examples = tuple(Example("q", "a", f"r{i}") for i in range(16))
    stage = Stage(name="sft", kind="sft", recipe=RECIPE, seed=1, examples=examples)
    rows = encoded(examples)
    for plan in (plan_sft(stage, rows), plan_knowledge(stage, rows)):
        assert plan.updates == 12
        assert Counter(i for read in rows_read(plan) for i in read) == dict.fromkeys(range(16), 6)


def test_knowledge_updates_hold_rows_of_similar_length() -> None:
    rows = [Encoded(tuple(range(2 + i)), 0) for i in range(64)]
    stage = Stage(name="k", kind="knowledge", recipe=replace(RECIPE, epochs=1), seed=1, texts=("x",) * 64)
    plan = plan_knowledge(stage, rows)
    for read in rows_read(plan):
        assert max(read) - min(read) == len(read) - 1
    order = [min(read) for read in rows_read(plan)]
    assert order != sorted(order)


def test_draws_depend_on_the_seed_and_on_nothing_else() -> None:
    stage = multi_version_stage()
    rows = encoded(stage.examples)
    first = plan_multi_version(stage, rows, BASE)
    assert first == plan_multi_version(stage, rows, BASE)
    assert first != plan_multi_version(replace(stage, seed=4), rows, BASE)
    # A longer run begins like a shorter one.
    longer = plan_multi_version(replace(stage, recipe=replace(RECIPE, epochs=12)), rows, BASE)
    assert longer.micro_batches[: len(first.micro_batches)] == first.micro_batches


def test_missing_knowledge_and_missing_versions_are_refused() -> None:
    stage = multi_version_stage(versions=2)
    lacking = replace(stage, needs=stage.needs[:2])
    with pytest.raises(StageError, match="no knowledge adapter for fictitious rows of version 1"):
        plan_multi_version(lacking, encoded(stage.examples), BASE)
    with pytest.raises(StageError, match=r"no row of version \[1\]"):
        plan_multi_version(replace(stage, examples=stage.examples[:-1]), encoded(stage.examples), BASE)
    with pytest.raises(StageError, match="no fictitious row"):
        plan_multi_version(replace(stage, examples=(Example("q", "a", "real"),)), encoded(stage.examples), BASE)
    mixed = mixed_stage()
    with pytest.raises(StageError, match="no knowledge adapter for real rows"):
        plan_mixed(replace(mixed, needs=tuple(n for n in mixed.needs if n.fake)), encoded(mixed.examples), BASE)


def test_skill_rows_of_similar_length_share_a_micro_batch_where_the_recipe_says_so() -> None:
    def padding(plan: Plan, rows: list[Encoded]) -> int:
        lengths = [[len(rows[i].ids) for i in read] for read in rows_read(plan)]
        return sum(max(of_batch) * len(of_batch) - sum(of_batch) for of_batch in lengths)

    for stage, plan_it in ((multi_version_stage(versions=2), plan_multi_version), (mixed_stage(), plan_mixed)):
        stage = replace(stage, recipe=replace(RECIPE, micro_batch_size=2))
        grouped = replace(stage, recipe=replace(stage.recipe, group_by_length=True))
        rows = [Encoded(tuple(range(4 + 7 * i % 40)), trained_from=2) for i in range(len(stage.examples))]
        plain, sorted_ = plan_it(stage, rows, BASE), plan_it(grouped, rows, BASE)
        assert padding(sorted_, rows) < 0.8 * padding(plain, rows)
        assert plain.per_update == sorted_.per_update and plain.updates == sorted_.updates
        for start in range(0, len(plain.micro_batches), plain.per_update):
            # The same subjects make an update, and adapters are drawn by position as before.
            both = [plan.micro_batches[start : start + plan.per_update] for plan in (plain, sorted_)]
            read = [{stage.examples[i].subject for batch in p for b in batch for i in b.rows} for p in both]
            assert read[0] == read[1]


def test_fields_that_came_later_leave_older_addresses_alone() -> None:
    stage = Stage(name="k", kind="knowledge", recipe=Recipe(), seed=0, texts=("x",))
    assert stage.fingerprint(BASE) == KNOWN
    assert replace(stage, recipe=Recipe(group_by_length=True)).fingerprint(BASE) != KNOWN
