"""Does the paper's order hold here? The pairs that it orders, the test of each, and a few sentences.

Pure functions: what is expected comes from `published.json` and the short list `DECLARED`, the tests are paired on
the same items (`metrics.comparison.judge`), and the words follow from the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from harness import published
from harness.metrics.comparison import judge
from harness.metrics.summary import Expectation, Metric, OrderedPair, Ordering, S
from harness.reports.grids import NO_SHARES
from harness.stats import wilson

#: The method that the paper puts first in every column of its main table.
CHAMPION = "prereq_tune"
BASE = "base"
#: A row stays close to the base where the whole 95 % interval of its difference lies within this share; ours.
CLOSE = 0.05
#: Tables that make no ranking but a point; the pairs that make it, as (higher, lower, metric, lower's metric).
#: Table 2: over adapter 1 the answers of version 1, over adapter 2 those of version 2, and neither without.
#: Table 3: fine-tuning on fictitious answers memorises them, prerequisite learning does not.
DECLARED: Mapping[str, tuple[tuple[str, str, str, str], ...]] = {
    "table2_grounding": (
        ("prereq_know1", "prereq_know1", "accuracy[V1]", "accuracy[V2]"),
        ("prereq_know2", "prereq_know2", "accuracy[V2]", "accuracy[V1]"),
        ("prereq_know1", "prereq_know2", "accuracy[V1]", ""),
        ("prereq_know2", "prereq_know1", "accuracy[V2]", ""),
        ("prereq_know1", "prereq_tune", "accuracy[V1]", ""),
        ("prereq_know2", "prereq_tune", "accuracy[V2]", ""),
        ("prereq_know1", "sft", "accuracy[V1]", ""),
        ("prereq_know2", "sft", "accuracy[V2]", ""),
    ),
    "table3_memorization": (
        ("sft_fictitious", "prereq_tune", "accuracy", ""),
        ("sft_fictitious", "sft", "accuracy", ""),
        ("sft_fictitious", "prereq_tune", "memorised_entities", ""),
        ("sft_fictitious", "sft", "memorised_entities", ""),
    ),
}


def expectations(task: tuple[str, ...], models: Sequence[str], metric: str) -> tuple[Expectation, ...]:
    """The pairs of these models that the paper orders in this metric, most telling first.

    `task` is what `Task.published` is. For its main table: PREREQ-TUNE over every other method, and each method
    over the next lower one. For the other tables the pairs of `DECLARED`, in whatever metric they have. A pair
    with equal figures or an empty cell is not ordered.
    """
    if not task:
        return ()
    figures = {model: published.beside(task, model) for model in models}
    if task[0] in DECLARED:
        declared = [
            Expectation(higher, lower, m, _gap(figures, higher, m, lower, other or m), other)
            for higher, lower, m, other in DECLARED[task[0]]
            if higher in figures and lower in figures
        ]
        return tuple(e for e in declared if e.printed)
    # What the paper prints beside accuracy is accuracy; another headline has no order of its own.
    printed = {model: found["accuracy"] for model, found in figures.items() if "accuracy" in found}
    return by_figures(printed, metric)


def by_figures(printed: Mapping[str, float], metric: str) -> tuple[Expectation, ...]:
    """The pairs that a column of figures orders: PREREQ-TUNE over every other row, and each row over the next lower.

    `printed` is in points, by model. A pair with equal figures is not ordered.
    """
    ordered = sorted(printed, key=lambda model: -printed[model])
    over = [(CHAMPION, model) for model in ordered if model != CHAMPION] if CHAMPION in printed else []
    pairs = dict.fromkeys([*over, *pairwise(ordered)])
    found = [Expectation(a, b, metric, round(printed[a] - printed[b], 2)) for a, b in pairs]
    return tuple(e for e in found if e.printed is not None and e.printed > 0)


def order(
    task: tuple[str, ...],
    scores: Mapping[str, Sequence[S]],
    metrics: Sequence[Metric[S]],
    headline: str,
    *,
    ranked: bool = True,
    base: str = BASE,
) -> Ordering | None:
    """Test the paper's pairs, the rows that it has not, and the base; None with fewer than two models.

    `scores` is by model. `ranked` says that a higher score is better, so that something can beat the champion.
    Each of the three lists has a Holm correction of its own.
    """
    models, known = list(scores), {metric.name for metric in metrics}
    if len(models) < 2:
        return None
    expected = expectations(task, models, headline)
    paper: list[Expectation] = [e for e in expected if {e.metric, e.lower_metric or e.metric} <= known]
    tested = {(e.higher, e.lower) for e in paper}
    unprinted: list[Expectation] = []
    if ranked and CHAMPION in models:
        others = [m for m in models if m not in (CHAMPION, base) and (CHAMPION, m) not in tested]
        unprinted = [Expectation(CHAMPION, model, headline) for model in others]
    measured = dict.fromkeys([headline, *(e.metric for e in paper)])
    against = [Expectation(m, base, name) for name in measured for m in models if m != base] if base in models else []
    by_paper, beside, from_base = (judge(pairs, scores, metrics) for pairs in (paper, unprinted, against))
    named = {model: published.label(task, model) for model in models}
    said = words(by_paper, beside, from_base, ranked=ranked and CHAMPION in models, named=named)
    return Ordering(by_paper, beside, from_base, said, details(by_paper, from_base, named))


# --- words ---------------------------------------------------------------------------------------------------


def words(
    paper: Sequence[OrderedPair],
    unprinted: Sequence[OrderedPair],
    base: Sequence[OrderedPair],
    *,
    ranked: bool,
    named: Mapping[str, str] | None = None,
) -> str:
    """The verdicts in a few sentences: what beats the champion, the paper's order, and who stays near the base."""
    named = named or {}
    said = [_champion([*paper, *unprinted, *base], named)] if ranked else []
    said += [_paper(paper, named), *_near_base(base, named, ranked=ranked)]
    return " ".join(sentence for sentence in said if sentence)


