"""What training reads: examples, knowledge texts and the data of one task.

These records are all that `train` and `baselines` know of the outside. Whoever owns real data (the harness,
or your own script) turns it into these and hands them over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal

KnowledgeFormat = Literal["statement", "passage"]
SkillMode = Literal["mixed", "multi_version"]


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised row: a prompt and the completion to be learnt.

    `prompt` is the bare question; the template is applied when tokens are made. `prefill` is the beginning of
    the answer that is given to the model and carries no loss (the miniature gives the entity's name, because
    a small model that has to copy a name gets it wrong and then describes somebody else). `version` is the
    knowledge version a fictitious row agrees with, `None` for real rows. `kind` is the relation asked about,
    where a task has relations; it only serves to stratify. `answers` are the strings that count as right where
    a task has short answers.
    """

    prompt: str
    completion: str
    subject: str
    prefill: str = ""
    fake: bool = False
    version: int | None = None
    popularity: int | None = None
    kind: str = ""
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KnowledgeSet:
    """The raw texts that teach one knowledge adapter.

    Membership in an adapter group is decided by these fields, never by the adapter's name (the reference
    implementation matches substrings of names, so that version 1 also matches version 10).
    """

    format: KnowledgeFormat
    fake: bool
    version: int | None
    texts: tuple[str, ...]

    @property
    def label(self) -> str:
        """A readable, unique-within-a-task name such as `statement-fake-v1`."""
        parts = [self.format, "fake" if self.fake else "real"]
        if self.version is not None:
            parts.append(f"v{self.version}")
        return "-".join(parts)


@dataclass(frozen=True, slots=True)
class TaskData:
    """Everything a method may train on for one task.

    `skill_mode` says which skill stage the task uses: `mixed` (short QA: real and fictitious rows in one
    batch) or `multi_version` (long-form: one version of each fictitious subject per visit). `exclusions` maps
    a method's name to the reason why it is not defined here; tables print the reason in the empty cell.
    `max_new_tokens` limits sampled answers; `short_answers` says that answers are right or wrong as a whole
    instead of claim by claim. `teacher` names a stronger model that can be asked, "" where there is none; the
    name changes whenever its answers would.
    """

    task: str
    skill_mode: SkillMode
    real: tuple[Example, ...]
    fictitious: tuple[Example, ...] = ()
    validation: tuple[Example, ...] = ()
    knowledge: tuple[KnowledgeSet, ...] = ()
    exclusions: dict[str, str] = field(default_factory=dict)
    max_new_tokens: int = 256
    short_answers: bool = False
    teacher: str = ""


def plain(value: object) -> object:
    """A record as nested lists and dictionaries, for hashing: `dataclasses.asdict` without its copies of the leaves."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return value
