"""A causal language model in process, by vLLM: the prefixes that prompts share are computed once.

All requests that wait are handed over together, sorted by their text; vLLM schedules them itself. Replies are held
to their JSON schema or to their fixed choices.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from factscore_mod.chat import Ask, CallFailed, Form, Reply, Token
from factscore_mod.judges.base import JudgeError, JudgeOptions
from factscore_mod.judges.batches import BatchedEngine, Waiting
from factscore_mod.judges.models import weights_fingerprint
from factscore_mod.replies import verdict_alternatives

_MOST = 10_000
_ALTERNATIVES = 5


def usable(device: str | None) -> bool:
    """Whether vLLM is installed and a GPU is there, and the caller does not insist on the processor."""
    if importlib.util.find_spec("vllm") is None or device not in (None, "cuda"):
        return False
    import torch

    return torch.cuda.is_available()


class VllmEngine(BatchedEngine):
    """One vLLM engine. It runs in further processes: a script that uses it needs the `__main__` guard."""

    def __init__(self, model: str, options: JudgeOptions) -> None:
        """Raises JudgeError where vLLM is not installed."""
        if importlib.util.find_spec("vllm") is None:
            raise JudgeError(
                "vLLM is not installed: pip install vllm as docs/backends.md says, or name the judge transformers:MODEL"
            )
        settings = {
            "engine": "vllm",
            "weights": weights_fingerprint(model),
            "temperature": options.temperature,
            "seed": options.seed,
            "dtype": options.dtype,
            "structured": options.structured,
            "logprobs": options.logprobs,
        }
        super().__init__(f"vllm:{model}", model, options, settings, _MOST)
        self._llm: Any = None
        self._room = 0

    def form(self, ask: Ask) -> Form:
        """JSON where the reply has a schema, unless structured output is off."""
        return "json" if ask.schema is not None and self.options.structured != "off" else "line"

    def load(self) -> None:
        """Start the engine. Raises JudgeError where the model cannot be had."""
        import torch
        from vllm import LLM

        try:
            self._llm = LLM(
                self.model,
                dtype=self.options.dtype,
                seed=self.options.seed or 0,
                load_format="safetensors",
                enable_prefix_caching=True,
                enforce_eager=not torch.cuda.is_available(),  # compiling for the processor takes minutes
            )
        except (OSError, ValueError, RuntimeError) as problem:
            reason = str(problem).split("\n")[0]
            raise JudgeError(f"model {self.model!r} cannot be loaded by vLLM ({reason})") from problem
        self._room = int(self._llm.llm_engine.model_config.max_model_len)
        self.tokenizer = self._llm.get_tokenizer()

    def run(self, batch: Sequence[Waiting]) -> list[Reply | CallFailed]:
        """One call for the whole batch; prompts that do not fit are left out of it."""
        prompts = [self.tokenizer.encode(w.text, add_special_tokens=self.adds_special_tokens) for w in batch]
        fitting = [i for i, ids in enumerate(prompts) if len(ids) < self._room]
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in fitting],
            [self._sampling(batch[i].ask, self._room - len(prompts[i])) for i in fitting],
            use_tqdm=False,
        )
        replies: list[Reply | CallFailed] = [self.no_room(self._room)] * len(batch)
        for i, output in zip(fitting, outputs, strict=True):
            replies[i] = _read(output.outputs[0], len(prompts[i]), self.form(batch[i].ask))
        return replies

    def _sampling(self, ask: Ask, room: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        held = None
        if ask.choices:
            held = StructuredOutputsParams(choice=list(ask.choices))
        elif ask.schema is not None and self.form(ask) == "json":
            held = StructuredOutputsParams(json=ask.schema["schema"])
        wanted = ask.logprobs and (self.options.logprobs or bool(ask.choices))
        return SamplingParams(
            temperature=self.options.temperature,
            seed=self.options.seed,
            max_tokens=min(ask.max_tokens, room),
            logprobs=_ALTERNATIVES if wanted else None,
            structured_outputs=held,
        )


def _read(output: Any, prompt_tokens: int, form: Form) -> Reply:
    text: str = output.text
    tokens: list[Token] = []
    for token_id, row in zip(output.token_ids, output.logprobs or (), strict=False):
        word = row[token_id].decoded_token or ""
        pairs = ((other.decoded_token or "", float(other.logprob)) for other in row.values())
        tokens.append(Token(word, verdict_alternatives(pairs)))
    return Reply(
        text.strip() if not tokens else text,
        form,
        finish="length" if output.finish_reason == "length" else "stop",
        prompt_tokens=prompt_tokens,
        completion_tokens=len(output.token_ids),
        tokens=tuple(tokens),
    )