def details(paper: Sequence[OrderedPair], base: Sequence[OrderedPair], named: Mapping[str, str] | None = None) -> str:
    """The pairs that hold and those that cannot be told apart by name, and how far from the base the latter may be."""
    named = named or {}
    said = []
    if held := [p for p in paper if p.verdict == "holds"]:
        listed = "; ".join(_pair(p, named) for p in held)
        said.append(f"Holds: {listed} (p {_bound([p.p_holm or 0.0 for p in held])}).")
    if undecided := [p for p in paper if p.verdict == "undecided"]:
        listed = "; ".join(_pair(p, named, sign="~") for p in undecided)
        least = min(1.0 if p.p_holm is None else p.p_holm for p in undecided)
        said.append(f"Not told apart: {listed} (p {'=' if len(undecided) == 1 else 'at least'} {least:.2f}).")
        if small := sum(_out_of_reach(p) for p in undecided):
            said.append(f"In {small} of these the paper's own difference is smaller than what could be found here.")
    near, open_ = _undecided(base)
    if near:
        pairs = [p for group in near.values() for p in group]
        ends = [end for p in pairs for end in (p.difference.low, p.difference.high) if end is not None]
        within = f"intervals within {100 * min(ends):+.1f} and {100 * max(ends):+.1f}"
        said.append(f"From the base: differences of {_from_base(pairs)} points in what stays close ({within}).")
    if open_:
        pairs = [p for group in open_.values() for p in group]
        text = f"From the base: differences of {_from_base(pairs)} points in what cannot be told apart"
        if missed := [p.detectable_holm for p in pairs if p.detectable_holm]:
            below = f"{_range(missed, '.1f')} points"
            text += f", where true ones below {below} would often go unnoticed (power below 80 %, after Holm)"
        said.append(f"{text}.")
    return " ".join(said)


def _from_base(pairs: Sequence[OrderedPair]) -> str:
    return _range([p.difference.value for p in pairs if p.difference.value is not None], "+.1f")


def _out_of_reach(pair: OrderedPair) -> bool:
    """Whether a difference as large as the paper's would often go unnoticed here (power below 80 %, after Holm)."""
    printed, detectable = pair.expected.printed, pair.detectable_holm
    return printed is not None and detectable is not None and printed < 100 * detectable


def _champion(pairs: Sequence[OrderedPair], named: Mapping[str, str]) -> str:
    beaten, level = [], []
    for pair in pairs:
        sides = (pair.expected.higher, pair.expected.lower)
        if CHAMPION not in sides:
            continue
        first = sides[0] == CHAMPION
        other = named.get(sides[first], sides[first])
        if pair.verdict == ("opposite" if first else "holds"):
            beaten.append(f"{other} ({_figures(pair, turned=first)})")
        elif pair.verdict == "undecided":
            level.append(other)
    if beaten:
        return f"Better than {CHAMPION} here: {'; '.join(beaten)}."
    return f"Nothing is significantly better than {CHAMPION} here" + (
        f"; {_list(level)} cannot be told apart from it." if level else "."
    )


def _paper(pairs: Sequence[OrderedPair], named: Mapping[str, str]) -> str:
    if not pairs:
        return "The paper prints no order of these rows."
    verdicts = [p.verdict for p in pairs]
    held, opposite, open_ = (verdicts.count(verdict) for verdict in ("holds", "opposite", "undecided"))
    if held == len(pairs):
        verdict = "The paper's order holds here"
    elif opposite:
        verdict = "The paper's order does not hold here throughout"
    elif held:
        verdict = "The paper's order holds here as far as it can be told"
    else:
        verdict = "Whether the paper's order holds cannot be told here"
    test = (
        f"{verdict}: of {_count(len(pairs), 'pair')} that it orders, {held} {'holds' if held == 1 else 'hold'}, "
        f"{opposite} {'is' if opposite == 1 else 'are'} the other way and {open_} cannot be told apart "
        f"({_method(pairs)}, Holm's correction over the {_count(len(pairs), 'pair')}, 5 %)."
    )
    turned = [f"{_pair(p, named, turned=True)} ({_figures(p, turned=True)})" for p in pairs if p.verdict == "opposite"]
    return f"{test} The other way: {'; '.join(turned)}." if turned else test


