"""Addresses do not depend on order, and files are whole or absent."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.paths import append_lines, derive_seed, digest, mend_lines, read_lines, write_whole

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_a_digest_does_not_depend_on_key_order(content: dict[str, object]) -> None:
    assert digest(content) == digest(dict(reversed(content.items())))


def test_purposes_have_seeds_of_their_own() -> None:
    seeds = {derive_seed(seed, purpose) for seed in range(10) for purpose in ("data", "dropout", "order")}
    assert len(seeds) == 30


def test_an_unfinished_last_line_is_passed_over_and_can_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("a") as file:
        file.write('{"a": 3')
    assert [row["a"] for row in read_lines(path)] == [1, 2]
    mend_lines(path)
    append_lines(path, [{"a": 4}])
    assert [row["a"] for row in read_lines(path)] == [1, 2, 4]


def test_write_whole_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "file.txt", "text")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.txt"]
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
