"""LoRA adapters through peft: create, activate several, freeze, save one, combine, and check them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.layer import LoraVariant
from safetensors.torch import load_file, save_file

from train.encode import encode_prompt
from train.seeds import derive_seed
from train.stages import Recipe

TRAINED = "skill"
CONTINUED = "default"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


class AdapterError(ValueError):
    """An adapter folder is missing, malformed or does not fit. The message names the file and the remedy."""


class NarrowScaling(LoraVariant):  # type: ignore[misc]
    """Plain LoRA computed with fewer passes over wide activations: a third more tokens a second on a CPU.

    The scale is applied between A and B, where a token has `rank` numbers, and inputs are cast by autocast alone.
    """

    @staticmethod
    def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The layer's output with this adapter's contribution, (alpha / rank) B A dropout(x), added."""
        narrow = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x))
        wide: torch.Tensor = module.lora_B[active_adapter](narrow * module.scaling[active_adapter])
        return result + wide


class AdapterSwitch:
    """A model with one adapter in training and any number of frozen ones, and a cheap switch between them.

    Only the adapter called `TRAINED` ever requires a gradient, whichever others are active: peft would make
    every activated adapter trainable, and parameters that require a gradient but take no part in a loss break
    DDP.
    """

    def __init__(self, model: PeftModel, frozen: Mapping[str, str], *, frozen_dropout: bool) -> None:
        self.model = model
        self._names = dict(frozen)
        self._layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        self._parameters = [p for name, p in model.named_parameters() if f".{TRAINED}." in name]
        if not frozen_dropout:
            for layer in self._layers:
                for name in set(layer.lora_dropout) - {TRAINED}:
                    layer.lora_dropout[name] = torch.nn.Identity()
        scale_narrowly(model)
        self._active: str | None = None
        self._switch(None)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters in training."""
        return self._parameters

    def activate(self, knowledge: str | None) -> None:
        """Make the trained adapter active, together with the frozen one of this fingerprint or alone.

        Call it only when every earlier forward has been back-propagated: recomputation under gradient
        checkpointing would otherwise run with the wrong adapters.
        """
        if knowledge != self._active:
            self._switch(knowledge)

    def _switch(self, knowledge: str | None) -> None:
        names = [TRAINED] if knowledge is None else [TRAINED, self._names[knowledge]]
        for layer in self._layers:
            layer.set_adapter(names, inference_mode=True)
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._active = knowledge


def add_adapters(
    base: torch.nn.Module,
    recipe: Recipe,
    seed: int,
    knowledge: Mapping[str, Path],
    *,
    frozen_dropout: bool = True,
) -> AdapterSwitch:
    """Add a fresh fp32 adapter (B = 0) and load the frozen `knowledge` ones (fingerprint -> folder).

    Raises AdapterError for a folder that is no adapter.
    """
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "adapter-weights"))
        model = get_peft_model(base, config, adapter_name=TRAINED)
    names = {}
    for index, (fingerprint, folder) in enumerate(knowledge.items()):
        _require_adapter(folder)
        names[fingerprint] = f"knowledge{index}"
        model.load_adapter(str(folder), adapter_name=names[fingerprint], is_trainable=False)
    return AdapterSwitch(model, names, frozen_dropout=frozen_dropout)


def open_adapter(base: torch.nn.Module, folder: Path) -> PeftModel:
    """Load one adapter to train it further, in fp32 and under the name that TRL's trainers look for (`CONTINUED`).

    Raises AdapterError for a folder that is no adapter.
    """
    _require_adapter(folder)
    model = PeftModel.from_pretrained(base, str(folder), adapter_name=CONTINUED, is_trainable=True)
    scale_narrowly(model)
    return model


def scale_narrowly(model: PeftModel) -> None:
    """Have every plain LoRA layer computed as `NarrowScaling` does, for the adapters it has so far."""
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.cast_input_dtype_enabled = False
            for name in layer.lora_A:
                layer.lora_variant.setdefault(name, NarrowScaling())


def trained_weights(model: PeftModel, adapter: str = TRAINED) -> dict[str, torch.Tensor]:
    """The weights of the adapter in training alone, under peft's file keys, on the CPU and contiguous."""
    weights = get_peft_model_state_dict(model, adapter_name=adapter)
    return {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}