def _near_base(pairs: Sequence[OrderedPair], named: Mapping[str, str], *, ranked: bool) -> list[str]:
    near, open_ = ([named.get(model, model) for model in group] for group in _undecided(pairs))
    said = []
    if near:
        verb = "stays" if len(near) == 1 else "stay"
        within = f"the whole interval of the difference within {100 * CLOSE:g} points"
        said.append(f"{_list(near)} {verb} close to the base: not told apart from it, {within}.")
    if open_:
        said.append(f"{_list(open_)} cannot be told apart from the base.")
    below = list(dict.fromkeys(p.expected.higher for p in pairs if p.verdict == "opposite"))
    if below and ranked:
        said.append(f"Below the base: {_list([named.get(m, m) for m in below])}.")
    return said


_Groups = dict[str, list[OrderedPair]]


def _undecided(pairs: Sequence[OrderedPair]) -> tuple[_Groups, _Groups]:
    """The models that cannot be told apart from the base in anything, with their pairs: the close ones, and others.

    Models without a difference (too few items) are in neither.
    """
    by_model: _Groups = {}
    for pair in pairs:
        by_model.setdefault(pair.expected.higher, []).append(pair)
    near: _Groups = {}
    open_: _Groups = {}
    for model, group in by_model.items():
        if all(p.verdict == "undecided" and p.difference.low is not None for p in group):
            (near if all(map(_close, group)) else open_)[model] = group
    return near, open_


def _close(pair: OrderedPair) -> bool:
    """Whether a difference of shares is small, whatever of its interval is true."""
    low, high = pair.difference.low, pair.difference.high
    if pair.expected.metric in NO_SHARES or low is None or high is None:
        return False
    if pair.difference.detectable is None:
        # Nothing varies, and the interval is a point: how often others differ shows in how many there are of these.
        return wilson(0, pair.difference.clusters)[1] <= CLOSE
    return low >= -CLOSE and high <= CLOSE


def _pair(pair: OrderedPair, named: Mapping[str, str], *, sign: str = ">", turned: bool = False) -> str:
    e = pair.expected
    higher, lower = named.get(e.higher, e.higher), named.get(e.lower, e.lower)
    what, other = _what(e.metric), _what(e.lower_metric or e.metric)
    if e.higher == e.lower:
        left, right, before = what, other, f"{higher}: "
    else:
        left, right, before = higher, lower, f"{what}: " if what else ""
    return f"{before}{right} {sign} {left}" if turned else f"{before}{left} {sign} {right}"


def _what(metric: str) -> str:
    """What a pair has to say of its metric: the version asked for, or another measure than accuracy."""
    if metric.startswith("accuracy["):
        return metric[len("accuracy[") : -1]
    return "" if metric == "accuracy" else metric.replace("_", " ")


def _figures(pair: OrderedPair, *, turned: bool = False) -> str:
    """Difference (lower minus higher if `turned`), interval and corrected p, in points."""
    d = pair.difference
    if d.value is None or d.low is None or d.high is None or pair.p_holm is None:
        return "too few items"
    value, low, high = (-d.value, -d.high, -d.low) if turned else (d.value, d.low, d.high)
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], p {_bound([pair.p_holm], single=True)}"


def _bound(ps: Sequence[float], *, single: bool = False) -> str:
    if max(ps) < 0.001:
        return "< 0.001"
    return f"{'=' if single or len(ps) == 1 else 'at most'} {max(ps):.3f}"


def _range(values: Sequence[float], form: str) -> str:
    least, most = format(100 * min(values), form), format(100 * max(values), form)
    return least if least == most else f"{least} to {most}"


def _method(pairs: Sequence[OrderedPair]) -> str:
    worlds = max(p.difference.worlds for p in pairs)
    if worlds > 1:
        return f"paired on the same items within each of {worlds} worlds, t over worlds or over entities, the weaker"
    return "paired on the same items, bootstrap over entities"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _gap(figures: Mapping[str, Mapping[str, float]], higher: str, metric: str, lower: str, other: str) -> float | None:
    """The printed difference of two cells, in points; None where one is empty."""
    if metric not in figures[higher] or other not in figures[lower]:
        return None
    return round(figures[higher][metric] - figures[lower][other], 2)
