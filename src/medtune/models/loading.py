"""Tokenizers and weights from the Hub, a local folder or the run itself.

Covered: where a base lies, safe reading (safetensors, else torch's weights-only loader), NF4, tuned models.
Not covered: what is fast here (`probe`), prompt formats (`chat_template`), making a base (`scratch`, `shapes`).
No code that comes with a model is ever run: neither a pickle's nor a repository's own Python.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import socket
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from medtune.errors import ModelError, PrerequisiteError
from medtune.models import probe
from medtune.recipe import ModelSection, Recipe
from medtune.run_dir import RunDir

disable_progress_bar()  # of reading and writing weights; downloads keep theirs
STARTER = Path(__file__).parent.parent / "starter" / "model"


def locate(section: ModelSection, run_dir: RunDir) -> str:
    """Where the base is loaded from: a Hub id, a local folder, or the run's own folder for `scratch`."""
    if section.base == "scratch":
        return str(run_dir.base)
    return published(section)


def published(section: ModelSection) -> str:
    """`locate` for a base that needs no run: anything but `scratch`. Raises ModelError where `starter` is missing."""
    if section.base == "starter":
        if not (STARTER / "model.safetensors").is_file():
            raise ModelError(
                "model.base: starter, but the embedded model is missing from this installation. Install medtune again, "
                "or name a Hub id or a local folder."
            )
        return str(STARTER)
    return section.base


def pinned(section: ModelSection, run_dir: RunDir) -> ModelSection:
    """The section at the Hub commit that this run loaded first: base and tuned stay one model if the Hub moves."""
    base = run_dir.manifest().get("base", {})
    if section.revision is None and base.get("id") == section.base and base.get("commit"):
        return section.model_copy(update={"revision": base["commit"]})
    return section


def family(config: PretrainedConfig) -> Literal["causal", "seq2seq"]:
    """Whether a model continues its input (decoder-only) or answers it (encoder-decoder)."""
    return "seq2seq" if config.is_encoder_decoder else "causal"


def require_room(recipe: Recipe, config: PretrainedConfig) -> None:
    """Raise ModelError where `data.max_length` is more than the model has positions for: an index error on the way, or
    positions that it has never seen. Bases without a limit (T5) pass."""
    positions = getattr(config, "max_position_embeddings", None)
    room = (positions or sys.maxsize) - (recipe.tune.prompt.tokens if recipe.tune.method == "prompt" else 0)
    if recipe.data.max_length > room:
        raise ModelError(
            f"data.max_length: {recipe.data.max_length}, but {recipe.model.base} has {positions:,} positions, of which "
            f"a conversation can have {room:,} (tune.prompt.tokens take the others). Set data.max_length: {room}."
        )


def load_config(location: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration at `location`. Raises ModelError where there is none, or one that needs code of its own."""
    return _read("configuration", location, lambda: AutoConfig.from_pretrained(location, **_where(location, revision)))


def load_tokenizer(location: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The fast tokenizer at `location`. Where it has no pad token, EOS pads: labels are masked by length."""
    tokenizer = _read(
        "tokenizer", location, lambda: AutoTokenizer.from_pretrained(location, **_where(location, revision))
    )
    if not tokenizer.is_fast:
        raise ModelError(
            f"{location}: its tokenizer has no fast version. Expected a tokenizer.json. Convert it with "
            "transformers.convert_slow_tokenizer, or use another base."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    section: ModelSection, location: str, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """The base model, in eval mode, on its device, in the dtype and with the attention kernel of the section.

    `device` and `dtype` override the section's. Raises ModelError for weights that cannot be read safely, and
    PrerequisiteError where `nf4` lacks bitsandbytes.
    """
    config = load_config(location, section.revision)
    device = device or probe.device(section)
    dtype = dtype or probe.dtype(section, device)
    kernel = probe.attention(section, device, dtype)
    if getattr(config, "attn_logit_softcapping", None):
        kernel = "eager"  # the only kernel that caps (Gemma 2)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": kernel}
    if section.quantization == "nf4":
        options |= {"quantization_config": nf4(), "device_map": {"": device}}
    loader = AutoModelForSeq2SeqLM if family(config) == "seq2seq" else AutoModelForCausalLM
    model = _read(
        "weights",
        location,
        lambda: loader.from_pretrained(
            location, config=config, weights_only=True, **options, **_where(location, section.revision)
        ),
    )
    if section.quantization == "nf4":
        _keep_differentiable(model)
        return model.eval()
    return model.to(device).eval()


def load_tuned(section: ModelSection, location: str, adapter: Path) -> PreTrainedModel:
    """The tuned model: the base with the PEFT adapter in `adapter`, or the whole model that lies there."""
    if not (adapter / "adapter_config.json").exists():
        if not (adapter / "config.json").exists():
            raise ModelError(
                f"{adapter}: no tuned model. Expected adapter_config.json or config.json. Run: medtune tune"
            )
        return load_model(section.model_copy(update={"revision": None}), str(adapter))
    from peft import PeftModel

    base = load_model(section, location)
    return _read("adapter", str(adapter), lambda: PeftModel.from_pretrained(base, str(adapter))).eval()


def nf4() -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantisation and bf16 compute. Raises PrerequisiteError without bitsandbytes."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PrerequisiteError(
            "model.quantization: nf4 needs bitsandbytes, which is not installed. Run: pip install 'medtune[nf4]', or "
            "set model.quantization: none."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Forbid bitsandbytes to repack weights for inference on CPUs with AVX512-BF16.

    It never undoes that, and its kernel has no backward pass: after the first evaluation during tuning no gradient
    would flow through the base any more, without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _where(location: str, revision: str | None) -> dict[str, Any]:
    local = Path(location).is_dir()
    return {
        "trust_remote_code": False,
        "local_files_only": local or no_hub(),
        **({} if local else {"revision": revision or "main"}),
    }


@cache
def no_hub() -> bool:
    """Whether the Hub's name does not even resolve: asking all the same would take half a minute of retries."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return False
    try:
        socket.getaddrinfo(urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname, 443)
    except OSError:
        return True
    return False


def _read(what: str, location: str, read: Callable[[], Any]) -> Any:
    """`read()`, with every known way to fail told as what was found, what was expected and what to do."""
    # transformers would otherwise ask a service on the Hub to convert a repository that has only pytorch_model.bin.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        return read()
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{location}: its weights are a pickle that holds more than tensors; they were not opened. Expected "
            "safetensors or a plain pytorch_model.bin. Use another revision, or convert it where you trust it."
        ) from error
    except torch.OutOfMemoryError as error:
        raise PrerequisiteError(
            f"{location}: the {what} do not fit into the device's memory. Set model.quantization: nf4, "
            "model.device: cpu or a smaller model.base; medtune check RECIPE shows what each needs."
        ) from error
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = (
            "The folder must hold config.json, tokenizer.json and model.safetensors (or pytorch_model.bin)."
            if Path(location).is_dir()
            else "Expected `scratch`, `starter`, an existing local folder, or an id on huggingface.co that is public "
            "or that your HF_TOKEN may read; with the Hub out of reach, one that is already in the cache."
        )
        raise ModelError(
            f"{location}: the {what} cannot be loaded ({first}). {hint} Correct model.base or model.revision."
        ) from error
