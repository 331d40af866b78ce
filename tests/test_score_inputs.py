"""Reading generations in every form that is understood, and refusing the rest clearly."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factscore_mod.inputs import InputError, read_generations


def lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_factscores_own_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "g.jsonl",
        [
            {
                "input": "Question: Tell me a bio of Ada Lovelace.",
                "output": "She was born.",
                "topic": "Ada Lovelace",
                "annotations": [{"text": "She was born.", "model-atomic-facts": [{"text": "She was born."}]}],
            },
            {"input": "Question: Tell me a bio of J. R. Smith.", "output": "Sorry.", "annotations": None},
        ],
    )
    first, second = read_generations(path)
    assert (first.id, first.topic, first.text, first.claims) == ("0", "Ada Lovelace", "She was born.", None)
    assert second.topic == "J. R. Smith"
    first, second = read_generations(path, use_claims=True)
    assert first.claims == ("She was born.",) and second.claims == ()


def test_our_lines_csv_json_and_gzip_read_alike(tmp_path: Path) -> None:
    rows = [{"id": "a", "topic": "T", "output": 'One\nline, "two"', "claims": ["x", "y"]}, {"id": "b", "output": "é"}]
    jsonl = lines(tmp_path / "g.jsonl", list(rows))
    (tmp_path / "g.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "g.jsonl.gz", "wt") as file:
        file.write(jsonl.read_text())
    with (tmp_path / "g.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "topic", "output", "claims"])
        writer.writeheader()
        writer.writerows([{**row, "claims": json.dumps(row["claims"]) if "claims" in row else ""} for row in rows])
    read = [read_generations(tmp_path / name) for name in ("g.jsonl", "g.json", "g.jsonl.gz", "g.csv")]
    assert read[0] == read[1] == read[2] == read[3]
    assert read[0][1].topic == ""
    assert read_generations(tmp_path / "g.csv", use_claims=True)[0].claims == ("x", "y")
    assert len(read_generations(jsonl, limit=1)) == 1


def test_a_dataset_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"topic": ["T", "U"], "response": ["One.", "Two."], "claims": [["a"], []]})
    data.save_to_disk(str(tmp_path / "d"))
    found = read_generations(tmp_path / "d", use_claims=True)
    assert [(g.topic, g.text, g.claims) for g in found] == [("T", "One.", ("a",)), ("U", "Two.", ())]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="save_to_disk"):
        read_generations(tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("{not json}\n", "line 1: not JSON"),
        ('["a"]\n', "line 1: a list"),
        ('{"topic": "T"}\n', "row 1: no text.*'output'.*'topic'"),
        ('{"topic": "T", "output": null}\n', "no text.*null"),
        ('{"topic": 3, "output": "x"}\n', "'topic' must be a string, not int"),
        ('{"id": 1, "output": "x"}\n{"id": 1, "output": "y"}\n', "row 2: id '1' is that of row 1"),
    ],
)
def test_errors_name_file_row_and_field(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"g\.jsonl.*{message}"):
        read_generations(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"output": "x"}, "no claims"),
        ({"output": "x", "claims": "[1"}, "JSON list"),
        ({"output": "x", "claims": [1]}, "list of strings"),
        ({"output": "x", "annotations": [{"text": "x"}]}, "FActScore"),
        ({"output": "x", "annotations": 7}, "FActScore"),
    ],
)
def test_claims_of_the_wrong_form_are_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_generations(lines(tmp_path / "g.jsonl", [row]), use_claims=True)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_generations(tmp_path / "none.jsonl")
    (tmp_path / "g.xlsx").write_text("x")
    with pytest.raises(InputError, match=r"\.xlsx"):
        read_generations(tmp_path / "g.xlsx")
    (tmp_path / "g.jsonl").write_bytes(b'{"output": "\xff\xfe"}\n')
    with pytest.raises(InputError, match="UTF-8"):
        read_generations(tmp_path / "g.jsonl")
    (tmp_path / "g.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="cannot be read"):
        read_generations(tmp_path / "g.jsonl.gz")


@given(st.lists(st.fixed_dictionaries({"topic": st.text(max_size=8), "output": st.text(max_size=30)}), min_size=1))
def test_whatever_text_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    path = lines(tmp_path_factory.mktemp("g") / "g.jsonl", list(rows))
    assert [(g.topic, g.text) for g in read_generations(path)] == [(r["topic"].strip(), r["output"]) for r in rows]


@pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the data folder")
def test_the_labelled_biographies() -> None:
    path = Path(os.environ["HARNESS_DATA"]) / "factscore" / "ChatGPT.jsonl.gz"
    rows = read_generations(path, use_claims=True)
    assert len(rows) == 92 and sum(bool(row.claims) for row in rows) > 60
