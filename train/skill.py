"""The two skill stages of Prereq-Tune: a fresh adapter learns the task while frozen ones hold the knowledge.

Source: arXiv 2410.19290 and its repository UCSB-NLP-Chang/Prereq_tune, the mixed and the multi-version
trainer. What is ours: adapters are chosen by their metadata (the reference matches substrings of names),
draws are keyed by (seed, micro-batch) so that they do not depend on the number of processes, and token-means
run over the whole update instead of over each micro-batch.

Without `needs` both stages read the same rows in the same order under no knowledge adapter: that is the
SFT-fictitious control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from train.encode import Encoded
from train.plan import Branch, Plan, StageError, deal, micro_batches_per_update, visits
from train.rows import KnowledgeFormat
from train.seeds import generator
from train.stages import Stage

# The order within the alternation is the reference's; every update holds both equally often.
FORMATS: Mapping[str, tuple[KnowledgeFormat, ...]] = {
    "skill_mixed": ("passage", "statement"),
    "skill_multi_version": ("statement", "passage"),
}


class AdapterSampler:
    """Draws the knowledge adapter of a micro-batch among the stages that the skill stage needs.

    `base_fingerprint` is what the stages' fingerprints are made with.
    """

    def __init__(self, stage: Stage, base_fingerprint: str) -> None:
        self._seed = stage.seed
        self._alternate = stage.alternate_formats
        self._formats = FORMATS[stage.kind]
        self._needs = [(need, need.fingerprint(base_fingerprint)) for need in stage.needs]

    def draw(self, micro_batch: int, *, fake: bool, version: int | None) -> str | None:
        """The fingerprint of the adapter for rows of this kind; `None` when the stage needs no knowledge.

        Raises StageError when no needed stage holds such knowledge.
        """
        if not self._needs:
            return None
        fitting = [(n, f) for n, f in self._needs if n.fake == fake and n.version == version]
        if not fitting:
            kind = "fictitious" if fake else "real"
            have = ", ".join(sorted(need.name for need, _ in self._needs))
            raise StageError(
                f"needs: no knowledge adapter for {kind} rows of version {version} (there is {have}); "
                "train one, or leave these rows out"
            )
        formats = [f for f in self._formats if any(need.format == f for need, _ in fitting)]
        if self._alternate and len(formats) > 1:
            turn = formats[micro_batch % len(formats)]
            fitting = [(need, print_) for need, print_ in fitting if need.format == turn]
        draw = generator(self._seed, "adapter", "fake" if fake else "real", micro_batch)
        return draw.choice([print_ for _, print_ in fitting])


def plan_mixed(stage: Stage, rows: Sequence[Encoded], base_fingerprint: str) -> Plan:
    """The mixed skill stage: real rows R and fictitious rows F in one batch.

    L = CE(F and R), F under the fictitious and R under the real knowledge adapter, one token-mean over both,
      + real_weight * CE(R) under no knowledge adapter.
    Fictitious rows of several versions each meet an adapter of their own version.
    """
    sampler = AdapterSampler(stage, base_fingerprint)
    parts = micro_batches_per_update(stage.recipe, even=stage.alternate_formats)
    planned: list[tuple[Branch, ...]] = []
    for update in visits(len(rows), stage.recipe, stage.seed):
        tokens = sum(rows[i].targets for i in update)
        real_tokens = sum(rows[i].targets for i in update if not stage.examples[i].fake)
        for piece in deal(update, parts, stage, len(planned), lambda i: len(rows[i].ids)):
            step = len(planned)
            branches = []
            for version in sorted({stage.examples[i].version for i in piece if stage.examples[i].fake}, key=_order):
                chosen = [i for i in piece if stage.examples[i].fake and stage.examples[i].version == version]
                adapter = sampler.draw(step, fake=True, version=version)
                branches.append(Branch(tuple(chosen), 1 / tokens, adapter))
            real = tuple(i for i in piece if not stage.examples[i].fake)
            if real:
                branches.append(Branch(real, 1 / tokens, sampler.draw(step, fake=False, version=None)))
            if real and stage.real_weight:
                branches.append(Branch(real, stage.real_weight / real_tokens))
            planned.append(tuple(branches))
    return Plan(tuple(planned), parts)


def plan_multi_version(stage: Stage, rows: Sequence[Encoded], base_fingerprint: str) -> Plan:
    """The multi-version skill stage: a batch is of subjects; each visit shows one version of a subject.

    One version is drawn per micro-batch and shared by its subjects: L = CE(rows of v | base + knowledge of v
    + skill). Rows of the other versions are never even padded. Raises StageError for real rows and for
    subjects that lack a version.
    """
    sampler = AdapterSampler(stage, base_fingerprint)
    parts = micro_batches_per_update(stage.recipe, even=stage.alternate_formats)
    subjects = _rows_by_subject(stage)
    versions = sorted(next(iter(subjects.values())))
    names = list(subjects)
    longest = [max(len(rows[i].ids) for of in subjects[name].values() for i in of) for name in names]
    planned: list[tuple[Branch, ...]] = []
    for update in visits(len(names), stage.recipe, stage.seed):
        chosen: list[tuple[int, list[int]]] = []
        for piece in deal(update, parts, stage, len(planned), lambda subject: longest[subject]):
            step = len(planned) + len(chosen)
            version = generator(stage.seed, "version", step).choice(versions)
            chosen.append((version, [i for subject in piece for i in subjects[names[subject]][version]]))
        tokens = sum(rows[i].targets for _, piece in chosen for i in piece)
        for version, piece in chosen:
            adapter = sampler.draw(len(planned), fake=True, version=version)
            planned.append((Branch(tuple(piece), 1 / tokens, adapter),))
    return Plan(tuple(planned), parts)


def _order(version: int | None) -> int:
    return -1 if version is None else version


def _rows_by_subject(stage: Stage) -> dict[str, dict[int, list[int]]]:
    """Subject -> version -> row indices, subjects in the order of their first row."""
    subjects: dict[str, dict[int, list[int]]] = {}
    for index, row in enumerate(stage.examples):
        if not row.fake or row.version is None:
            raise StageError(
                f"examples: {row.subject!r} is no fictitious row with a version; a skill_multi_version stage "
                "takes no others (use skill_mixed for real and fictitious rows together)"
            )
        subjects.setdefault(row.subject, {}).setdefault(row.version, []).append(index)
    versions = {version for of_subject in subjects.values() for version in of_subject}
    for subject, of_subject in subjects.items():
        if missing := sorted(versions - set(of_subject)):
            raise StageError(f"examples: {subject!r} has no row of version {missing}; every subject needs each version")
    return subjects