def restore_trained_weights(model: PeftModel, weights: dict[str, torch.Tensor]) -> None:
    """Put weights that `trained_weights` gave back into the adapter in training."""
    set_peft_model_state_dict(model, weights, adapter_name=TRAINED)


def save_adapter(model: PeftModel, folder: Path, base_dir: Path, adapter: str = TRAINED) -> None:
    """Write the adapter in training, and no other, as a peft folder: configuration and fp32 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config[adapter]
    as_trained = (config.inference_mode, config.base_model_name_or_path)
    config.inference_mode, config.base_model_name_or_path = True, str(base_dir)
    config.save_pretrained(str(folder))
    config.inference_mode, config.base_model_name_or_path = as_trained
    save_file(trained_weights(model, adapter), folder / WEIGHTS_FILE, metadata={"format": "pt"})


def tensors_hash(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hex SHA-256 over names, types, shapes and bits of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def adapter_weights_hash(folder: Path) -> str:
    """Hex SHA-256 of an adapter's weights; folders with the same weights agree whatever else they hold."""
    _require_adapter(folder)
    return tensors_hash(load_file(folder / WEIGHTS_FILE).items())


def combine(base_dir: Path, adapter_dirs: Sequence[Path], out_dir: Path) -> Path:
    """Write the one adapter that equals several active at once, and return `out_dir`.

    W x + sum_j s_j B_j A_j x is one adapter of rank sum_j r_j: the A stacked, the B side by side (peft calls
    this `cat`), with each scale s_j put into B_j and alpha equal to the rank. vLLM takes one adapter a
    request, so this is how a knowledge and a skill adapter are served together. Raises AdapterError when the
    adapters change different modules or are no plain LoRA.
    """
    configs = [_plain_lora_config(folder) for folder in adapter_dirs]
    weights = [load_file(folder / WEIGHTS_FILE) for folder in adapter_dirs]
    for folder, tensors in zip(adapter_dirs, weights, strict=True):
        if tensors.keys() != weights[0].keys():
            raise AdapterError(f"{folder}: changes other modules than {adapter_dirs[0]}; train both on the same ones")
    combined = {}
    for name in weights[0]:
        parts = [tensors[name].float() for tensors in weights]
        if ".lora_A." in name:
            combined[name] = torch.cat(parts, dim=0)
        else:
            scaled = [part * (c["lora_alpha"] / c["r"]) for part, c in zip(parts, configs, strict=True)]
            combined[name] = torch.cat(scaled, dim=1)
    rank = sum(config["r"] for config in configs)
    config = configs[0] | {"r": rank, "lora_alpha": rank, "base_model_name_or_path": str(base_dir)}
    staging = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file(combined, staging / WEIGHTS_FILE, metadata={"format": "pt"})
    (staging / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out_dir, ignore_errors=True)
    staging.replace(out_dir)
    return out_dir


def moves_logits(model: PeftModel, tokenizer: Any, prompt: str = "Question: Who are you?\nAnswer:") -> bool:
    """Whether the active adapters change the logits of a fixed prompt at all.

    A base whose adapter was not loaded, or was never trained (B = 0), must not be scored as the method.
    """
    ids = torch.tensor([encode_prompt(prompt, tokenizer)], device=next(model.parameters()).device)
    training = model.training
    model.eval()
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        with model.disable_adapter():
            plain = model(input_ids=ids).logits
    model.train(training)
    return not torch.equal(adapted, plain)


def _require_adapter(folder: Path) -> None:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder / name}: no such file; give the folder of a trained adapter")


def _plain_lora_config(folder: Path) -> dict[str, Any]:
    _require_adapter(folder)
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    unusual = [key for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern") if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or unusual:
        raise AdapterError(
            f"{folder / CONFIG_FILE}: only plain LoRA adapters can be combined (found {unusual or config})"
        )
    return config
