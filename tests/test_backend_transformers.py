"""Greedy generation with a tiny random model: padding, stopping, resuming, adapters that must act."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from harness.backends.cache import growing_cache
from harness.backends.decoding import Decoding, Generation, Request
from harness.backends.transformers import (
    TransformersBackend,
    open_backend,
)
from harness.backends.weights import AdapterInert, BackendError, base_fingerprint, load_adapter

WORDS = 120
REQUESTS = [Request(f"r{i}", " ".join(f"w{(7 * i + 3 * j) % WORDS}" for j in range(1 + i % 5))) for i in range(11)]


def save_base(folder: Path, seed: int = 0, context: int = 64) -> Path:
    vocabulary = {"<bos>": 0, "<eos>": 1, "<pad>": 2, "<unk>": 3} | {f"w{i}": i + 4 for i in range(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, bos_token_id=0,
        eos_token_id=1, pad_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, trained: bool = True, safe: bool = True) -> Path:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    if trained:
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder, safe_serialization=safe)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(base, tmp_path_factory.mktemp("adapter"))


def answers(backend: TransformersBackend, decoding: Decoding, **options: object) -> dict[str, Generation]:
    return {g.id: g for batch in backend.generate(REQUESTS, decoding, **options) for g in batch}  # type: ignore[arg-type]


def reference(base: Path, prompt: str, new_tokens: int) -> list[int]:
    """One prompt alone through transformers' own generate: BOS, then the words."""
    model = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[0, *(int(word[1:]) + 4 for word in prompt.split())]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens)
    return [token for token in out[0, ids.shape[1] :].tolist() if token != 1]


@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager"])
def test_a_padded_batch_equals_each_prompt_alone_in_transformers_own_generate(base: Path, attention: str) -> None:
    backend = TransformersBackend(base, batch_size=4, attention=attention)
    got = answers(backend, Decoding(max_new_tokens=12))
    assert sorted(got) == sorted(r.id for r in REQUESTS)
    for request in REQUESTS:
        expected = reference(base, request.prompt, 12)
        assert got[request.id].text.split() == [f"w{token - 4}" for token in expected if token >= 4]
        assert got[request.id].tokens == len(expected)
    assert backend.tokens_per_second > 0


def test_a_beginning_that_all_prompts_share_is_read_once_and_changes_nothing(tmp_path: Path) -> None:
    folder = save_base(tmp_path, context=128)
    shots = " ".join(f"w{(5 * i) % WORDS}" for i in range(40))
    requests = [Request(r.id, f"{shots} {r.prompt}") for r in REQUESTS]
    backend = TransformersBackend(folder, batch_size=4)
    batches = list(backend.generate(requests, Decoding(max_new_tokens=12)))
    got = {g.id: g for batch in batches for g in batch}
    for request in requests:
        expected = reference(folder, request.prompt, 12)
        assert got[request.id].text.split() == [f"w{token - 4}" for token in expected if token >= 4]
    same = [Request("a", f"{shots} w1"), Request("b", f"{shots} w1")]
    (pair,) = backend.generate(same, Decoding(max_new_tokens=12))
    assert pair[0].text == pair[1].text == " ".join(f"w{t - 4}" for t in reference(folder, f"{shots} w1", 12))
    assert list(backend.generate(requests, Decoding(max_new_tokens=12), done={g.id for g in batches[0]})) == batches[1:]


def test_the_cache_that_grows_in_place_holds_what_the_copying_one_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.backends.cache.ROOM", 3)
    config = LlamaConfig(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32)
    caches = [growing_cache(config), DynamicCache(config=config)]
    generator = torch.Generator().manual_seed(0)
    for step, tokens in enumerate([5, 1, 1, 1, 1, 1, 2, 1]):
        if step == 2:
            for cache in caches:
                cache.batch_repeat_interleave(3)
        if step == 5:
            for cache in caches:
                cache.batch_select_indices(torch.tensor([0, 2]))
        rows = 1 if step < 2 else 3 if step < 5 else 2
        for layer in range(2):
            keys, values = torch.randn(2, rows, 2, tokens, 8, generator=generator)
            (k1, v1), (k2, v2) = (cache.update(keys, values, layer) for cache in caches)
            assert torch.equal(k1, k2)
            assert torch.equal(v1, v2)
        assert caches[0].get_seq_length() == caches[1].get_seq_length()


