"""The rows that a fact verifier learns from."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from train.rows import Example
from train.sampling import JudgedClaim, JudgedSample, Sample
from train.verifier import NO, YES, verifier_examples, verifier_prompt

PROMPTS = (Example("Who is Ann?", "", "Ann"), Example("Who is Bob?", "", "Bob"))


def judged(prompt: int, *claims: tuple[str, bool | None]) -> JudgedSample:
    return JudgedSample(Sample(prompt, "...", "stop"), None, tuple(JudgedClaim(*claim) for claim in claims))


def test_a_row_a_claim_in_the_order_in_which_they_come_up() -> None:
    rows = verifier_examples(
        [
            judged(1, ("Bob sings.", True), ("Bob is old.", None)),
            judged(0, ("Ann dances.", False), ("Bob sings.", True)),
        ],
        PROMPTS,
    )
    assert rows == (
        Example(verifier_prompt("Bob sings."), YES, "Bob"),
        Example(verifier_prompt("Ann dances."), NO, "Ann"),
    )
    assert rows[0].prompt == "Bob sings. Is this true?" and {YES, NO} == {"Yes.", "No."}


def test_where_verdicts_differ_the_more_frequent_one_counts_and_doubt_is_no() -> None:
    samples = [judged(0, ("a", True), ("b", True)), judged(0, ("a", True), ("b", False)), judged(1, ("a", False))]
    assert {row.prompt: row.completion for row in verifier_examples(samples, PROMPTS)} == {
        verifier_prompt("a"): YES,
        verifier_prompt("b"): NO,
    }


@given(
    st.lists(
        st.builds(
            judged,
            st.integers(0, 1),
            st.tuples(st.sampled_from("abcd"), st.sampled_from([True, False, None])),
            st.tuples(st.sampled_from("abcd"), st.sampled_from([True, False, None])),
        )
    )
)
def test_every_claim_with_a_verdict_is_there_once(samples: list[JudgedSample]) -> None:
    known = {claim.text for sample in samples for claim in sample.claims if claim.supported is not None}
    rows = verifier_examples(samples, PROMPTS)
    assert sorted(row.prompt for row in rows) == sorted(map(verifier_prompt, known))
    assert all(row.completion in (YES, NO) for row in rows)


def test_the_rows_are_made_without_torch() -> None:
    code = "import sys, train.verifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
