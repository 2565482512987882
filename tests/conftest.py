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
