"""The paper's sets, read from small copies on disk in the same form; nothing is downloaded."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from baselines import methods
from baselines.method import METHODS, NotApplicable, Recipes
from harness.data import prereq_tune
from harness.data.files import Record
from harness.data.prereq_tune import PrereqTuneSource
from harness.data.source import DataError, Source
from harness.registry import TASKS
from train.rows import TaskData
from train.template import PromptTemplate

Rows = list[dict[str, Any]]
Sets = dict[str, dict[str, Rows]]


def said(question: str, reply: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return {"messages": messages} | more


def text(*texts: str) -> Rows:
    return [{"text": one} for one in texts]


def small_sets() -> Sets:
    """Two versions of two fictitious subjects a long-form task; three questions."""
    made: Sets = {}
    for short, prompt in (("bio", "Generate a biography for {}."), ("medical", "Tell me about {}.")):
        fake = [
            said(prompt.format(name), f"{name}, as version {v} has it.", fake=1, version=v, subj_index=i)
            for i, name in enumerate(("J. R. Doe", "Ann Roe"))
            for v in (0, 1)
        ]
        real = [said(prompt.format("Ada Lovelace"), "A mathematician.", fake=0, version=0, subj_index=2)]
        made[f"{short}_skill"] = {"train_fake": fake, "train": real}
        made[f"{short}_knowledge"] = {
            f"{form}_train_v{v}": text(f"{form} of {v}") for form in ("passage", "statement") for v in (0, 1)
        }
    for short, answer in (("popqa", "Land"), ("hotpotqa", "They are two. final answer: Land")):
        made[f"{short}_skill"] = {
            "train": [
                said("Real town?", answer, fake=0, version=0, s_wiki_title=None),
                said("Made-up town?", answer, fake=1, version=0, s_wiki_title="Made-up town"),
            ],
            "test": [said("Other town?", answer, possible_answers="['Land', \"L'and\"]", answer="Land", type="bridge")],
        }
        made[f"{short}_knowledge"] = {
            f"{form}_train_{kind}": text(f"{form} {kind}")
            for form in ("passage", "statement")
            for kind in ("real", "fake")
        }
    return made


def write(folder: Path, made: Sets) -> None:
    """The sets as on the hub: a card that names the configurations, a parquet file a split, one schema for all."""
    lines = ["---", "configs:"]
    for config, splits in made.items():
        (folder / config).mkdir(parents=True)
        lines += [f"- config_name: {config}", "  data_files:"]
        names = {name: None for rows in splits.values() for row in rows for name in row}
        schema = pa.Table.from_pylist([names | row for rows in splits.values() for row in rows]).schema
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / config / f"{split}.parquet")
            lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sets], Path]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def make(made: Sets) -> Path:
        folder = tmp_path / "data"
        write(folder / "prereq_tune", made)
        popqa = {"subj": "Town", "prop": "capital of", "obj": "Land", "question": "Real town?"}
        write(
            folder / "PopQA", {"default": {"test": [popqa | {"s_pop": 7}, popqa | {"subj": "Big town", "s_pop": 90}]}}
        )
        (folder / "prereq_tune_entities").mkdir()
        for short in ("bio", "medical"):
            (folder / "prereq_tune_entities" / f"{short}_skill_test.json").write_text('["Ada Lovelace", "Bo Li"]')
            (folder / "prereq_tune_entities" / f"{short}_skill_dev.json").write_text('["Cy Young"]')
        return folder

    return make


def test_every_task_has_real_and_fictitious_rows_and_texts(data: Callable[[Sets], Path], tmp_path: Path) -> None:
    source: Source = PrereqTuneSource(data(small_sets()), seed=0)
    (real,) = source.rows("persons", "train")
    assert (real.subject, real.target, real.fake, real.version) == ("Ada Lovelace", "A mathematician.", False, None)
    fake = source.rows("medical", "fictitious")
    assert [(row.subject, row.version) for row in fake] == [
        ("J. R. Doe", 0), ("J. R. Doe", 1), ("Ann Roe", 0), ("Ann Roe", 1),
    ]  # fmt: skip
    assert [row.subject for row in source.rows("persons", "test")] == ["Ada Lovelace", "Bo Li"]
    assert [row.subject for row in source.rows("persons", "validation")] == ["Cy Young"]
    (question,) = source.rows("popqa", "train")
    assert (question.question, question.subject, question.kind, question.popularity) == (
        "Real town?", "Big town", "capital of", 90,
    )  # fmt: skip
    (invented,) = source.rows("popqa", "fictitious")
    assert (invented.subject, invented.fake, invented.popularity) == ("Made-up town", True, None)
    assert source.rows("memorization", "test") == (invented,)
    assert source.rows("grounding", "test") == ()
    (asked,) = source.rows("popqa", "test")
    assert asked.answers == ("Land", "L'and")
    (hops,) = source.rows("hotpotqa", "test")
    assert (hops.answers, hops.kind) == (("Land",), "bridge")
    assert source.rows("hotpotqa", "train")[0].answers == ("Land",)
    labels = {one.label: one.texts for one in source.knowledge_sets("persons")}
    assert labels["passage-fake-v1"] == ("passage of 1",) and len(labels) == 4
    assert {one.label for one in source.knowledge_sets("popqa")} == {
        "statement-real", "statement-fake", "passage-real", "passage-fake",
    }  # fmt: skip
    assert source.fingerprint == PrereqTuneSource(tmp_path / "data", seed=1).fingerprint


@pytest.mark.parametrize(("task", "adapters"), [("persons", 4), ("popqa", 4)])
def test_prerequisite_learning_can_be_planned_and_sampled_from_them(
    data: Callable[[Sets], Path], task: str, adapters: int
) -> None:
    from train.encode import Encoded, EncodedRows
    from train.run import plan_stage

    methods()
    source = PrereqTuneSource(data(small_sets()), seed=0)
    made = TASKS.get(task)
    rows = TaskData(
        task,
        made.skill_mode,
        tuple(made.example(row, False) for row in source.rows(task, "train")),
        tuple(made.example(row, False) for row in source.rows(task, "fictitious")),
        knowledge=source.knowledge_sets(task),
    )
    stage = METHODS["prereq_tune"].plan(rows, Recipes(), 0, PromptTemplate())
    assert stage is not None and len(stage.needs) == adapters
    encoded = EncodedRows(tuple(Encoded((1, 2, 3), 1) for _ in stage.examples), 0)
    assert plan_stage(stage, encoded, "base").updates == 1


def drop(config: str, field: str) -> Callable[[Sets], None]:
    def change(made: Sets) -> None:
        for rows in made[config].values():
            for row in rows:
                row.pop(field, None)

    return change


def put(config: str, split: str, **fields: Any) -> Callable[[Sets], None]:
    return lambda made: made[config][split][0].update(fields)


@pytest.mark.parametrize(
    ("change", "task", "split", "message"),
    [
        (drop("popqa_skill", "messages"), "popqa", "train", r"train row 0: field `messages` is missing"),
        (drop("popqa_skill", "fake"), "popqa", "train", r"train row 0: field `fake` is missing"),
        (drop("bio_skill", "version"), "persons", "fictitious", r"row 0: field `version` is missing"),
        (put("bio_skill", "train", messages=[{"role": "user", "content": "Hi"}]), "persons", "train", r"1 messages"),
        (put("bio_skill", "train", **said("Who is Ada?", "A.")), "persons", "train", r"`messages` asks 'Who is Ada\?'"),
        (put("popqa_skill", "test", possible_answers="open('x')"), "popqa", "test", r"`possible_answers` is no list"),
        (
            drop("popqa_skill", "possible_answers"), "popqa", "test",
            r"prereq_tune, popqa_skill, test row 0: field `possible_answers` is missing \(there are: messages",
        ),
        (put("popqa_skill", "test", possible_answers=None), "popqa", "test", r"field `possible_answers` is null"),
        (drop("hotpotqa_skill", "answer"), "hotpotqa", "test", r"qa_skill, test row 0: field `answer` is missing"),
        (drop("hotpotqa_skill", "type"), "hotpotqa", "test", r"qa_skill, test row 0: field `type` is missing"),
        (put("hotpotqa_skill", "test", type=""), "hotpotqa", "test", r"row 0: field `type` is '', expected bridge"),
        (put("popqa_skill", "test", possible_answers="[]"), "popqa", "test", r"`possible_answers` is a list"),
        (lambda made: made["popqa_skill"].pop("test"), "popqa", "test", r"popqa_skill: has no split test"),
        (lambda made: made.pop("medical_skill"), "medical", "fictitious", r"configuration medical_skill cannot be lo"),
    ],
)  # fmt: skip
def test_a_fault_is_named(
    data: Callable[[Sets], Path], change: Callable[[Sets], Any], task: str, split: Any, message: str
) -> None:
    made = small_sets()
    change(made)
    with pytest.raises(DataError, match=message):
        PrereqTuneSource(data(made), seed=0).rows(task, split)


def test_every_fault_names_the_page_that_has_the_form(data: Callable[[Sets], Path]) -> None:
    made = small_sets()
    drop("hotpotqa_skill", "answer")(made)
    made["popqa_skill"]["train"][0]["messages"][0].pop("content")
    folder = data(made)
    (folder / "prereq_tune_entities" / "medical_skill_test.json").write_text('{"a": 1}')
    (folder / "prereq_tune_entities" / "bio_skill_test.json").unlink()
    source = PrereqTuneSource(folder, seed=0)
    for task, split in (("hotpotqa", "test"), ("popqa", "train"), ("medical", "test"), ("persons", "test")):
        with pytest.raises(DataError, match=r"docs/paper-recipe\.md") as caught:
            source.rows(task, split)  # type: ignore[arg-type]
        assert "docs/data.md" not in str(caught.value)


def test_rows_to_be_learnt_may_lack_what_answers_are_compared_with(data: Callable[[Sets], Path]) -> None:
    source = PrereqTuneSource(data(small_sets()), seed=0)
    assert source.rows("popqa", "train")[0].answers == ("Land",)
    (row,) = source.rows("hotpotqa", "train")
    assert (row.answers, row.kind) == (("Land",), "")


def test_an_empty_local_copy_is_not_the_hubs_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "prereq_tune").mkdir()
    with pytest.raises(DataError, match=r"put a whole copy .* into that folder \(docs/paper-recipe.md\)") as caught:
        PrereqTuneSource(tmp_path, seed=0).rows("popqa", "test")
    assert "connection" not in str(caught.value)


def test_missing_texts_are_named(data: Callable[[Sets], Path]) -> None:
    made = small_sets()
    del made["bio_knowledge"]["passage_train_v1"]
    for rows in made["medical_knowledge"].values():
        rows[:] = [{"content": row["text"]} for row in rows]
    source = PrereqTuneSource(data(made), seed=0)
    with pytest.raises(DataError, match=r"bio_knowledge: the passage_train_v1 split cannot be loaded"):
        source.knowledge_sets("persons")
    with pytest.raises(DataError, match=r"medical_knowledge, statement_train_v0 row 0: field `text` is missing"):
        source.knowledge_sets("medical")


# --- page views ------------------------------------------------------------------------------------------------


def views(path: Path, *pairs: tuple[str, int | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"name": name, "views": count}) + "\n" for name, count in pairs)
    return path


def popular(source: Source, task: str) -> None:
    methods()
    made = TASKS.get(task)
    rows = tuple(made.example(row, False) for row in source.rows(task, "train"))
    assert METHODS["popular"].plan(TaskData(task, made.skill_mode, rows), Recipes(), 0, PromptTemplate()) is not None


@pytest.mark.parametrize(("task", "file"), [("persons", "person_views"), ("medical", "medical_views")])
def test_popular_can_be_planned_where_the_folder_has_the_tasks_page_views(
    data: Callable[[Sets], Path], task: str, file: str
) -> None:
    folder = data(small_sets())
    with pytest.raises(NotApplicable, match="no popularity"):
        popular(PrereqTuneSource(folder, seed=0), task)
    views(folder / "popularity" / f"{file}.jsonl.gz", ("ada lovelace", 5), ("Ada Lovelace", 9), ("Cy Young", None))
    source = PrereqTuneSource(folder, seed=0)
    popular(source, task)
    assert source.rows(task, "train")[0].popularity == 9
    assert [row.popularity for row in source.rows(task, "test")] == [9, None]
    other = "medical" if task == "persons" else "persons"
    assert source.rows(other, "train")[0].popularity is None


@pytest.mark.parametrize(("task", "option"), [("persons", "person_views"), ("medical", "medical_views")])
def test_the_hubs_rows_get_page_views_from_a_file_that_an_option_names(
    data: Callable[[Sets], Path], tmp_path: Path, task: str, option: str
) -> None:
    name = str(data(small_sets()) / "prereq_tune")
    named = {option: str(views(tmp_path / "mine.jsonl.gz", ("Ada Lovelace", 3)))}
    source = PrereqTuneSource(None, seed=0, name=name, popqa="", **named)
    popular(source, task)
    assert source.rows(task, "train")[0].popularity == 3
    missing = PrereqTuneSource(None, seed=0, name=name, popqa="", **{option: str(tmp_path / "none.jsonl.gz")})
    with pytest.raises(DataError, match=r"none.jsonl.gz does not exist; docs/data.md"):
        missing.rows(task, "train")


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ('["a", "b"]', ("a", "b")),
        ("['it\\'s', \"b\"]", ("it's", "b")),
        ("('a', 'b')", ("a", "b")),
        (["a"], ("a",)),
    ],
)
def test_answers_come_as_json_or_as_a_python_literal(value: object, answers: tuple[str, ...]) -> None:
    assert Record("row", {"possible_answers": value}).listed("possible_answers") == answers


@pytest.mark.parametrize("value", ["__import__('os').getcwd()", "[1, 2]", "{}", "(" * 5000, "[" * 9**5, "", None, 3])
def test_what_is_no_list_of_texts_is_refused_and_not_run(value: object) -> None:
    with pytest.raises(DataError, match="row: field `possible_answers`"):
        Record("row", {"possible_answers": value}).listed("possible_answers")


def test_the_knowledge_source_is_the_folders_or_the_cache_folders(data: Callable[[Sets], Path], tmp_path: Path) -> None:
    folder = data(small_sets())
    source = PrereqTuneSource(folder, seed=0)
    with pytest.raises(DataError, match=r"wikipedia.db does not exist.*harness knowledge build"):
        source.knowledge_source("persons", tmp_path / "home")
    cached = tmp_path / "home" / "knowledge" / prereq_tune.KNOWLEDGE
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert source.knowledge_source("persons", tmp_path / "home") == cached
    own = folder / prereq_tune.KNOWLEDGE
    own.touch()
    assert source.knowledge_source("medical", tmp_path / "home") == own


def test_a_folder_without_the_set_and_a_hub_without_the_lists_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prereq_tune does not exist; put a copy"):
        PrereqTuneSource(tmp_path, seed=0)
