"""Two runs, or two models of one run, on the items that both answered: differences, their tests, their power.

rows = compare_runs(read_run(Path("runs/a")), read_run(Path("runs/b")), metric="accuracy")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factscore_mod.records import Verdict
from harness import stats
from harness.errors import UserError
from harness.metrics.comparison import compare
from harness.metrics.longform import LongformScore
from harness.metrics.short_qa import QaScore
from harness.metrics.summary import Comparison, Family, Metric, kinds, longform_metrics, short_qa_metrics

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder says of its answers: the scores by task and model, and each task's family and headline.

    Worlds are named by their seeds, so that equal worlds of two runs are the same ones. `golds` are the right
    answers of short questions by task, world and item.
    """

    path: Path
    families: Mapping[str, Family]
    headlines: Mapping[str, str]
    scores: Mapping[tuple[str, str], tuple[QaScore | LongformScore, ...]]
    golds: Mapping[tuple[str, int, str], tuple[str, ...]]

    @property
    def tasks(self) -> list[str]:
        """The tasks with answers, in the run's order."""
        return list(dict.fromkeys(task for task, _ in self.scores))

    def models(self, task: str) -> list[str]:
        """The models that answered a task."""
        return [model for name, model in self.scores if name == task]


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """First minus second on one task; `p_holm` of the difference is corrected over all rows."""

    task: str
    first: str
    second: str
    difference: Comparison


# --- reading -------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """The scores in a run folder; UserError names the file and the field that is missing or malformed."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the run folder that `harness run` wrote (runs/ID, or its --out)")
    manifest, metrics = (_object(_present(folder, name)) for name in ("manifest.json", "metrics.json"))
    with _reading(folder / "manifest.json", "seeds.seed"):
        seed = int(manifest["seeds"]["seed"])
    families: dict[str, Family] = {}
    headlines: dict[str, str] = {}
    with _reading(folder / "metrics.json", "family and headline of every task"):
        for name, task in metrics["tasks"].items():
            families[name], headlines[name] = task["family"], str(task["headline"])
    claims = _claims(_present(folder, "claims.jsonl")) if "longform" in families.values() else {}
    scores: dict[tuple[str, str], list[QaScore | LongformScore]] = {}
    golds: dict[tuple[str, int, str], tuple[str, ...]] = {}
    for where, row in _lines(_present(folder, "responses.jsonl")):
        made: QaScore | LongformScore
        with _reading(where, "task, model, world and item_id"):
            key = (row["task"], row["model"], int(row["world"]), str(row["item_id"]))
        world = seed + key[2]
        if families.get(key[0]) == "longform":
            if key not in claims:
                raise UserError(f"{folder / 'claims.jsonl'} has no line for {where}; repeat the run's command")
            made = _long_score(where, row, claims[key], world)
        else:
            with _reading(where, "scores and gold"):
                made = QaScore(**(row["scores"] | {"world": world}))
                golds[key[0], world, key[3]] = tuple(row["gold"])
        scores.setdefault(key[:2], []).append(made)
    if not scores:
        raise UserError(f"{folder / 'responses.jsonl'} holds no answers; repeat the run's command")
    return Run(folder, families, headlines, {key: tuple(group) for key, group in scores.items()}, golds)


def _long_score(where: str, row: dict[str, Any], claims: _Claims, world: int) -> LongformScore:
    with _reading(where, "subject and finish"):
        subject, cut_off = str(row["subject"]), bool(row["finish"] == "length")
    return LongformScore(
        response_id=str(row["item_id"]),
        subject=subject,
        world=world,
        popularity=claims.popularity,
        abstained=claims.abstained,
        verdicts=() if claims.abstained else claims.verdicts,
        cut_off=cut_off,
    )


@dataclass(frozen=True, slots=True)
class _Claims:
    """What a line of `claims.jsonl` says of a response."""

    abstained: bool
    popularity: int | None
    verdicts: tuple[Verdict, ...]


