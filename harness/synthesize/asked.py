"""What was asked for beside what was made, and why that is less: printed, and kept in the manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harness.synthesize.records import TaskSet
from harness.synthesize.rules import Sizes
from harness.synthesize.wordings import wordings
from train.rows import KnowledgeFormat


@dataclass(frozen=True, slots=True)
class Count:
    """How many of `what` were asked for by `option` and made; `reason` is empty where none are missing."""

    what: str
    option: str
    asked: int
    made: int
    reason: str = ""

    def line(self, task: str) -> str:
        """In one line what is missing."""
        return f"{task}, {self.option}: asked for {self.asked:,} {self.what}, made {self.made:,}: {self.reason}"


def counts(made: TaskSet, sizes: Sizes, *, by_rules: bool) -> tuple[Count, ...]:
    """What was asked for and made of one task: subjects, real rows, and the texts of the facts that were made.

    Long answers have neither real rows with texts nor unseen subjects, so these are not counted there.
    """
    subjects = {row.subject for row in made.rows if row.fake}
    unseen = made.task == "grounding"
    found = [
        Count("unseen subjects", "--held-out", sizes.held_out, len(subjects), made.limits.get("entities", ""))
        if unseen
        else Count("fictitious subjects", "--entities", sizes.entities, len(subjects), made.limits.get("entities", ""))
    ]
    short = made.task in ("popqa", "hotpotqa", "grounding")
    if short and not unseen:
        real = sum(not row.fake for row in made.rows)
        found.append(Count("real rows", "--real", sizes.real, real, made.limits.get("real", "")))
    facts = {(fact, row.fake, row.version, row.use) for row in made.rows for fact in row.facts}
    groups = {(fact.subject, *where) for fact, *where in facts}
    told = Counter(text.format for text in made.texts if (text.subject, text.fake, text.version, text.use) in groups)
    # A passage of the rules for questions says one fact in a wording of its own; any other tells all of its subject's.
    of_facts = by_rules and short
    fewest = min((len(wordings()[fact.relation].named) for fact, *_ in facts), default=0) if by_rules else 0
    alike = "some came out alike" if by_rules else "the model wrote fewer, or some alike"

    def texts(what: KnowledgeFormat, each: int, of: int, limited: bool) -> Count:
        why = f"a fact has {fewest} wordings" if limited and each > fewest else alike
        return Count(f"{what}s", "--paraphrases", each * of, told[what], why)

    found.append(texts("statement", sizes.paraphrases, len(facts), by_rules))
    found.append(texts("passage", sizes.passages, len(facts) if of_facts else len(groups), of_facts))
    return tuple(one if one.made < one.asked else Count(one.what, one.option, one.asked, one.made) for one in found)


def reasons(left_out: Counter[str]) -> str:
    """Why replies could not be used, with their numbers."""
    return "; ".join(f"{count} times {reason}" for reason, count in sorted(left_out.items()))
