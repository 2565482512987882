"""One run's folder: where each artifact lies, how it is written, and whether a stage is up to date.

Covered: paths, atomic writes, the manifest, stage fingerprints, a lock against two processes in one folder.
Not covered: what the artifacts mean (each stage knows its own) and checkpoints inside a stage (`tuning.checkpoints`).

A stage is up to date when the manifest holds its fingerprint, a hash over the recipe's part that it depends on and
over the artifacts that it reads. The entry is written last, so a stage that was cut off is never taken for done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from medtune.errors import RunDirError

PACKAGES = (
    "medtune",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "datasets",
    "sacrebleu",
    "rouge-score",
)


def write_text(path: Path, text: str) -> None:
    """Write `text` so that `path` holds either the old or the new content, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunDirError(
            f"{path}: cannot be written ({error.strerror}). Free some space or choose another --out."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as indented JSON; NaN and infinity are refused, since no other tool reads them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in `path`; a missing or damaged file is a `RunDirError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunDirError(
            f"{path}: not found. Run the stage that writes it: medtune run RECIPE --out {path.parent}"
        ) from None
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: cannot be read ({error}). Delete it and run the stage again.") from error


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """`write_text` of one JSON object per line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of `path`, line by line."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise RunDirError(
                        f"{path}:{number}: not a JSON object. Delete the file and run its stage again."
                    ) from None
    except FileNotFoundError:
        raise RunDirError(f"{path}: not found. Run the data stage first: medtune data RECIPE") from None


def hash_of(*parts: Any) -> str:
    """A short SHA-256 over the JSON form of `parts`; equal values give equal hashes on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class RunDir:
    """The folder of one run. Nothing is created before something is written."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def adapter(self) -> Path:
        """The tuned weights: a PEFT adapter, or the whole model for `tune.method: full`."""
        return self.path / "adapter"

    @property
    def base(self) -> Path:
        """The base model, where the run itself made it (`model.base: scratch`) or shrank it (`medtune rehearse`)."""
        return self.path / "base"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def split(self, name: str) -> Path:
        """The conversations of one split: `train`, `validation`, `test`; `test_seen` where the recipe asks for it."""
        return self.data / f"{name}.jsonl"

    def manifest(self) -> dict[str, Any]:
        """What is known about the run so far; an empty run has no stages."""
        return read_json(self.manifest_path) if self.manifest_path.exists() else {"stages": {}}

    def update_manifest(self, **entries: Any) -> None:
        """Set top-level entries of the manifest, such as `chat_template` or `model`."""
        write_json(self.manifest_path, {**self.manifest(), **entries})

    def is_done(self, stage: str, fingerprint: str) -> bool:
        """Whether `stage` was finished with exactly this fingerprint."""
        return bool(self.manifest()["stages"].get(stage, {}).get("fingerprint") == fingerprint)

    def finish(self, stage: str, fingerprint: str, **facts: Any) -> None:
        """Record that `stage` is done, with `facts` about it (seconds, counts, hashes)."""
        manifest = self.manifest()
        manifest["stages"][stage] = {
            "fingerprint": fingerprint,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **facts,
        }
        write_json(self.manifest_path, manifest)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process. The operating system lets go of it even after kill -9."""
        import fcntl

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "w")  # noqa: SIM115 - closed below
        except OSError as error:
            raise RunDirError(f"{self.path}: cannot be written ({error.strerror}). Choose another --out.") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunDirError(
                    f"{self.path}: another medtune process works here. Wait for it, or choose another --out."
                ) from None
            yield


def environment() -> dict[str, Any]:
    """Versions and machine, for the manifest. No user name, no host name, no path."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }
