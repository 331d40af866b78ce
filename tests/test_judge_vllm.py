"""The vLLM judge with a stand-in for the library: what it is asked for, and how its outputs are read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from factscore_mod.chat import Ask, CallFailed, Reply
from factscore_mod.judges import JudgeError, JudgeOptions, make_judge
from factscore_mod.judges.vllm import VllmEngine, usable
from factscore_mod.replies import VERDICTS_SCHEMA, parse_verdicts, true_false_score, verdict_scores

ROOM = 4096


@dataclass
class Word:
    decoded_token: str
    logprob: float


@dataclass
class Sampling:
    temperature: float
    seed: int | None
    max_tokens: int
    logprobs: int | None
    structured_outputs: Any


@dataclass
class Structured:
    choice: list[str] | None = None
    json: Any = None


class Tokenizer:
    """A character is a token."""

    chat_template = "one"

    def apply_chat_template(self, turns: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize and add_generation_prompt
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in turns)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]


@dataclass
class FakeLLM:
    """Says `False` to choices, one verdict to a schema, and repeats nothing else; ends each turn with a token."""

    model: str
    dtype: str
    seed: int
    load_format: str
    enable_prefix_caching: bool
    enforce_eager: bool
    calls: list[tuple[list[str], list[Sampling]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.model == "missing":
            raise ValueError("no such model\nand a long story")
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=ROOM))
        MADE.append(self)

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def generate(self, prompts: list[dict[str, list[int]]], samplings: list[Sampling], use_tqdm: bool) -> list[Any]:
        texts = ["".join(map(chr, prompt["prompt_token_ids"])) for prompt in prompts]
        self.calls.append((texts, samplings))
        return [SimpleNamespace(outputs=[self._output(sampling)]) for sampling in samplings]

    def _output(self, sampling: Sampling) -> Any:
        held = sampling.structured_outputs
        words = ["free", " words"]
        if held is not None and held.choice:
            words = [held.choice[1]]
        elif held is not None and held.json:
            words = ['{"verdicts": [{"claim": 1, "verdict": "', "supported", '"}]}']
        rows = [{0: Word(word, -0.1), 1: Word("True", -2.3), 2: Word("not", -float("inf"))} for word in words]
        rows.append({0: Word("<end>", 0.0)})
        return SimpleNamespace(
            text="".join(words),
            token_ids=[0] * len(rows),
            logprobs=rows if sampling.logprobs else None,
            finish_reason="length" if sampling.max_tokens == 1 else "stop",
        )


MADE: list[FakeLLM] = []


@pytest.fixture(autouse=True)
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module, sampling = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = FakeLLM, Sampling  # type: ignore[attr-defined]
    sampling.StructuredOutputsParams = Structured  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)
    MADE.clear()
    yield


def send(*asks: Ask, model: str = "m", **options: Any) -> list[Reply | BaseException]:
    async def run() -> list[Reply | BaseException]:
        engine = VllmEngine(model, JudgeOptions(**options))
        try:
            return await asyncio.gather(*[engine.send(ask) for ask in asks], return_exceptions=True)
        finally:
            await engine.aclose()

    return asyncio.run(run())


def choice(user: str) -> Ask:
    return Ask("verify", "p", "s", user, choices=("True", "False"), max_tokens=8, logprobs=True)


def verdicts(max_tokens: int = 50) -> Ask:
    return Ask(
        "verify", "p", "s", "u", "as json", "as line", schema=VERDICTS_SCHEMA, max_tokens=max_tokens, logprobs=True
    )


def test_all_that_waits_goes_in_one_call_sorted_by_its_text() -> None:
    replies = send(*[choice(user) for user in ("b 2", "a 1", "b 1", "a 2")])
    [(texts, samplings)] = MADE[0].calls
    assert texts == sorted(texts) and len(texts) == 4
    assert {sampling.max_tokens for sampling in samplings} == {8}
    assert MADE[0].enable_prefix_caching and MADE[0].load_format == "safetensors"
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == ["False"] * 4


def test_choices_are_held_and_give_a_probability() -> None:
    [reply] = send(choice("u"))
    assert isinstance(reply, Reply) and reply.text == "False" and reply.completion_tokens == 2
    assert MADE[0].calls[0][1][0].structured_outputs.choice == ["True", "False"]
    score = true_false_score(reply)
    assert score is not None and score == pytest.approx(1 / (1 + 2.718281828 ** (2.3 - 0.1)), abs=1e-6)


def test_replies_are_held_to_their_schema_unless_that_is_off() -> None:
    [reply] = send(verdicts(), logprobs=True)
    assert isinstance(reply, Reply) and reply.form == "json"
    assert MADE[0].calls[0][1][0].structured_outputs.json == VERDICTS_SCHEMA["schema"]
    assert MADE[0].calls[0][0][0].endswith("as json")
    assert parse_verdicts(reply, 1) == {1: "supported"}
    assert verdict_scores(reply, 1) == {1: 1.0}
    [reply] = send(verdicts(), structured="off")
    assert isinstance(reply, Reply) and reply.form == "line"
    assert MADE[1].calls[0][1][0].structured_outputs is None and MADE[1].calls[0][0][0].endswith("as line")


def test_what_was_cut_off_is_marked_and_what_does_not_fit_has_failed() -> None:
    cut, long, good = send(verdicts(1), choice("x" * ROOM), choice("u"))
    assert isinstance(cut, Reply) and cut.finish == "length"
    assert isinstance(long, CallFailed) and "does not fit" in str(long)
    assert isinstance(good, Reply) and good.finish == "stop"


def test_a_model_that_cannot_be_loaded_is_one_clear_error() -> None:
    [problem] = send(choice("u"), model="missing")
    assert isinstance(problem, JudgeError) and "long story" not in str(problem)


def test_which_engine_a_name_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def engine(name: str, **options: Any) -> str:
        [chat] = make_judge(name, options=JudgeOptions(**options)).closeables
        return type(chat.engine).__name__  # type: ignore[attr-defined]

    for there, picked in ((False, "LocalEngine"), (True, "VllmEngine")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert engine("local:m") == picked
        assert engine("vllm:m") == "VllmEngine" and engine("transformers:m") == "LocalEngine"
    assert engine("local:m", device="cpu") == "LocalEngine"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not usable(None) and engine("local:m") == "LocalEngine"
    with pytest.raises(JudgeError, match="pip install vllm"):
        engine("vllm:m")
