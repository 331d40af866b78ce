"""How to read a leaderboard: the sentences that stand with its tables."""

from __future__ import annotations

from harness import published
from harness.metrics.summary import RunSummary
from harness.reports.ordering import CLOSE


def comparison(run: RunSummary) -> str:
    """On what terms the models are compared, in words; empty where the run does not say."""
    named = str(run.metadata.get("comparison", ""))
    return f"Comparison: {named}. {_TERMS.get(named, '')}".strip() if named else ""


_TERMS = {
    "fixed recipe": "One configuration for all methods, decided beforehand.",
    "equal tuning": "Every method had the same budget: a grid of learning rates and epochs, chosen on validation "
    "entities.",
    "equal updates": "Every supervised stage made as many optimiser updates as PREREQ-TUNE's skill stage; DPO and RL "
    "stages as their recipes say.",
}


def reading(run: RunSummary) -> list[str]:
    """How to read the tables: intervals, denominators, abstentions, ranks, the paper's column."""
    headlines = [e[task.headline] for task in run.tasks for e in task.models.values() if task.headline in e]
    worlds = max((estimate.worlds for estimate in headlines), default=1)
    families = {task.family for task in run.tasks}
    lines = [_SEVERAL_WORLDS.format(worlds=worlds, df=worlds - 1) if worlds > 1 else _ONE_WORLD]
    lines += [_LONGFORM] if "longform" in families else []
    lines += [_SHORT_QA] if "short_qa" in families else []
    lines += [_MEMORISED] if any(t.published[:1] == ("table3_memorization",) for t in run.tasks) else []
    lines += [_RANK] if any(task.ranks for task in run.tasks) else []
    if any(task.ordering for task in run.tasks):
        lines.append(_ORDERING)
    lines += [_TWO_FAMILIES] if any(task.ranks and task.ordering for task in run.tasks) else []
    if any(task.published for task in run.tasks):
        lines.append(_PAPER)
    return lines


_SEVERAL_WORLDS = (
    "Scores are means over {worlds} worlds, each counting the same. Intervals are 95 %, the wider of two: "
    "the t-interval over worlds ({df} degrees of freedom; it speaks of further worlds like these, and is "
    "wide with few) and the one over entities given these worlds. Paired differences are taken within each "
    "world, and are what tells models apart."
)
_ONE_WORLD = (
    "Intervals are 95 %, clustered by entity: they speak of further entities like these, not of another "
    "base model, another training seed or other data. Shares have Wilson's interval at the effective "
    "sample size, counts a t-interval."
)
_LONGFORM = (
    "Accuracy of a long answer is the supported share of its judged claims; the headline is the mean over "
    "answers. Claims whose verdict could not be read (unparsed) or obtained (errors) are in no accuracy "
    "and have rates of their own. Abstentions are left out of the headline and of micro accuracy, and "
    "count as 0 in “abstentions as 0” and in F1@K. The area is that under the accuracy of the first k claims, over "
    "the range of k that half of every model's answers reach, divided by the range: it compares models at equal "
    "length. ρ is Spearman's correlation of the number of claims with the entity's popularity."
)
_SHORT_QA = (
    "Accuracy of short answers is alias containment, as the reference implementation computes it; token "
    "match asks for whole tokens and reads the first answer only, exact match and F1 are SQuAD's. "
    "Abstentions count as wrong."
)
_RANK = (
    "Rank is 1 + the number of models that are significantly better (paired t-tests, 5 %, Holm's correction over all "
    "pairs of rows): models that cannot be told apart from the best share rank 1. A row that lacks worlds has no rank "
    "and takes no part in the others'."
)
#: Where both stand in a table.
_TWO_FAMILIES = (
    "Ranks and the paper's order are tests of two families. That of the ranks holds more pairs, and so asks for more "
    "of each: two rows may share a rank although the pair test tells them apart."
)
_ORDERING = (
    "The paper's order is tested pair by pair: its best row over each other one, each row over the next, or the "
    "pairs that make a table's point. Differences are paired on the same items; a pair holds, or is the other way, "
    "when it is significant at 5 % after Holm's correction over the pairs that the paper orders. The pairs with rows "
    "that the paper has not, and those with the base, have corrections of their own. Not being told apart is no proof "
    "of being equal: what could have been found stands beside it, at the strictest step of the correction. A row stays "
    f"close to the base where the whole interval of the difference lies within {100 * CLOSE:g} points (our margin)."
)
_MEMORISED = (
    "An entity is memorised when every question about its fictitious facts is answered right; the rule is ours. The "
    "paper's column counts entities of memorised biographies, by a rule that was never published, so only the order "
    "can be compared."
)
_PAPER = (
    f"{published.LABEL} is another base model on other data, shown for its order, not its level. {published.source()}"
)
