"""Checkpoints that can be trusted after kill -9, and the best weights so far.

transformers writes a checkpoint file by file; one that was cut off looks like any other. A marker written last tells
them apart. The best weights lie in a folder of their own that is replaced as a whole.

Covered: marking, finding, clearing away. Not covered: what a checkpoint holds (transformers' Trainer: weights,
optimizer, schedule, random states).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from medtune.run_dir import read_json, write_json

MARKER = "complete.json"


def mark_complete(checkpoint: Path, fingerprint: str) -> None:
    """Declare `checkpoint` whole; `fingerprint` says for which recipe and data it was made."""
    for file in checkpoint.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    write_json(checkpoint / MARKER, {"fingerprint": fingerprint})


def last_complete(folder: Path, fingerprint: str) -> Path | None:
    """The newest whole checkpoint of this fingerprint. Torn ones and those of another recipe are removed.

    Without one the best weights in `folder` are removed too: they could be another recipe's.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    usable = [c for c in found if (c / MARKER).exists() and read_json(c / MARKER)["fingerprint"] == fingerprint]
    for checkpoint in set(found) - set(usable):
        shutil.rmtree(checkpoint, ignore_errors=True)  # another process may be at it too
    if not usable:
        shutil.rmtree(folder / "best", ignore_errors=True)
    return usable[-1] if usable else None


def replace_folder(new: Path, target: Path) -> None:
    """Put the finished folder `new` where `target` is. A process killed in between leaves one of the two whole."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
