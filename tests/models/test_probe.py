from __future__ import annotations

import time
from typing import Any

import psutil
import pytest
import torch

from medtune.errors import PrerequisiteError
from medtune.models import probe
from medtune.recipe import ModelSection

CPU = torch.device("cpu")


def test_choices_say_why() -> None:
    facts = probe.facts(ModelSection(base="x", device="cpu"))
    assert facts["device"] == {"name": "cpu", "because": "the recipe says so"}
    assert facts["dtype"]["name"] in ("float32", "bfloat16")
    assert "x float32's speed" in facts["dtype"]["because"]
    assert facts["attention"]["name"] in ("eager", "sdpa")
    start = time.perf_counter()
    assert probe.facts(ModelSection(base="x", device="cpu")) == facts
    assert time.perf_counter() - start < 0.05


def test_the_recipe_has_the_last_word() -> None:
    section = ModelSection(base="x", device="cpu", dtype="float16", attention="sdpa")
    assert probe.dtype(section, CPU) == torch.float16
    assert probe.attention(section, CPU, torch.float16) == "sdpa"


def test_absent_device_is_explained() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(PrerequisiteError, match=r"cuda is not there.*has cpu.*model\.device: auto"):
        probe.device(ModelSection(base="x", device="cuda"))


def test_a_format_that_computes_wrongly_is_not_chosen(monkeypatch: Any) -> None:
    monkeypatch.setattr(probe, "matrix_peak", lambda _device, dtype: 1e12 if dtype == torch.float32 else 0.0)
    assert probe.dtype_choice.__wrapped__(CPU).name == "float32"
    monkeypatch.setattr(probe, "matrix_peak", lambda _device, dtype: 1e12 if dtype == torch.float32 else 5e12)
    assert probe.dtype_choice.__wrapped__(CPU).name == "bfloat16"


def test_the_faster_device_is_chosen_not_the_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(probe, "devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(probe, "matrix_peak", lambda device, _dtype: {"cuda": 1e11, "cpu": 9e11}[device.type])
    assert probe.device_choice.__wrapped__() == probe.Choice(
        "cpu", "matrix products: cuda 0.10 TFLOP/s, cpu 0.90 TFLOP/s"
    )
    monkeypatch.setattr(probe, "devices", lambda: ["cpu"])
    assert probe.device_choice.__wrapped__().because == "no other device is there"


def test_peak_memory_counts_what_was_given_back() -> None:
    before = psutil.Process().memory_info().rss
    torch.ones(2**27).sum()
    assert probe.peak_resident_bytes() > before + 2**28


def test_matrix_peak_is_plausible() -> None:
    assert 1e8 < probe.matrix_peak(CPU, torch.float32, 128) < 1e14
