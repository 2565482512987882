"""A folder of Markdown, text, HTML and PDF files as texts under headings.

Covered: headings become sections, scripts and navigation are left out, a PDF is read page by page. Not covered: cutting
(`passages`), scanned pages (a PDF without text is refused), tables' layout. Readers: markdown-it-py, beautifulsoup4 and
pypdf, from the extra `documents`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from medtune.data.clean import normalise
from medtune.data.files import BROKEN, OpenFile, damaged, open_files
from medtune.errors import DataError, PrerequisiteError

HEADINGS = ("h1", "h2", "h3", "h4")
WRAPPERS = ("div", "section", "article", "main", "body", "[document]")
BLOCKS = (*HEADINGS, "h5", "h6", "p", "li", "td", "th", "dt", "dd", "pre", "blockquote", "figcaption", *WRAPPERS)
NO_TEXT = ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "svg", "iframe")


@dataclass(frozen=True, slots=True)
class Document:
    """The text under one heading (or of one page) of a file."""

    file: str
    title: str
    section: str
    text: str


def read_documents(path: Path) -> Iterator[Document]:
    """The sections of every document at or below `path`, by name (archives are read in place).

    Raises DataError naming a file that cannot be read or holds no text, PrerequisiteError when a reader is missing.
    """
    for file in open_files(path, tuple(READERS)):
        try:
            content = file.stream.read()
        except BROKEN as error:
            raise damaged(file.name, error) from error
        documents = [d for d in READERS[file.suffix](file, content) if d.text]
        if not documents:
            raise DataError(f"{file.name}: no text in it (a scan?). Put its text into it, or take the file away.")
        yield from documents


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None


def _stem(name: str) -> str:
    return PurePosixPath(name.rpartition(":")[2]).name.partition(".")[0].replace("_", " ").replace("-", " ")


def _text(file: OpenFile, content: bytes) -> Iterator[Document]:
    yield Document(file.name, _stem(file.name), "", normalise(_decoded(file.name, content)))


def _markdown(file: OpenFile, content: bytes) -> Iterator[Document]:
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError:
        raise _missing(file.name, "markdown-it-py") from None
    page = MarkdownIt("commonmark").enable("table").render(_decoded(file.name, content))
    yield from _sections(file.name, page)


def _html(file: OpenFile, content: bytes) -> Iterator[Document]:
    yield from _sections(file.name, content)


def _sections(name: str, page: str | bytes) -> Iterator[Document]:
    """The text of an HTML page, gathered under its headings; the title is <title>, else <h1>, else the file's.

    Every text belongs to the nearest block around it: the words of a list item stand as a paragraph before its sublist.
    """
    try:
        from bs4 import BeautifulSoup
    except ModuleNotFoundError:
        raise _missing(name, "beautifulsoup4") from None
    soup: Any = BeautifulSoup(page, "html.parser")
    first = soup.find("title") or soup.find("h1")
    title = _flat(first) or _stem(name)
    for element in soup((*NO_TEXT, "title")):
        element.decompose()
    section, blocks = "", list[str]()
    texts = [(_block(text), text) for text in (soup.body or soup).strings]
    for _, run in groupby(texts, lambda one: id(one[0])):  # by id: blocks with the same words are equal
        (block, *_), parts = zip(*run, strict=True)
        words = " ".join(" ".join(parts).split())
        if words and block.name in HEADINGS:
            yield Document(name, title, section, normalise("\n\n".join(blocks)))
            section, blocks = "" if words == title else words, []
        elif words:
            blocks.append(("- " if block.name == "li" else "") + words)
    yield Document(name, title, section, normalise("\n\n".join(blocks)))


def _block(text: Any) -> Any:
    """The nearest block around `text`; a heading keeps what is wrapped within it."""
    block = next(parent for parent in text.parents if parent.name in BLOCKS)
    return (block.find_parent(HEADINGS) or block) if block.name in WRAPPERS else block


def _flat(element: Any) -> str:
    return " ".join(element.get_text(" ").split()) if element is not None else ""


def _pdf(file: OpenFile, content: bytes) -> Iterator[Document]:
    try:
        import pypdf
    except ModuleNotFoundError:
        raise _missing(file.name, "pypdf") from None
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        title = str((reader.metadata and reader.metadata.title) or "").strip() or _stem(file.name)
        for number, page in enumerate(reader.pages, 1):
            yield Document(file.name, title, f"page {number}", normalise(page.extract_text()))
    except (pypdf.errors.PyPdfError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{file.name}: cannot be read as a PDF ({error}). Save it again or take it away.") from error


def _missing(name: str, package: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"{name}: its reader, {package}, is not installed. Install it: pip install 'medtune[documents]'"
    )


READERS: dict[str, Callable[[OpenFile, bytes], Iterator[Document]]] = {
    ".md": _markdown,
    ".markdown": _markdown,
    ".txt": _text,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