def _claims(path: Path) -> dict[tuple[str, str, int, str], _Claims]:
    found = {}
    for where, row in _lines(path):
        with _reading(where, "task, model, world, id, abstained and the verdicts of claims"):
            key = (row["task"], row["model"], int(row["world"]), str(row["id"]))
            verdicts = tuple(claim["verdict"] for claim in row["claims"])
            found[key] = _Claims(bool(row["abstained"]), row.get("popularity"), verdicts)
    return found


def _present(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"{folder} is no finished run: it has no {name}; repeat the run's command to finish it")
    return folder / name


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a JSON-lines file, and where it stands."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            yield f"{path}:{number}", _plain_object(f"{path}:{number}", line)


def _object(path: Path) -> dict[str, Any]:
    return _plain_object(str(path), path.read_text(encoding="utf-8"))


def _plain_object(where: str, text: str) -> dict[str, Any]:
    with _reading(where, "JSON"):
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__} instead of an object")
    return content


@contextmanager
def _reading(where: Path | str, field: str) -> Iterator[None]:
    """UserError with place and field where what is read there is not what `harness run` writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: cannot read {field} ({type(error).__name__}: {error}); it is not as `harness run` writes it: "
            "repeat the run's command"
        ) from error


# --- comparing -----------------------------------------------------------------------------------------------


def compare_runs(
    first: Run, second: Run, *, metric: str | None = None, models: tuple[str, str] | None = None
) -> list[ComparedRow]:
    """One row for each task and model that both runs have, or for one model of each (`models`); in the first's order.

    `metric` is by default each task's headline in the first run. Raises UserError where the runs share no task, no
    model or no item, and for a metric that a task does not have.
    """
    tasks = [task for task in first.tasks if task in second.tasks]
    if not tasks:
        raise UserError(
            f"no task is in both runs: {first.path} has {', '.join(first.tasks)}; {second.path} has "
            f"{', '.join(second.tasks)}"
        )
    asked: list[tuple[str, str, str]] = []
    for task in tasks:
        if first.families[task] != second.families[task]:
            raise UserError(f"{task}: {first.path} scored it as {first.families[task]}, {second.path} did not")
        asked += [(task, *pair) for pair in _models_of(task, first, second, models)]
    if not asked:
        here, there = ({m for task in tasks for m in run.models(task)} for run in (first, second))
        lacking = (
            f"no task has {models[0]} in one and {models[1]} in the other" if models else "no model is in both runs"
        )
        raise UserError(
            f"{lacking}: {first.path} has {', '.join(sorted(here))}; {second.path} has {', '.join(sorted(there))}; "
            "name one of each with --models A,B"
        )
    rows = []
    for task, one, other in asked:
        wanted = metric or first.headlines[task]
        found = _difference(task, (first, one), (second, other), wanted, tests=len(asked))
        rows.append(ComparedRow(task, one, other, found))
    adjusted = stats.holm([1.0 if row.difference.p is None else row.difference.p for row in rows])
    return [
        ComparedRow(row.task, row.first, row.second, _corrected(row.difference, p))
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _models_of(task: str, first: Run, second: Run, models: tuple[str, str] | None) -> list[tuple[str, str]]:
    if models is None:
        return [(model, model) for model in first.models(task) if model in second.models(task)]
    found = models[0] in first.models(task) and models[1] in second.models(task)
    return [models] if found else []


def _difference(task: str, first: tuple[Run, str], second: tuple[Run, str], name: str, *, tests: int) -> Comparison:
    """The paired difference on the items that both answered, checked to be the same ones; one of `tests` tests."""
    groups = [run.scores[task, model] for run, model in (first, second)]
    known = _metrics(first[0].families[task], groups)
    if name not in known:
        raise UserError(f"--metric: '{name}' is no metric of task {task}; choose one of {', '.join(known)}")
    tables = [{(s.world, _id(s)): s for s in group} for group in groups]
    shared = [key for key in tables[0] if key in tables[1]]
    if not shared:
        worlds = [", ".join(str(w) for w in sorted({s.world for s in group})) for group in groups]
        raise UserError(
            f"{task}: no item is in both runs ({first[0].path}: {len(groups[0])} items of world {worlds[0]}; "
            f"{second[0].path}: {len(groups[1])} items of world {worlds[1]}); compare runs of the same data and seeds"
        )
    for key in shared:
        one, other = tables[0][key], tables[1][key]
        if one.subject != other.subject:
            raise UserError(
                f"{task}, item {key[1]}: {first[0].path} asks about '{one.subject}', {second[0].path} about "
                f"'{other.subject}'; compare runs of the same data and seeds"
            )
        accepted = [run.golds.get((task, *key)) for run, _ in (first, second)]
        if accepted[0] != accepted[1]:
            raise UserError(
                f"{task}, item {key[1]}: {first[0].path} takes {_either(accepted[0])} for right, {second[0].path} "
                f"{_either(accepted[1])}; compare runs of the same data and seeds"
            )
    # Two models may have one name in two runs: here they are the first and the second.
    pair = {"first": groups[0], "second": groups[1]}
    (found,) = compare(pair, "second", [known[name]], tests=tests)
    return found


def _metrics(family: Family, groups: Sequence[Sequence[Any]]) -> dict[str, Metric[Any]]:
    every = [score for group in groups for score in group]
    found: Sequence[Metric[Any]] = longform_metrics((4, 8)) if family == "longform" else short_qa_metrics(kinds(every))
    return {metric.name: metric for metric in found}


def _either(answers: Sequence[str] | None) -> str:
    return " or ".join(f"'{answer}'" for answer in answers or ()) or "nothing"


def _corrected(difference: Comparison, p: float) -> Comparison:
    return replace(difference, p_holm=None if difference.p is None else p)


def _id(score: QaScore | LongformScore) -> str:
    return score.item_id if isinstance(score, QaScore) else score.response_id


# --- showing -------------------------------------------------------------------------------------------------


def to_json(first: Run, second: Run, rows: Sequence[ComparedRow]) -> str:
    """The rows as JSON: sorted keys, nothing that differs between equal calls."""
    body = {
        "first": str(first.path),
        "second": str(second.path),
        "rows": [
            {"task": row.task, "first": row.first, "second": row.second}
            | {k: v for k, v in asdict(row.difference).items() if k not in ("model", "baseline")}
            for row in rows
        ],
    }
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def table(first: Run, second: Run, rows: Sequence[ComparedRow]) -> Table:
    """The rows for the terminal, with what the columns mean under it."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from harness.reports import grids

    same = first.path == second.path
    named = f"A minus B in {first.path}" if same else f"A = {first.path}\nB = {second.path}"
    made = Table(
        title=escape(named), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1),
        pad_edge=False, caption=f"{_READING} {grids.about_detectable(len(rows))}", caption_justify="left",
        caption_style="dim",
    )  # fmt: skip
    exact = any(row.difference.p_mcnemar is not None for row in rows)
    worlds = any(row.difference.worlds > 1 for row in rows)
    head = ["task", "model", "metric", "A minus B [95 %]", "p", "p (Holm)"]
    head += ["A / B alone right", "p (McNemar)"] if exact else []
    head += ["detectable (Holm)", "items", "entities", *(["worlds"] if worlds else [])]
    for name in head:
        # In a narrow terminal a cell takes more lines: a number that is cut would be another number.
        made.add_column(
            escape(name), justify="left" if name in ("task", "model", "metric") else "right", overflow="fold"
        )
    for row in rows:
        d = row.difference
        model = row.first if row.first == row.second else f"{row.first} - {row.second}"
        cells = [row.task, model, grids.heading(d.metric).replace(", %", ""), grids.difference(d)]
        cells += [grids.p_value(d.p), grids.p_value(d.p_holm)]
        if exact:
            cells += [grids.EMPTY if d.better is None else f"{d.better} / {d.worse}", grids.p_value(d.p_mcnemar)]
        cells += [grids.points(d.metric, d.detectable_holm), str(d.n), str(d.clusters)]
        cells += [str(d.worlds)] if worlds else []
        made.add_row(*map(escape, cells))
    return made


_READING = (
    "Differences in points for shares, paired on the items that both answered. p: paired bootstrap over entities; over "
    "several worlds a t-test over worlds or over entities, the weaker. Holm's correction is over the rows. McNemar's "
    "test is exact and takes the questions as independent."
)
