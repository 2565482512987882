"""Where the bytes of a local source come from: a file, a folder, or an archive that is read in place.

Covered: .gz, .zip, .tar, .tar.gz (nothing is unpacked to disk), folders of these; errors naming the file.
Not covered: what the bytes mean (`formats`), and the Hub (`sources`).
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from medtune.errors import DataError

BROKEN = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)
TAR = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class OpenFile:
    """One readable file. `name` is what messages say, such as `medquad.tar.gz:1_CancerGov_QA/0000001_1.xml`."""

    name: str
    suffix: str
    stream: IO[bytes]


def open_files(path: Path, suffixes: tuple[str, ...]) -> Iterator[OpenFile]:
    """The files at or below `path` that end in one of `suffixes` (a trailing .gz does not count), by name.

    A file is closed when the next one is asked for. Raises DataError when `path` holds none of them, is truncated or
    damaged.
    """
    others: Counter[str] = Counter()
    found = False
    for file in _walk(path):
        if file.suffix not in suffixes:
            others[file.suffix or "no ending"] += 1
            continue
        found = True
        yield file
    if not found:
        there = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5)) or "no file at all"
        raise DataError(
            f"{path}: no file that this layout reads. Found: {there}. "
            f"Expected: {', '.join(suffixes)} (also in .gz, .tar.gz or .zip)."
        )


def local_files(path: Path) -> list[Path]:
    """The files of a local source on disk, archives unopened, in a fixed order."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path).as_posix()))


def _walk(path: Path) -> Iterator[OpenFile]:
    for file in local_files(path):
        name = file.relative_to(path.parent if path.is_file() else path).as_posix()
        try:
            if file.name.lower().endswith(TAR):
                yield from _tar_members(file, name)
            elif file.suffix.lower() == ".zip":
                yield from _zip_members(file, name)
            else:
                with open(file, "rb") as stream:
                    yield _decompressed(name, stream)
        except BROKEN as error:
            raise damaged(name, error) from error


def damaged(name: str, error: BaseException) -> DataError:
    """The error for a file that cannot be read to its end."""
    reason = "ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
    return DataError(f"{name}: cannot be read ({reason}): truncated or damaged. Download or copy it again.")


def _tar_members(file: Path, name: str) -> Iterator[OpenFile]:
    with tarfile.open(file, "r:*") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() and not _is_hidden(member.name) else None
            if stream is not None:
                yield _decompressed(f"{name}:{member.name}", stream)


def _zip_members(file: Path, name: str) -> Iterator[OpenFile]:
    with zipfile.ZipFile(file) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith("/") and not _is_hidden(member):
                with archive.open(member) as stream:
                    yield _decompressed(f"{name}:{member}", stream)


def _decompressed(name: str, stream: IO[bytes]) -> OpenFile:
    plain, _, ending = name.lower().rpartition(".")
    if ending == "gz":
        return OpenFile(name, PurePosixPath(plain).suffix, cast(IO[bytes], gzip.GzipFile(fileobj=stream)))
    return OpenFile(name, PurePosixPath(name.lower()).suffix, stream)


def _is_hidden(name: str) -> bool:
    """Files that operating systems leave behind, such as .DS_Store and __MACOSX/."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
