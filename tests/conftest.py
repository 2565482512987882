"""Where the real files lie: outside the repository. Tests that use them skip, saying so, where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"../shared/{name} is absent")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data files, see their README.md."""
    return _folder("data")


@pytest.fixture(scope="session")
def shared_tokenizers() -> Path:
    """Real tokenizers: gpt2, llama2, t5-small."""
    return _folder("tokenizers")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of the Hub run when they are asked for, tests of a GPU where there is one; neither is needed for green."""
    if item.get_closest_marker("network") and "network" not in item.config.option.markexpr:
        pytest.skip("needs the Hugging Face Hub: pytest -m network")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
