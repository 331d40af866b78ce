"""Judges in process: a tiny random language model and a tiny random entailment classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from factscore_mod.chat import Ask
from factscore_mod.judges import JudgeError, JudgeOptions
from factscore_mod.judges.models import weights_fingerprint
from factscore_mod.judges.nli import NliVerifier, entailment_label
from factscore_mod.scorer import FactScorer
from tests.judging import ARTICLES, knowledge

TEXT = "Ada Lovelace was born in London in 1815. She was a French painter."
WORDS = sorted({word for text in [*ARTICLES.values(), TEXT] for word in text.replace(".", " .").split()})


def _tokenizer(folder: Path) -> int:
    """A word-level tokenizer with a chat template; its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<pad>", "<unk>", "<eos>", "True", "False", "true", "false", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", model_max_length=512
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("lm")
    size = _tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("nli")
    size = _tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        id2label={0: "contradiction", 1: "entailment", 2: "neutral"},
        label2id={"contradiction": 0, "entailment": 1, "neutral": 2},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_choices_cost_one_pass_and_give_probabilities(language_model: Path) -> None:
    options = JudgeOptions(device="cpu", batch_size=4)
    scorer = FactScorer(
        f"local:{language_model}", knowledge(), profile="factscore", decomposer="rules", options=options
    )
    scored = scorer.score(["Ada Lovelace"] * 3, [TEXT] * 3)
    for response in scored:
        assert response.claims and not response.count("unparsed") and not response.count("error")
        for claim in response.claims:
            score = claim.judgement.score
            assert score is not None
            assert (claim.judgement.verdict == "supported") == (score >= 0.5)
        assert response.claims == scored[0].claims


def test_batches_give_what_single_requests_give(language_model: Path) -> None:
    scores = []
    for size in (1, 8):
        scorer = FactScorer(
            f"local:{language_model}",
            knowledge(),
            profile="factscore",
            decomposer="rules",
            options=JudgeOptions(device="cpu", batch_size=size, dtype="float32"),
        )
        scored = scorer.score(list(ARTICLES), list(ARTICLES.values()))
        scores.append([c.judgement.score for r in scored for c in r.claims])
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_model_that_cannot_answer_gives_unparsed_and_not_a_guess(language_model: Path) -> None:
    options = JudgeOptions(device="cpu", reasks=0)
    scorer = FactScorer(f"local:{language_model}", knowledge(), decomposer="rules", options=options)
    [scored] = scorer.score(["Ada Lovelace"], ["Ada Lovelace was born in London in 1815."])
    assert {c.judgement.verdict for c in scored.claims} <= {"unparsed", "error"}


def test_a_prompt_that_does_not_fit_is_an_error_with_its_reason(language_model: Path) -> None:
    import asyncio

    from factscore_mod.chat import CallFailed
    from factscore_mod.judges.local import LocalEngine

    async def ask() -> None:
        engine = LocalEngine(str(language_model), JudgeOptions(device="cpu"))
        try:
            await engine.send(Ask("verify", "p", "s", "London " * 2000, choices=("True", "False")))
        finally:
            await engine.aclose()

    with pytest.raises(CallFailed, match="does not fit"):
        asyncio.run(ask())


def test_entailment_is_the_best_over_passages(classifier: Path) -> None:
    scorer = FactScorer(f"nli:{classifier}", knowledge(), options=JudgeOptions(device="cpu", batch_size=2))
    assert scorer.judge.synchronous and scorer.judge.name.startswith("rules+nli:")
    [scored] = scorer.score(["Ada Lovelace"], [TEXT])
    for claim in scored.claims:
        assert claim.judgement.score is not None and 0 <= claim.judgement.score <= 1
        assert (claim.judgement.verdict == "supported") == (claim.judgement.score >= 0.5)


def test_the_label_that_means_entailed() -> None:
    assert entailment_label({0: "ENTAILMENT", 1: "neutral", 2: "contradiction"}, "m") == 0
    assert entailment_label({0: "not_entailment", 1: "entailment"}, "m") == 1
    assert entailment_label({0: "LABEL_0", 1: "LABEL_1"}, "m") == 1
    with pytest.raises(JudgeError, match="positive, negative"):
        entailment_label({0: "positive", 1: "negative"}, "m")


def test_missing_models_and_changed_weights(language_model: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="cannot be loaded"):
        FactScorer(f"local:{tmp_path}/none", knowledge(), decomposer="rules").score(["Ada Lovelace"], [TEXT])
    (tmp_path / "config.json").write_text("{}")
    first = weights_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert weights_fingerprint(str(tmp_path)) != first
    assert NliVerifier(str(language_model), JudgeOptions()).fingerprint != NliVerifier("x", JudgeOptions()).fingerprint
