"""From the bytes of one file to rows: CSV, JSON list, JSON lines, Parquet, MedQuAD's XML, plain text.

Covered: one row at a time wherever the format allows it; a row that cannot be parsed comes out as a `Row` with
`problem` set, so that the caller can skip and count it. Not covered: which columns a layout wants (`convert`).
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, cast

from medtune.data.files import OpenFile
from medtune.errors import DataError, PrerequisiteError

_NOT_UTF8 = re.compile("[\ud800-\udfff]")
MAX_FIELD = 2**30  # characters; Python's own limit of 131,072 refuses long articles


@dataclass(frozen=True, slots=True)
class Row:
    """One raw row. `number` counts from 1 in its file: data rows of a CSV, lines of JSON lines, pairs of a document."""

    file: str
    number: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def rows_of(file: OpenFile) -> Iterator[Row]:
    """The rows of `file`, by its suffix. Raises DataError when the file as a whole cannot be understood."""
    return READERS[file.suffix](file.name, file.stream)


def _csv_rows(name: str, stream: IO[bytes]) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD)
    # surrogateescape marks the row with foreign bytes, where a strict decoder would take its neighbours down with it
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        header_line = text.readline()
        if not header_line.strip():
            raise DataError(f"{name}: the file is empty; expected a header line with the names of the columns.")
        if _NOT_UTF8.search(header_line):
            raise DataError(f"{name}: the header is not UTF-8 text. Save the file as UTF-8.")
        separator = max(",;\t", key=header_line.count)
        header = next(csv.reader([header_line], delimiter=separator))
        for number, cells in enumerate(_csv_cells(csv.reader(text, delimiter=separator, strict=True)), 1):
            yield _csv_row(name, number, header, cells)
    finally:
        text.detach()  # the stream belongs to the caller


def _csv_cells(reader: Iterator[list[str]]) -> Iterator[list[str] | str]:
    """The cells of each line that is not blank, or what is wrong with it."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"not valid CSV ({error})"
        else:
            if cells:
                yield cells


def _csv_row(name: str, number: int, header: list[str], cells: list[str] | str) -> Row:
    if isinstance(cells, str):
        return Row(name, number, problem=cells)
    if len(cells) != len(header):
        problem = f"{len(cells)} cells, but the header has {len(header)}: {', '.join(header)}"
        return Row(name, number, problem=problem)
    values = dict(zip(header, cells, strict=True))
    bad = [column for column, cell in values.items() if not cell.isascii() and _NOT_UTF8.search(cell)]
    return Row(name, number, values, f"column '{bad[0]}': not UTF-8 text" if bad else "")


def _json_rows(name: str, stream: IO[bytes]) -> Iterator[Row]:
    """A list of objects, or one object per line, whichever the first character says."""
    start = cast(io.BufferedReader, stream).peek(64).lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:1]
    if start != b"[":
        yield from _json_lines(name, stream)
        return
    try:
        items = json.loads(stream.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{name}: not valid JSON (line {error.lineno}: {error.msg}).") from None
    for number, item in enumerate(items, 1):
        yield _object_row(name, number, item)


def _json_lines(name: str, stream: IO[bytes]) -> Iterator[Row]:
    found = False
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield Row(name, number, problem=f"not UTF-8 text (byte {error.start} of the line)")
        except json.JSONDecodeError as error:
            if not found:
                raise DataError(
                    f"{name}: line {number} is not a JSON object ({error.msg}). "
                    "Expected one object per line, or a list of objects: [{...}, ...]."
                ) from None
            yield Row(name, number, problem=f"not valid JSON ({error.msg})")
        else:
            yield _object_row(name, number, item)
        found = True
    if not found:
        raise DataError(f"{name}: the file is empty; expected JSON objects.")


def _object_row(name: str, number: int, item: Any) -> Row:
    if isinstance(item, dict):
        return Row(name, number, item)
    return Row(name, number, problem=f'a {type(item).__name__}, expected an object such as {{"question": ...}}')


def _parquet_rows(name: str, stream: IO[bytes]) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise PrerequisiteError(
            f"{name}: Parquet needs the package pyarrow. Install it: pip install 'medtune[parquet]'"
        ) from None
    try:
        seekable = stream if stream.seekable() else io.BytesIO(stream.read())
        table = pyarrow.parquet.ParquetFile(seekable)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{name}: not a Parquet file ({error}).") from None
    number = 0
    for batch in table.iter_batches(batch_size=1024):
        for item in batch.to_pylist():
            number += 1
            yield Row(name, number, item)


def _medquad_xml_rows(name: str, stream: IO[bytes]) -> Iterator[Row]:
    """One row per pair of a MedQuAD document; four of its files use other, lower-case names."""
    try:
        document = ElementTree.parse(stream).getroot()
    except ElementTree.ParseError as error:
        yield Row(name, 1, problem=f"not valid XML ({error})")
        return
    pairs = [*document.iterfind("QAPairs/QAPair"), *document.iterfind("qaPairs/pair")]
    if not pairs:
        yield Row(
            name, 1, problem=f"no QAPairs/QAPair below the root <{document.tag}>; is this one of MedQuAD's documents?"
        )
    synonyms = [element.text.strip() for element in document.iter("Synonym") if element.text]
    for number, pair in enumerate(pairs, 1):
        question = next(
            (element for element in pair if element.tag.lower() == "question"), ElementTree.Element("question")
        )
        values = {
            "focus": document.findtext("Focus") or document.findtext("doctitle-focus"),
            "question": question.text,
            "answer": pair.findtext("Answer") or pair.findtext("answer") or "",
            "question_type": question.get("qtype", ""),
            "url": document.get("url", ""),
            "synonyms": synonyms,
        }
        yield Row(name, number, values)


def _text_rows(name: str, stream: IO[bytes]) -> Iterator[Row]:
    """The whole file as one row; the title is its first Markdown heading, or the file's name."""
    try:
        text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Row(name, 1, problem=f"not UTF-8 text (byte {error.start})")
        return
    first = text.lstrip().partition("\n")[0]
    title = (
        first.lstrip("# ").strip()
        if first.startswith("#")
        else PurePosixPath(name.rpartition(":")[2]).name.partition(".")[0]
    )
    yield Row(name, 1, {"title": title, "text": text})


READERS: dict[str, Callable[[str, IO[bytes]], Iterator[Row]]] = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".json": _json_rows,
    ".jsonl": _json_rows,
    ".parquet": _parquet_rows,
    ".xml": _medquad_xml_rows,
    ".txt": _text_rows,
    ".md": _text_rows,
}
