"""What this machine really does fast: device, number format and attention kernel, timed once per process.

Covered: a kernel is timed only after its result was found right; the memory that this process took. Not covered: the
memory that a recipe will take (`estimate`).
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from medtune.errors import PrerequisiteError
from medtune.recipe import ModelSection

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why in words for the report."""

    name: str
    because: str


def devices() -> list[str]:
    """What this machine has of CUDA, MPS and CPU."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, is_there in there.items() if is_there]


def device(section: ModelSection) -> torch.device:
    """The section's device, or with `auto` the one whose matrix products are fastest."""
    if section.device == "auto":
        return torch.device(device_choice().name)
    if section.device not in devices():
        raise PrerequisiteError(
            f"model.device: {section.device} is not there. This machine has {', '.join(devices())}. "
            "Set model.device: auto."
        )
    return torch.device(section.device)


@cache
def device_choice() -> Choice:
    """The device with the fastest matrix products that are right; where there is one alone, nothing is timed."""
    if len(devices()) == 1:
        return Choice(devices()[0], "no other device is there")
    formats = (torch.float32, torch.bfloat16)
    peaks = {name: max(matrix_peak(torch.device(name), dtype) for dtype in formats) for name in devices()}
    measured = ", ".join(f"{name} {peak / 1e12:.2f} TFLOP/s" for name, peak in peaks.items())
    return Choice(max(peaks, key=lambda name: peaks[name]), f"matrix products: {measured}")


def dtype(section: ModelSection, device: torch.device) -> torch.dtype:
    """The section's number format, or with `auto` the fastest one that computes rightly."""
    return DTYPES[dtype_choice(device).name if section.dtype == "auto" else section.dtype]


def attention(section: ModelSection, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel to load a model with; for `documents`, which serves training without padding, the one of `auto`."""
    if section.attention in ("auto", "documents"):
        return attention_choice(device, dtype).name
    return section.attention


def facts(section: ModelSection) -> dict[str, dict[str, str]]:
    """What is in force and why, for the report: `{"dtype": {"name": "bfloat16", "because": ...}, ...}`."""
    here = device(section)
    number = dtype(section, here)
    asked = "the recipe says so"
    dtype_because = asked if section.dtype != "auto" else dtype_choice(here).because
    kernel_because = asked if section.attention not in ("auto", "documents") else attention_choice(here, number).because
    return {
        "device": {
            "name": here.type,
            "because": asked if section.device != "auto" else device_choice().because,
        },
        "dtype": {"name": str(number).removeprefix("torch."), "because": dtype_because},
        "attention": {"name": attention(section, here, number), "because": kernel_because},
    }


@cache
def dtype_choice(device: torch.device) -> Choice:
    """bfloat16 where its matrix product is right and at least a fifth faster than float32's; else float32.

    float16 is never chosen: its narrow range needs loss scaling, which only an explicit recipe should ask for.
    """
    plain, fast = matrix_peak(device, torch.float32), matrix_peak(device, torch.bfloat16)
    if fast == 0:
        return Choice("float32", "bfloat16 products are wrong or missing here")
    ratio = f"bfloat16 matrix products run at {fast / plain:.1f} x float32's speed here"
    return Choice("bfloat16" if fast > 1.2 * plain else "float32", ratio)


@cache
def matrix_peak(device: torch.device, dtype: torch.dtype, size: int = 0) -> float:
    """Best measured FLOP/s of one square matrix product; 0.0 where the format is missing or its result is wrong."""
    size = size or (4096 if device.type == "cuda" else 768)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    try:
        error = (a[:64] @ b).float() - a[:64].float() @ b.float()
    except (RuntimeError, NotImplementedError):
        return 0.0
    if not error.abs().max().item() < 0.02 * size**0.5:
        return 0.0
    return 2 * size**3 / _seconds(lambda: a @ b, device)


@cache
def attention_choice(device: torch.device, dtype: torch.dtype) -> Choice:
    """The faster of eager and SDPA, forward and backward over a padded batch of short rows, where both agree."""
    from torch.nn.functional import scaled_dot_product_attention

    rows, heads, length, width = (16, 16, 512, 64) if device.type == "cuda" else (2, 4, 256, 64)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(rows, heads, length, width, generator=generator).to(device, dtype).requires_grad_()
        for _ in range(3)
    )
    mask = torch.zeros(rows, 1, length, length, device=device, dtype=dtype)
    mask.masked_fill_(torch.ones(length, length, device=device, dtype=torch.bool).triu(1), torch.finfo(dtype).min)

    def eager() -> torch.Tensor:
        scores = q @ k.transpose(-1, -2) * width**-0.5 + mask
        return torch.softmax(scores, -1, dtype=torch.float32).to(dtype) @ v

    def sdpa() -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    if not torch.allclose(eager().float(), sdpa().float(), atol=0.05):
        return Choice("eager", "SDPA's results differ from the plain computation here")
    slow = _seconds(lambda: eager().sum().backward(), device)
    fast = _seconds(lambda: sdpa().sum().backward(), device)
    name = "sdpa" if fast < slow else "eager"
    return Choice(name, f"eager took {slow * 1e3:.1f} ms, SDPA {fast * 1e3:.1f} ms, forward and backward")


def _seconds(work: Callable[[], object], device: torch.device, limit_seconds: float = 0.08) -> float:
    """The shortest of several runs within about `limit_seconds`, after one to warm up."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - start

    once()
    best, spent = once(), 0.0
    while spent < limit_seconds:
        seconds = once()
        best, spent = min(best, seconds), spent + seconds
    return best


def peak_resident_bytes() -> int:
    """The most memory that this process held at once, since it began or since Linux was told to count anew."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
