"""Paired differences that hang on few answers, of entities with unequally many questions: width, level, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from harness import resampling, stats
from harness.stats import Difference, Sample


def answers(
    rng: np.random.Generator, entities: int, discordant: float, better: float, *, together: bool = False
) -> tuple[Sample, Sample]:
    """Two models right on the same answers but for about `discordant` ones, of which a share `better` is the first's.

    Entities have 1 to some 30 questions, 6.6 on average. With `together` some entities have most of what differs.
    """
    sizes = rng.geometric(1 / 6.6, entities)
    entity = np.repeat(np.arange(entities), sizes)
    odd = rng.gamma(0.5, 2.0, entities)[entity] if together else np.ones(entity.size)
    differs = rng.random(entity.size) < odd * discordant / (6.6 * entities)
    first = np.where(differs, rng.random(entity.size) < better, rng.random(entity.size) < 0.5).astype(float)
    second = np.where(differs, 1 - first, first)
    names = [str(code) for code in entity]
    return Sample.of(list(first), None, names), Sample.of(list(second), None, names)


def margin(found: Difference) -> float:
    assert found.value is not None and found.high is not None
    return found.high - found.value


@pytest.mark.parametrize(("entities", "discordant"), [(270, 1), (270, 2), (9, 1)])
def test_few_discordant_answers_give_an_interval_of_about_the_t_tests_width(entities: int, discordant: int) -> None:
    # Without a bound on the spread of a resample the first is ten times as wide.
    sizes = 1 + np.random.default_rng(30).geometric(1 / 5.6, entities)
    names = [str(code) for code in np.repeat(np.arange(entities), sizes)]
    second = np.zeros(len(names))
    first = second.copy()
    first[np.cumsum(sizes)[:discordant]] = 1.0
    pair = Sample.of(list(first), None, names), Sample.of(list(second), None, names)
    boot, t = stats.paired(*pair), stats.paired(*pair, resamples=0)
    assert boot.value == t.value and 0.95 * margin(t) <= margin(boot) <= 1.6 * margin(t)
    assert boot.p is not None and boot.p > 0.1


@pytest.mark.parametrize(("entities", "discordant"), [(20, 4), (60, 2), (60, 4), (60, 8)])
@pytest.mark.parametrize("together", [False, True])
def test_the_level_holds_with_few_discordant_answers(entities: int, discordant: int, together: bool) -> None:
    rng = np.random.default_rng([31, entities, discordant, together])
    rejected = 0
    for _ in range(300):
        got = stats.paired(*answers(rng, entities, discordant, 0.5, together=together), resamples=399)
        assert got.p is not None and got.low is not None and got.high is not None
        rejected += got.p < 0.05
        assert (got.p < 0.05) <= (not got.low <= 0 <= got.high)
    # 300 draws at 5 %: the standard error is 1.3 points. With so few answers the test is cautious, never bold.
    assert rejected / 300 <= 0.08


@pytest.mark.parametrize(("entities", "discordant", "better"), [(60, 8, 0.8), (60, 8, 1.0), (120, 16, 0.9)])
def test_intervals_of_few_discordant_answers_cover_better_than_those_of_t(
    entities: int, discordant: int, better: float
) -> None:
    rng = np.random.default_rng([32, entities, discordant, round(10 * better)])
    true = discordant / (6.6 * entities) * (2 * better - 1)
    covered, by_t, widths = 0, 0, []
    for _ in range(300):
        pair = answers(rng, entities, discordant, better)
        boot, t = stats.paired(*pair, resamples=399), stats.paired(*pair, resamples=0)
        assert boot.value is not None
        off = abs(boot.value - true)
        covered += off <= margin(boot)
        by_t += off <= margin(t)
        widths.append(margin(boot) / margin(t))
    # So few answers, all to one side, are skewed: no symmetric interval reaches 95 %.
    assert covered / 300 >= 0.915 and covered >= by_t
    assert np.median(widths) <= 1.3 and max(widths) <= 1.7


def test_differences_that_many_answers_carry_do_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(33)
    normal = [Sample.of(list(rng.normal(shift, 0.2, 80))) for shift in (0.1, 0.0)]
    right = answers(rng, 270, 60, 0.6)
    for pair in (normal, right):
        bounded = stats.paired(*pair)
        with monkeypatch.context() as patch:
            patch.setattr(resampling, "_LEAST_SPREAD", 1e-6)
            assert stats.paired(*pair) == bounded
