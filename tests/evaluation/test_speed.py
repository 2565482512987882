"""Costs are measured, not assumed; what was not measured is None."""

import time

import numpy as np
import pytest

from medtune.evaluation import speed
from medtune.evaluation.systems import System
from medtune.types import Completion


def test_latency_is_per_question_and_alone(conversation):
    batches = []

    def answers(conversations, batch_size):
        batches.append((len(conversations), batch_size))
        time.sleep(0.2 if len(batches) == 1 else 0.01)
        yield 0, Completion("a")

    found = speed.latency(System("base", "f", answers), [conversation(i) for i in range(4)])
    assert batches == [(1, 1)] * 5
    assert 0.01 <= found["latency_mean_seconds"] <= found["latency_p95_seconds"] < 0.15, "the warm-up is not counted"


def test_the_first_token_is_timed_by_itself(conversation):
    def slow(*_):
        time.sleep(0.03)
        yield 0, Completion("a b c")

    def first(*_):
        time.sleep(0.01)
        yield 0, Completion("a")

    found = speed.latency(System("base", "f", slow, None, first), [conversation(i) for i in range(3)])
    assert 0.01 <= found["first_token_p50_seconds"] < found["latency_p50_seconds"] <= found["latency_p95_seconds"]
    assert speed.latency(System("nearest", "f", slow), [conversation(1)])["first_token_p50_seconds"] is None


def test_no_questions_give_no_latency():
    found = speed.latency(System("base", "f", lambda *_: iter(())), [])
    assert set(found.values()) == {None}


def test_throughput_leaves_out_failures_and_floors(record):
    records = [
        record(1, completion=Completion("a", "stop", 3, 30, 2.0)),
        record(2, completion=Completion("a", "stop", 3, 10, 2.0)),
        record(3, completion=Completion("", "error", 3, 0, 60.0), status="failed"),
    ]
    assert speed.tokens_per_second(records) == 10
    assert speed.tokens_per_second([record(1, completion=Completion("a"))]) is None


def test_weights_in_several_formats_are_shipped_once(tmp_path):
    for name, size in (
        ("model.safetensors", 100),
        ("pytorch_model.bin", 101),
        ("tokenizer.json", 7),
        ("config.json", 3),
    ):
        (tmp_path / name).write_bytes(b"0" * size)
    assert speed.disk_bytes([tmp_path]) == 110
    assert speed.disk_bytes([tmp_path, tmp_path / "config.json"]) == 113
    (tmp_path / "model.safetensors").unlink()
    assert speed.disk_bytes([tmp_path]) == 111
    assert speed.disk_bytes([]) is None


def test_peak_memory_sees_what_is_already_gone():
    with speed.peak_memory() as small:
        pass
    with speed.peak_memory() as large:
        np.ones(10**8, dtype=np.uint8).sum()
    assert large["bytes"] - small["bytes"] == pytest.approx(10**8, rel=0.2)
