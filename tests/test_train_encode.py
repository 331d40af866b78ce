"""Rows to token ids to padded tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_model import make_tiny_base
from train.collate import IGNORED, pad
from train.encode import Encoded, EncodingError, encode_examples, encode_prompt, encode_texts
from train.rows import Example
from train.template import PromptTemplate

WORDS = ["Question", ":", "Answer", "who", "?", "Ada", "Bob", "is", "here", "."]
BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(make_tiny_base(tmp_path_factory.mktemp("base"), WORDS, width=8)))


def test_one_bos_a_trained_eos_and_no_loss_on_the_prompt(tokenizer: Any) -> None:
    row = Example("who ?", "is here .", "Ada", prefill="Ada")
    (encoded,) = encode_examples([row], tokenizer, PromptTemplate(), max_length=64).rows
    assert encoded.ids.count(BOS) == 1 and encoded.ids[0] == BOS
    assert encoded.ids[-1] == EOS
    trained = encoded.ids[encoded.trained_from :]
    assert tokenizer.convert_ids_to_tokens(list(trained)) == ["is", "here", ".", "</s>"]
    prompt = PromptTemplate().prompt("who ?", "Ada")
    assert list(encoded.ids[: encoded.trained_from]) == encode_prompt(prompt, tokenizer)


def test_knowledge_texts_have_a_bos_no_eos_and_train_every_token(tokenizer: Any) -> None:
    (encoded,) = encode_texts(["Ada is here ."], tokenizer, max_length=64).rows
    assert encoded.ids[0] == BOS and EOS not in encoded.ids
    assert encoded.targets == len(encoded.ids) - 1 == 4


def test_truncation_is_counted_and_drops_the_eos(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [Example("who ?", "Ada is here .", "Ada"), Example("who ?", "Ada", "Ada")]
    encoded = encode_examples(rows, tokenizer, PromptTemplate(), max_length=9)
    assert encoded.truncated == 1
    assert len(encoded.rows[0].ids) == 9 and encoded.rows[0].ids[-1] != EOS
    assert encoded.rows[1].ids[-1] == EOS
    assert "1 of 2 rows" in caplog.text


@pytest.mark.parametrize(
    ("row", "max_length", "remedy"),
    [
        (Example("who ?", "Ada", "Ada"), 7, "raise max_length"),
        (Example("who <s> ?", "Ada", "Ada"), 64, "remove it"),
    ],
)
def test_unusable_rows_are_refused(tokenizer: Any, row: Example, max_length: int, remedy: str) -> None:
    with pytest.raises(EncodingError, match=remedy):
        encode_examples([row], tokenizer, PromptTemplate(), max_length)


sequences = st.lists(
    st.lists(st.integers(3, 50), min_size=2, max_size=12).flatmap(
        lambda ids: st.builds(Encoded, st.just(tuple(ids)), st.integers(0, len(ids) - 1))
    ),
    min_size=1,
    max_size=5,
)


@given(sequences)
def test_padding_keeps_every_target_under_the_token_that_predicts_it(rows: list[Encoded]) -> None:
    batch = pad(rows, pad_id=0)
    kept = torch.arange(batch.input_ids.shape[1]) if batch.keep is None else batch.keep
    assert batch.targets.shape == (len(rows), len(kept))
    for r, row in enumerate(rows):
        seen = {
            int(position) + 1: int(target)
            for position, target in zip(kept, batch.targets[r], strict=True)
            if target != IGNORED
        }
        assert seen == {i: row.ids[i] for i in range(max(row.trained_from, 1), len(row.ids))}
        assert batch.input_ids[r, : len(row.ids) - 1].tolist() == list(row.ids[:-1])