def test_generation_ends_at_any_eos_of_the_generation_config(tmp_path: Path) -> None:
    folder = save_base(tmp_path)
    free = answers(TransformersBackend(folder, batch_size=4), Decoding(max_new_tokens=12))
    assert {g.finish for g in free.values()} == {"length"}
    enders = {request.id: free[request.id].text.split()[3] for request in REQUESTS[:2]}
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = [1, *{int(word[1:]) + 4 for word in enders.values()}]
    model.generation_config.save_pretrained(folder)
    stopped = answers(TransformersBackend(folder, batch_size=4), Decoding(max_new_tokens=12))
    for request in REQUESTS:
        words = free[request.id].text.split()
        cut = next((i for i, word in enumerate(words) if word in enders.values()), None)
        assert stopped[request.id].text.split() == words[:cut]
        assert stopped[request.id].finish == ("length" if cut is None else "stop")
    assert "stop" in {g.finish for g in stopped.values()}


def test_a_stop_string_cuts_the_answer(base: Path) -> None:
    free = answers(TransformersBackend(base, batch_size=4), Decoding(max_new_tokens=10))
    word = free["r0"].text.split()[2]
    cut = answers(TransformersBackend(base, batch_size=4), Decoding(max_new_tokens=10, stop=(f" {word}",)))
    for id_, generation in free.items():
        expected, found, _ = generation.text.partition(f" {word}")
        assert cut[id_].text == expected
        assert cut[id_].finish == ("stop" if found else "length")


def test_a_resumed_run_and_its_parts_make_the_same_batches(base: Path) -> None:
    decoding = Decoding(max_new_tokens=8)
    whole = list(TransformersBackend(base, batch_size=4).generate(REQUESTS, decoding))
    assert [len(batch) for batch in whole] == [4, 4, 3]
    done = {g.id for g in whole[0]} | {whole[1][0].id}
    assert list(TransformersBackend(base, batch_size=4).generate(REQUESTS, decoding, done=done)) == whole[1:]
    parts = [list(TransformersBackend(base, batch_size=4).generate(REQUESTS, decoding, part=(k, 2))) for k in (0, 1)]
    assert parts == [whole[::2], whole[1::2]]


def test_nothing_is_loaded_when_nothing_is_open(tmp_path: Path) -> None:
    backend = TransformersBackend(tmp_path / "no such model")
    assert list(backend.generate(REQUESTS, Decoding(max_new_tokens=4), done={r.id for r in REQUESTS})) == []
    assert list(backend.generate([], Decoding(max_new_tokens=4))) == []


def test_an_adapter_changes_the_answers_and_leaves_the_base_as_it_was(base: Path, adapter: Path) -> None:
    backend = TransformersBackend(base, batch_size=4)
    decoding = Decoding(max_new_tokens=8)
    before = answers(backend, decoding)
    adapted = answers(backend, decoding, adapter=adapter)
    assert adapted != before
    assert answers(backend, decoding) == before
    assert answers(backend, decoding, adapter=adapter) == adapted


