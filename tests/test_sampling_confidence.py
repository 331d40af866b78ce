"""FactTune-MC for real: a base says how sure it is of claims, and what it is surer of becomes the preferred answer."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines import facttune
from baselines.method import Recipes
from baselines.preferences import preference_pairs
from harness.backends.decoding import Decoding, Generation, Request
from harness.paths import write_lines
from harness.plan_training import Ground, stage_jobs
from harness.sampling import Judges, JudgeSamples, read_judged
from tests.judging import knowledge
from tests.tiny_model import make_tiny_base
from train.hardware import load_base
from train.rows import Example, TaskData
from train.sampling import JudgedSample, Judging, Measure, Pairs, Sampling
from train.stages import Recipe
from train.template import PromptTemplate

NAMES = ("Ada Lovelace", "Marie Curie", "Grace Hopper")
CITIES = ("London", "Warsaw", "Oslo", "Rome")
# Where each lived the base knows; where each worked it has read four different things about.
KNOWN = [f"{name} lived in {city} ." for name, city in zip(NAMES, CITIES, strict=False)]
UNSURE = [f"{name} worked in {city} ." for name in NAMES for city in CITIES]
WORDS = [
    *("Question", ":", "Answer", "who", "is", "?", ".", "lived", "worked", "in"),
    *" ".join(NAMES).split(),
    *CITIES,
]
PROMPTS = tuple(Example(f"who is {name} ?", "", name, prefill=name) for name in NAMES)
TEMPLATE = PromptTemplate()


def ignore(done: int, total: int, remark: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has read `KNOWN` as often as `UNSURE`, until it repeats them."""
    from transformers import AutoTokenizer

    folder = make_tiny_base(tmp_path_factory.mktemp("confidence") / "base", WORDS)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    rows = torch.tensor([[1, *tokenizer(text)["input_ids"], 2] for text in [*KNOWN * len(CITIES), *UNSURE]])
    model = load_base(folder, bf16=False).cpu().requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
    model.save_pretrained(str(folder))
    return folder


def judge(
    folder: Path, base: Path, texts: Sequence[str], measure: Measure, answers: int, batch_size: int = 64
) -> list[JudgedSample]:
    """The judgements of responses to the first prompt, of which `base` is asked."""
    rows = ({"id": f"0-{k}", "text": text, "tokens": 3, "finish": "stop"} for k, text in enumerate(texts))
    write_lines(folder / "samples.jsonl", rows)
    sampling = Sampling(name="s", prompts=PROMPTS, seed=3, max_new_tokens=8)
    judging = Judging(samples=sampling, measure=measure, answers=answers)
    judges = Judges(task="persons", knowledge=knowledge())
    job = JudgeSamples(
        folder / "samples.jsonl", PROMPTS, judging, judges, str(base), TEMPLATE, batch_size=batch_size, dtype="float32"
    )
    job.run(folder / "judged.jsonl", ignore)
    return read_judged(folder / "judged.jsonl")


TEXTS = (" lived in London.", " worked in Oslo.", " lived in Rome. She worked in Rome.", "")


