"""From a recipe's source to raw rows: local files, the embedded starter, or a data set on the Hub.

Covered: telling a local path from a Hub id, streaming, `limit`, the commit that a Hub data set resolves to.
Not covered: opening files (`files`), parsing them (`formats`), what the columns mean (`convert`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from medtune.data.convert import LAYOUTS
from medtune.data.files import BROKEN, damaged, open_files
from medtune.data.formats import Row, rows_of
from medtune.errors import DataError, PrerequisiteError
from medtune.recipe import Source

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def read_rows(source: Source) -> Iterator[Row]:
    """The rows of `source` in a fixed order, `source.limit` of them spread evenly over it.

    A row that cannot be parsed has `problem` set. Raises DataError for a source that cannot be read at all, and
    PrerequisiteError when the Hub is asked for and cannot be reached.
    """
    if source.limit is None:
        return _all_rows(source)
    return _spread(source, source.limit)


def local_path(source: Source) -> Path | None:
    """Where the source lies on this machine; None for a Hub data set. Raises DataError when it is neither."""
    if source.path == "starter":
        return Path(str(resources.files("medtune.starter") / "library.jsonl"))
    path = Path(source.path).expanduser()
    if path.exists():
        return path
    if HUB_ID.fullmatch(source.path):
        return None
    raise DataError(
        f"{source.path}: there is no such file or folder, and a Hub data set is written organisation/name."
        f"{_nearby(path)}"
    )


def pinned(source: Source) -> Source:
    """The source with a Hub data set's revision resolved to a commit; a local source as it is.

    Raises PrerequisiteError when the Hub cannot be reached or has no such data set.
    """
    if local_path(source) is not None:
        return source
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        commit = HfApi().dataset_info(source.path, revision=source.revision).sha
    except (HTTPError, OSError, ValueError) as error:
        raise _unreachable(source, error) from error
    return source.model_copy(update={"revision": commit})


def _all_rows(source: Source) -> Iterator[Row]:
    path = local_path(source)
    if path is None:
        yield from _hub_rows(source)
        return
    if not path.exists():
        raise DataError(
            f"{source.path}: the embedded library is missing from this installation. Install medtune again."
        )
    for file in open_files(path, LAYOUTS[source.layout].suffixes):
        try:
            yield from rows_of(file)
        except BROKEN as error:
            raise damaged(file.name, error) from error


def _spread(source: Source, limit: int) -> Iterator[Row]:
    """Every k-th row. The source is read twice, since only the first pass tells how long it is."""
    total = sum(1 for _ in _all_rows(source))
    wanted = 0
    for index, row in enumerate(_all_rows(source)):
        if wanted < limit and index * limit >= wanted * total:
            wanted += 1
            yield row


def _hub_rows(source: Source) -> Iterator[Row]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise PrerequisiteError(
            f"{source.path}: there is no such local file or folder, and Hub data sets need the package datasets. "
            "Install it: pip install 'medtune[hub]'"
        ) from None
    try:
        rows: Any = datasets.load_dataset(source.path, revision=source.revision, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _unreachable(source, error) from error
    for number, values in enumerate(rows, 1):
        yield Row(f"{source.path}[{source.split}]", number, values)


def _unreachable(source: Source, error: Exception) -> PrerequisiteError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return PrerequisiteError(
        f"{source.path}: there is no such local file or folder, and the Hub data set (revision "
        f"{source.revision or 'newest'}, split {source.split}) cannot be loaded: {first_line}"
        f"{_nearby(Path(source.path))}"
    )


def _nearby(path: Path) -> str:
    """What lies where `path` was looked for, nearest names first."""
    parent = next((p for p in path.parents if p.is_dir()), Path())
    names = sorted(p.name for p in parent.iterdir() if not p.name.startswith("."))
    near = difflib.get_close_matches(path.name, names, 5, 0.5) or names[:10]
    return f" In {parent.resolve()}: {', '.join(near)}." if near else f" {parent.resolve()} is empty."
