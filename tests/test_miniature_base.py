"""The miniature's base: packing, the document mask, the loss, the corpus, stopping, the gate and the model folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import load_preset
from harness.data.miniature import MiniatureSource
from harness.data.miniature_base import (
    BaseConfig,
    BaseRejected,
    BaseReport,
    encode_corpus,
    judge,
    new_model,
    pretrain_base,
)
from harness.data.miniature_corpus import corpus
from harness.data.miniature_tokenizer import build_tokenizer
from harness.data.miniature_world import MiniatureConfigError, WorldConfig, build_world
from train.pretrain import (
    IGNORED,
    MeanCrossEntropy,
    PretrainRecipe,
    document_mask,
    next_tokens,
    pack,
    pretrain,
)

TINY = load_preset("tiny")
WORLD = WorldConfig.from_dict(TINY.source.world)
BASE = BaseConfig.from_dict(TINY.base.settings)


@pytest.mark.parametrize("name", ["mini", "tiny"])
def test_presets_give_worlds_with_rows_of_every_kind(name: str) -> None:
    preset = load_preset(name)
    source = MiniatureSource(WorldConfig.from_dict(preset.source.world), 0)
    BaseConfig.from_dict(preset.base.settings)
    for task in ("popqa", "hotpotqa", "persons", "medical"):
        for split in ("train", "validation", "test", "fictitious", "fictitious_test"):
            assert source.rows(task, split), (task, split)
    assert source.rows("grounding", "test")


# Packing and the loss --------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=40), max_size=60))
@settings(max_examples=60, deadline=None)
def test_packing_loses_no_token_and_keeps_documents_apart(documents: list[list[int]]) -> None:
    rows = list(pack(documents, 32, pad_id=0))
    assert all(len(row.ids) == len(row.documents) == len(row.positions) == 32 for row in rows)
    packed: list[tuple[int, ...]] = []
    for row in rows:
        for number in sorted(set(row.documents) - {-1}):
            packed.append(tuple(i for i, d in zip(row.ids, row.documents, strict=True) if d == number))
        assert all(i == 0 for i, d in zip(row.ids, row.documents, strict=True) if d == -1)
    pieces = [tuple(document[start : start + 32]) for document in documents for start in range(0, len(document), 32)]
    assert Counter(packed) == Counter(pieces)


def test_a_packed_document_is_read_as_if_it_stood_alone() -> None:
    world = build_world(WORLD, 0)
    tokenizer = build_tokenizer(world)
    torch.manual_seed(0)
    model = new_model(BASE, tokenizer).eval()
    documents = encode_corpus(world, tokenizer, 0, 0)[:6]
    (row, *_) = pack(documents, 128, tokenizer.pad_token_id)
    numbers = torch.tensor([row.documents])
    with torch.inference_mode():
        packed = model(
            input_ids=torch.tensor([row.ids]), attention_mask=document_mask(numbers),
            position_ids=torch.tensor([row.positions]),
        ).logits[0]  # fmt: skip
        for number in sorted(set(row.documents) - {-1}):
            places = [i for i, d in enumerate(row.documents) if d == number]
            alone = model(input_ids=torch.tensor([[row.ids[i] for i in places]])).logits[0]
            torch.testing.assert_close(packed[places], alone, atol=1e-5, rtol=1e-4)


def test_targets_do_not_cross_documents() -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 0]])
    documents = torch.tensor([[0, 0, 1, 1, 1, -1]])
    assert next_tokens(ids, documents).tolist() == [[6, IGNORED, 8, 9, IGNORED, IGNORED]]


def test_cross_entropy_equals_the_textbook_one() -> None:
    logits = torch.randn(50, 31, requires_grad=True)
    targets = torch.randint(0, 31, (50,))
    targets[::7] = IGNORED
    loss = MeanCrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    (gradient,) = torch.autograd.grad(loss * 3, logits)
    expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)
    (wanted,) = torch.autograd.grad(expected * 3, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize(("values", "updates", "ended"), [([0.1, 0.6], 6, "target"), ([0.1, 0.2, 0.3], 8, "cap")])
def test_training_stops_on_the_probe_or_at_the_cap(values: list[float], updates: int, ended: str) -> None:
    world = build_world(WORLD, 0)
    tokenizer = build_tokenizer(world)
    model = new_model(replace(BASE, layers=1), tokenizer)
    probed = iter(values)
    recipe = PretrainRecipe(rows=2, row_length=64, planned_tokens=512, chunk_tokens=256, max_tokens=1024)
    result = pretrain(
        model, lambda epoch: encode_corpus(world, tokenizer, 0, epoch), recipe,
        pad_id=tokenizer.pad_token_id, probe=lambda trained: next(probed), target=0.5,
    )  # fmt: skip
    assert (result.updates, result.ended) == (updates, ended)
    assert result.tokens == updates * 128
    assert [point.value for point in result.history] == values


# The corpus ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    return {
        variant: [d.text for d in corpus(build_world(replace(WorldConfig(), variant=variant), 3), 5, 0)]
        for variant in ("familiar", "unfamiliar")
    }


def test_mentions_grow_with_popularity_and_only_covered_facts_are_told(texts: dict[str, list[str]]) -> None:
    world = build_world(WorldConfig(), 3)
    told = Counter(" ".join(text.replace("Question: ", "").split()) for text in texts["familiar"])
    whole = "\n".join(told.elements())
    ordered = sorted(world.real("persons"), key=lambda e: e.popularity)
    tail, head = (sum(whole.count(e.name) for e in group) for group in (ordered[:40], ordered[-40:]))
    assert head > 10 * tail
    for entity in world.real("persons", "test")[:25]:
        about = [text for text in texts["familiar"] if entity.name in text]
        words = set(" ".join(about).replace(".", " ").split())
        hidden = {fact.value for fact in entity.facts} - {fact.value for fact in entity.covered}
        assert not hidden & words


def test_only_the_familiar_corpus_shows_the_prompts_and_only_of_entities_without_a_role(
    texts: dict[str, list[str]],
) -> None:
    world = build_world(WorldConfig(), 3)
    prompts = [text for text in texts["familiar"] if "Question:" in text]
    assert 0.01 < len(prompts) / len(texts["familiar"]) < 0.15
    assert any("Generate a biography for" in p for p in prompts)
    assert any("Tell me about" in p for p in prompts)
    others = [e.name for e in world.entities if e.split != "pretrain"]
    assert not any(name in "\n".join(prompts) for name in others)
    assert not any("Question" in text or "Answer" in text for text in texts["unfamiliar"])


def test_two_hops_are_a_small_share_of_the_familiar_corpus_and_join_what_it_gives(
    texts: dict[str, list[str]],
) -> None:
    world = build_world(WorldConfig(), 3)
    hops = [document for document in texts["familiar"] if "final answer: " in document]
    assert len(hops) < 0.02 * len(texts["familiar"])
    born = {e.name: {f.attribute: f.value for f in e.covered}.get("birth year") for e in world.real("persons")}
    elders = [re.fullmatch(r"Question: In what year was the elder of (.+) and (.+) born\?\nAnswer: .*: (\d+)", d)
              for d in hops]  # fmt: skip
    found = [match.groups() for match in elders if match]
    assert 0 < len(found) < len(hops)
    for first, second, year in found:
        assert year == min(born[first] or "", born[second] or "")
    assert all(any(e.name in d for e in world.real("persons", "pretrain")) for d in hops)
    assert not any("final answer" in document for document in texts["unfamiliar"])


@pytest.mark.parametrize("variant", ["familiar", "unfamiliar"])
def test_the_corpus_orders_the_years(texts: dict[str, list[str]], variant: str) -> None:
    orders = [re.fullmatch(r"The year (\d+) came before the year (\d+)\.", document) for document in texts[variant]]
    pairs = [match.groups() for match in orders if match]
    assert 0 < len(pairs) < 0.03 * len(texts[variant])
    assert all(int(earlier) < int(later) for earlier, later in pairs)


def test_no_corpus_mentions_a_fictitious_entity(texts: dict[str, list[str]]) -> None:
    whole = "\n".join(texts["familiar"])
    assert not any(e.name in whole for e in build_world(WorldConfig(), 3).fictitious)


def test_epochs_differ_and_repeat_exactly() -> None:
    world = build_world(WORLD, 0)
    assert corpus(world, 1, 0) == corpus(world, 1, 0)
    assert corpus(world, 1, 0) != corpus(world, 1, 1)
    assert corpus(world, 1, 0) != corpus(world, 2, 0)


# The gate --------------------------------------------------------------------------------------------------------

GRADED = (0.05, 0.08, 0.1, 0.2, 0.4, 0.5, 0.7, 0.8, 0.9, 0.95)


def test_a_graded_base_passes() -> None:
    assert judge(GRADED, BaseConfig()) == ""


@pytest.mark.parametrize(
    ("deciles", "reason"),
    [
        ((0.05,) * 10, "0.05 of the facts"),
        ((0.9,) * 10, "unpopular"),
        ((0.3, 0.3, 0.3, *(0.45,) * 7), "popular entities, less than"),
    ],
)
def test_a_base_that_is_not_graded_is_rejected(deciles: tuple[float, ...], reason: str) -> None:
    assert reason in judge(deciles, BaseConfig())


@pytest.mark.parametrize(
    ("table", "named"),
    [({"layer": 2}, "layer"), ({"hidden_size": 66}, "hidden_size"), ({"max_tokens": 5}, "max_tokens")],
)
def test_bad_base_settings_are_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(MiniatureConfigError, match=named):
        BaseConfig.from_dict(table)


# A whole base ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BaseReport]:
    folder = tmp_path_factory.mktemp("bases") / "base"
    return folder, pretrain_base(WORLD, BASE, 100, 100, folder)


@pytest.mark.slow
def test_the_tiny_base_knows_the_head_better_than_the_tail(made: tuple[Path, BaseReport]) -> None:
    folder, report = made
    assert report.verdict == "graded"
    assert sum(report.recall_by_decile[-3:]) > sum(report.recall_by_decile[:3]) + 0.5
    assert report.covered_recall > report.recall
    assert all(a[0] < b[0] for a, b in pairwise(report.history))
    written = json.loads((folder / "base_report.json").read_text())
    assert written["tokens"] == report.tokens
    assert [p.name for p in folder.parent.iterdir()] == ["base"]


@pytest.mark.slow
def test_the_folder_loads_as_any_model_does(made: tuple[Path, BaseReport]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(made[0])
    tokenizer = AutoTokenizer.from_pretrained(made[0])
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    head = max(build_world(WORLD, 100).real("persons"), key=lambda e: e.popularity)
    prompt = tokenizer(f"Question: Generate a biography for {head.name}.\nAnswer: {head.name}", return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert "." in tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])


@pytest.mark.slow
def test_a_base_that_fails_the_gate_leaves_nothing_behind(tmp_path: Path) -> None:
    short = replace(BASE, planned_tokens=2048, chunk_tokens=1024, max_tokens=2048, recall_at_least=0.9)
    with pytest.raises(BaseRejected, match=r"world 1 \(base seed 2\) was rejected"):
        pretrain_base(WORLD, short, 1, 2, tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_same_seeds_make_the_same_base(tmp_path: Path) -> None:
    short = replace(
        BASE, planned_tokens=4096, chunk_tokens=1024, max_tokens=4096, recall_at_least=0.0, head_at_least=0.0
    )
    for name in ("a", "b"):
        pretrain_base(WORLD, short, 1, 2, tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
