"""Whether what was made can be used: every check counts what it looked at and what it found wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from factscore_mod.knowledge_format import title_key
from harness.synthesize.records import Fact, TaskSet, states
from harness.synthesize.rules import contradict

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One check: `looked` things of a sort, of which those in `wrong` failed."""

    name: str
    looked: int
    wrong: tuple[str, ...]

    def line(self) -> str:
        """The check in one line, with the first few that failed."""
        if not self.wrong:
            return f"{self.name}: {self.looked:,} looked at, none wrong"
        shown = "; ".join(self.wrong[:SHOWN]) + ("; ..." if len(self.wrong) > SHOWN else "")
        return f"{self.name}: {len(self.wrong):,} of {self.looked:,} wrong: {shown}"


def check(sets: Sequence[TaskSet], known: Iterable[str], knowledge: Path | None) -> tuple[Check, ...]:
    """All checks. `known` are the names of the source, `knowledge` a knowledge source to look subjects up in."""
    return (
        _collisions(sets, known, knowledge),
        _apart(sets),
        _contradictions(sets),
        _documented(sets),
        _duplicates(sets),
    )


def _collisions(sets: Sequence[TaskSet], known: Iterable[str], knowledge: Path | None) -> Check:
    """No fictitious subject is a subject, answer, alias or title of the source, or a title of a knowledge source."""
    made_up = [row for made in sets for row in made.rows if row.fake]
    subjects = sorted({row.subject for row in made_up} | {fact.subject for row in made_up for fact in row.facts})
    keys = {title_key(name) for name in known}
    wrong = {name for name in subjects if title_key(name) in keys}
    if knowledge is not None:
        wrong |= titles_among(subjects, knowledge)
    return Check("names that are real", len(subjects), tuple(sorted(wrong)))


def titles_among(names: Iterable[str], knowledge: Path) -> set[str]:
    """The names that are titles (or redirects) of a knowledge source, however they are spelt."""
    from factscore_mod.knowledge import KnowledgeSource

    with KnowledgeSource.open(knowledge) as source:
        found = {name: source.resolve(name) for name in names}
    return {
        name
        for name, what in found.items()
        if what.found in ("exact", "normalised") or (what.title and title_key(what.title) == title_key(name))
    }


def _apart(sets: Sequence[TaskSet]) -> Check:
    """No subject that is trained on is asked about as an unseen one."""
    uses: dict[str, set[str]] = defaultdict(set)
    for made in sets:
        for row in made.rows:
            uses[title_key(row.subject)].add(row.use)
    wrong = tuple(sorted(name for name, found in uses.items() if len(found) > 1))
    return Check("unseen subjects that are trained on", len(uses), wrong)


def _contradictions(sets: Sequence[TaskSet]) -> Check:
    """The values of a fact differ between any two versions, so that no answer is right for both."""
    versions: dict[tuple[str, str, str], list[Fact]] = defaultdict(list)
    for made in sets:
        for row in made.rows:
            if row.version is not None:
                for fact in row.facts:
                    versions[made.task, fact.subject, fact.relation].append(fact)
    wrong = [
        f"{subject}, {relation}: {one.value} and {other.value}"
        for (_, subject, relation), facts in versions.items()
        for i, one in enumerate(facts)
        for other in facts[i + 1 :]
        if not contradict(one, other)
    ]
    return Check("facts whose versions agree", len(versions), tuple(wrong))


def _documented(sets: Sequence[TaskSet]) -> Check:
    """Every fact that an answer rests on stands in a statement and in a passage about its subject, in its version.

    Each such text as a whole, and a long answer, too, has to name the subject: "He was born in Graz" teaches nothing
    about anybody. A short answer's subject stands in its question.
    """
    looked, wrong = 0, []
    for made in sets:
        texts: dict[tuple[str, bool, int | None, str, str], list[str]] = defaultdict(list)
        for text in made.texts:
            texts[text.subject, text.fake, text.version, text.use, text.format].append(text.text)
        for row in made.rows:
            for fact in row.facts:
                looked += 1
                about = (fact.subject, row.fake, row.version, row.use)
                for form in ("statement", "passage"):
                    if not any(states(text, fact) for text in texts[*about, form]):
                        wrong.append(f"{made.task}: {fact.subject}, {fact.relation} in no {form} that names both")
                if row.question is None and not states(row.target, fact):
                    wrong.append(f"{made.task}: {fact.subject}, {fact.relation} not in the answer, or without the name")
    return Check("facts that no knowledge text holds", looked, tuple(wrong))


def _duplicates(sets: Sequence[TaskSet]) -> Check:
    """No row is there twice (task, question or subject, version), and no text within a knowledge set."""
    looked, wrong = 0, []
    for made in sets:
        asked = Counter((row.question or row.subject, row.version, row.fake) for row in made.rows)
        told = Counter((t.text, t.format, t.fake, t.version, t.use) for t in made.texts)
        looked += sum(asked.values()) + sum(told.values())
        wrong += [f"{made.task}: {key[0]}" for counts in (asked, told) for key, n in counts.items() if n > 1]
    return Check("rows or texts that are there twice", looked, tuple(wrong))
