"""The hub's sets, read from small copies on disk in the same form; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.hub import HubSource
from harness.data.local import LocalSource
from harness.data.source import DataError, Source

POPQA = [
    {
        "id": 100 + i, "subj": f"Town {i}", "prop": "capital of", "obj": "Land", "subj_id": i, "prop_id": 36,
        "question": f"What is Town {i} the capital of?", "possible_answers": json.dumps(["Land", "Länd"]),
        "s_pop": 10 * i, "o_pop": 5,
    }
    for i in range(60)
]  # fmt: skip
HOTPOTQA = [
    {"id": f"5a{i}", "question": f"Q {i}?", "answer": "yes", "type": "bridge", "level": "hard",
     "supporting_facts": {"title": ["A"], "sent_id": [0]}, "context": {"title": ["A"], "sentences": [["S."]]}}
    for i in range(4)
]  # fmt: skip


def save(folder: Path, config: str, **splits: list[dict[str, Any]]) -> str:
    (folder / config).mkdir(parents=True)
    files = []
    for split, rows in splits.items():
        path = folder / config / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        files.append(f"  - split: {split}\n    path: {config}/{split}.jsonl\n")
    head = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{''.join(files)}---\n"
    (folder / "README.md").write_text(head, encoding="utf-8")
    return str(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return {
        "popqa": save(tmp_path / "popqa", "default", test=POPQA),
        "hotpotqa": save(tmp_path / "hotpot", "distractor", train=HOTPOTQA[:3], validation=HOTPOTQA[3:]),
    }


def test_popqa_is_split_as_the_local_copy_is(hub: dict[str, str], tmp_path: Path) -> None:
    from harness.data import local

    source: Source = HubSource(seed=4, **hub)  # type: ignore[arg-type]
    (tmp_path / "data" / "popqa").mkdir(parents=True)
    import gzip

    with gzip.open(tmp_path / "data" / local.POPQA, "wt", encoding="utf-8") as stream:
        for row in POPQA:
            stream.write(json.dumps(row | {"possible_answers": json.loads(str(row["possible_answers"]))}) + "\n")
    same = LocalSource(tmp_path / "data", seed=4)
    for split in ("train", "validation", "test"):
        assert source.rows("popqa", split) == same.rows("popqa", split)  # type: ignore[arg-type]
    assert source.rows("popqa", "train")[0].answers == ("Land", "Länd")
    assert source.rows("popqa", "fictitious") == ()


def test_answers_may_be_a_list_or_hold_one_as_a_python_literal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for place, value in enumerate((["Land", "it's"], "['Land', \"it's\"]")):
        name = save(tmp_path / f"popqa{place}", "default", test=[POPQA[0] | {"possible_answers": value}])
        source = HubSource(seed=0, popqa=name)
        (row,) = [row for split in ("train", "validation", "test") for row in source.rows("popqa", split)]  # type: ignore[arg-type]
        assert row.answers == ("Land", "it's")


def test_hotpotqa_is_tested_on_the_validation_split(hub: dict[str, str]) -> None:
    source = HubSource(seed=0, **hub)  # type: ignore[arg-type]
    assert [row.id for row in source.rows("hotpotqa", "train")] == ["5a0", "5a1", "5a2"]
    (test,) = source.rows("hotpotqa", "test")
    assert (test.id, test.kind, test.target) == ("5a3", "bridge", "final answer: yes")


def test_the_fingerprint_follows_content_and_seed(hub: dict[str, str]) -> None:
    first = HubSource(seed=0, **hub).fingerprint  # type: ignore[arg-type]
    assert HubSource(seed=0, **hub).fingerprint == first  # type: ignore[arg-type]
    assert HubSource(seed=1, **hub).fingerprint != first  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"possible_answers": "Land"}, r"row 0: field `possible_answers` is no list, in JSON or as a Python literal"),
        ({"possible_answers": '"Land"'}, r"field `possible_answers` is text, a list of texts is expected"),
        ({"possible_answers": "[]"}, r"field `possible_answers` is a list"),
        ({"subj": None}, r"row 0: field `subj`"),
        ({"s_pop": "many"}, r"field `s_pop` is 'many'"),
    ],
)
def test_a_malformed_field_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    name = save(tmp_path / "popqa", "default", test=[POPQA[0] | change])
    with pytest.raises(DataError, match=message):
        HubSource(seed=0, popqa=name).rows("popqa", "test")


def test_a_missing_field_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    name = save(tmp_path / "popqa", "default", test=[{k: v for k, v in POPQA[0].items() if k != "prop"}])
    with pytest.raises(DataError, match=r"test row 0: field `prop` is missing \(there are: id, subj"):
        HubSource(seed=0, popqa=name).rows("popqa", "test")


def test_what_the_hub_does_not_have_is_said(hub: dict[str, str], tmp_path: Path) -> None:
    source = HubSource(seed=0, **hub)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no task 'persons'.*--data"):
        source.rows("persons", "test")
    with pytest.raises(DataError, match=r"no task 'grounding'.*harness synthesize DATA.*--fictitious"):
        source.rows("grounding", "test")
    with pytest.raises(DataError, match=r"no knowledge source for 'persons'.*--data"):
        source.knowledge_source("persons", tmp_path)
    with pytest.raises(DataError, match=r"nothing here.*cannot be loaded.*--data"):
        HubSource(seed=0, popqa=str(tmp_path / "nothing here")).rows("popqa", "test")