def test_a_merged_adapter_has_the_logits_of_the_unmerged_one(base: Path, adapter: Path) -> None:
    from peft import PeftModel

    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[0, 10, 20, 30]])
    with torch.inference_mode():
        merged = load_adapter(plain, adapter)(input_ids=ids).logits
        apart = PeftModel.from_pretrained(plain, str(adapter)).eval()(input_ids=ids).logits
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_a_bf16_base_stays_apart_in_fp32(base: Path, adapter: Path) -> None:
    model = load_adapter(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
    weights = {name: p.dtype for name, p in model.named_parameters()}
    assert {dtype for name, dtype in weights.items() if "lora_" in name} == {torch.float32}
    assert answers(TransformersBackend(base, dtype="bfloat16"), Decoding(max_new_tokens=4), adapter=adapter)


def test_two_adapters_in_one_process_do_not_mix(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = save_adapter(base, tmp_path / "other")
    torch.manual_seed(5)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "adapter_model.safetensors")
    save_file({k: torch.randn_like(v) for k, v in weights.items()}, other / "adapter_model.safetensors")
    shared = TransformersBackend(base, batch_size=4)
    decoding = Decoding(max_new_tokens=8)
    mixed = [answers(shared, decoding, adapter=folder) for folder in (adapter, other, adapter)]
    alone = [
        answers(TransformersBackend(base, batch_size=4), decoding, adapter=folder)
        for folder in (adapter, other, adapter)
    ]
    assert mixed == alone
    assert mixed[0] != mixed[1]


def test_an_inert_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    folder = save_adapter(base, tmp_path / "inert", trained=False)
    with pytest.raises(AdapterInert, match="inert"):
        answers(TransformersBackend(base), Decoding(max_new_tokens=2), adapter=folder)


@pytest.mark.parametrize("damage", ["missing", "pickle", "other base", "half"])
def test_an_adapter_that_does_not_fit_is_refused_by_name(base: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "broken"
    if damage == "missing":
        folder.mkdir()
    elif damage == "pickle":
        save_adapter(base, folder)
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    elif damage == "other base":
        wide = save_base(tmp_path / "wide")
        config = LlamaConfig.from_pretrained(wide, hidden_size=48, num_attention_heads=6, num_key_value_heads=2)
        LlamaForCausalLM(config).save_pretrained(wide)
        save_adapter(wide, folder)
    else:
        from safetensors.torch import load_file, save_file

        save_adapter(base, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        kept = {k: v.clone() for k, v in weights.items() if "layers.0" in k}
        save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(BackendError, match="broken"):
        answers(TransformersBackend(base), Decoding(max_new_tokens=2), adapter=folder)


def test_prompts_that_do_not_fit_the_context_are_refused_and_answers_are_capped(tmp_path: Path) -> None:
    backend = TransformersBackend(save_base(tmp_path, context=10))
    (capped,) = next(backend.generate([Request("a", "w1 w2 w3")], Decoding(max_new_tokens=50)))
    assert (capped.tokens, capped.finish) == (6, "length")
    with pytest.raises(BackendError, match="whose context is 10"):
        next(backend.generate([Request("a", "w1 " * 20)], Decoding(max_new_tokens=5)))


def test_misuse_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not unique"):
        list(TransformersBackend(base).generate([Request("a", "w1"), Request("a", "w2")], Decoding(4)))
    with pytest.raises(ValueError, match="max_new_tokens"):
        list(TransformersBackend(base).generate([Request("a", "w1")], Decoding(0)))
    with pytest.raises(BackendError, match="dtype 'half-ish'"):
        list(TransformersBackend(base, dtype="half-ish").generate([Request("a", "w1")], Decoding(4)))
    with pytest.raises(BackendError, match="cannot be loaded"):
        list(TransformersBackend(tmp_path / "nothing").generate([Request("a", "w1")], Decoding(4)))


def test_the_fingerprint_follows_the_content_not_the_place(base: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    assert base_fingerprint(copy) == base_fingerprint(base)
    save_base(copy, seed=9)
    assert base_fingerprint(copy) != base_fingerprint(base)


def test_jobs_of_one_process_share_a_backend(base: Path) -> None:
    assert open_backend(str(base), batch_size=3) is open_backend(str(base), batch_size=3)