class Scripted:
    """A backend whose answers a test decides; it keeps what it was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers = {question: itertools.cycle(found) for question, found in answers.items()}
        self.asked: Counter[str] = Counter()
        self.decodings: list[Decoding] = []

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Generation]]:
        self.decodings.append(decoding)
        for request in requests:
            self.asked[request.prompt] += 1
            yield [Generation(request.id, next(self.answers[request.prompt]), 1, "stop")]


@pytest.mark.parametrize(("measure", "sure", "unsure"), [("mc", 0.75, 0.5), ("ec", 0.75**2 + 0.25**2, 0.375)])
def test_a_score_is_the_mean_confidence_over_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: Measure, sure: float, unsure: float
) -> None:
    backend = Scripted({
        "Ada Lovelace lived in": ["London", " the London", "london", "Oslo"],
        "Ada Lovelace worked in": ["Rome", "Rome", "Oslo", "Warsaw"],
    })  # fmt: skip
    monkeypatch.setattr("harness.backends.opening.open_backend", lambda *_, **__: backend)
    judged = judge(tmp_path, tmp_path, TEXTS, measure, answers=20)
    assert [one.score for one in judged] == [
        pytest.approx(sure), pytest.approx(unsure), pytest.approx((sure + unsure) / 2), None,
    ]  # fmt: skip
    # Claims with the same beginning are asked about once, and nobody is asked for a verdict.
    assert backend.asked == {"Ada Lovelace lived in": 20, "Ada Lovelace worked in": 20}
    assert [len(one.claims) for one in judged] == [1, 1, 2, 0]
    assert all(claim.supported is None for one in judged for claim in one.claims)
    (decoding,) = backend.decodings
    assert (decoding.temperature, decoding.top_p, decoding.seed, decoding.stop) == (1.0, 0.9, 3, ("\n", "."))


def next_words(base: Path, beginning: str, top_p: float) -> list[float]:
    """The probabilities of the next word, of the smallest set that holds `top_p`, from plain transformers."""
    from transformers import AutoTokenizer

    ids = [1, *AutoTokenizer.from_pretrained(str(base))(beginning)["input_ids"]]
    with torch.no_grad():
        logits = load_base(base, bf16=False).cpu().eval()(input_ids=torch.tensor([ids])).logits[0, -1]
    kept: list[float] = []
    for p in sorted(logits.softmax(-1).tolist(), reverse=True):
        kept += [p] if sum(kept) < top_p else []
    return [p / sum(kept) for p in kept]


def test_the_base_itself_is_asked(base: Path, tmp_path: Path) -> None:
    """A word and a full stop are an answer, so its probability is that of the word."""
    known, guessed = (next_words(base, f"Ada Lovelace {verb} in", 0.9) for verb in ("lived", "worked"))
    assert max(known) > 0.95 and len(guessed) == 4
    expected = {
        "mc": (max(known), max(guessed)),
        "ec": (sum(p * p for p in known), sum(p * p for p in guessed)),
    }
    measures: tuple[Measure, ...] = ("mc", "ec")
    for measure in measures:
        sure, unsure = expected[measure]
        scores = [one.score for one in judge(tmp_path, base, TEXTS, measure, answers=300)]
        assert scores[0] == pytest.approx(sure, abs=0.05)
        assert scores[1] == pytest.approx(unsure, abs=0.08)
        assert scores[3] is None
        assert scores[2] == pytest.approx(((scores[0] or 0) + (scores[1] or 0)) / 2)
    again = [one.score for one in judge(tmp_path, base, TEXTS, "ec", answers=300, batch_size=7)]
    assert again == scores


def test_what_the_base_is_surer_of_is_preferred_and_reaches_dpo(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    said = [*KNOWN, *UNSURE[:: len(CITIES)]]
    rows = tuple(
        Example(prompt.prompt, text.removeprefix(prompt.subject).strip(), prompt.subject, prefill=prompt.subject)
        for prompt in PROMPTS for text in said if text.startswith(prompt.subject)
    )  # fmt: skip
    recipe = Recipe(rank=8, alpha=16, dropout=0.0, learning_rate=1e-2, epochs=20, batch_size=6, precision="fp32")
    recipes = Recipes(
        sft=recipe, preference=Recipe(learning_rate=1e-3, epochs=2, batch_size=8, precision="fp32"), measure="mc",
        facttune_samples=6, pairs_per_prompt=5, min_gap=0.2,
    )  # fmt: skip
    task = TaskData("persons", "multi_version", rows, (), max_new_tokens=6)
    stage = facttune.plan.plan(task, recipes, 1, TEMPLATE)
    assert stage is not None and isinstance(stage.derived, Pairs)
    ground = Ground(
        world=0, base_dir=base, base_fingerprint="base", needs=(), judges=Judges(task="persons", knowledge=knowledge()),
        judges_fingerprint="rules", batch_size=64, dtype="float32", backend="transformers",
    )  # fmt: skip
    jobs = stage_jobs(stage, ground)
    assert [job.kind for job in jobs] == ["train", "sample", "judge", "train"]
    for job in jobs:
        job.payload.run(job.out, ignore)

    judged = read_judged(jobs[2].out)
    assert len(judged) == len(rows) * 6 and len({one.score for one in judged}) > 2
    pairs = preference_pairs(judged, rows, TEMPLATE, rule="all", min_gap=0.2, most_per_prompt=5, seed=stage.seed)
    ways = Counter((pair.chosen.split()[0], pair.rejected.split()[0]) for pair in pairs)
    assert ways["lived", "worked"] > 10 and ways["worked", "lived"] == 0
    described: dict[str, Any] = json.loads((jobs[3].out / "stage.json").read_text())
    assert (described["kind"], described["pairs"]) == ("dpo", len(pairs))
    losses = described["report"]["losses"]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3) and losses[-1] < losses[0]
