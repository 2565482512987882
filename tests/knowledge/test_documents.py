"""Documents: headings become sections, navigation is left out, bad files are named."""

import io
import zipfile

import pytest

from medtune.errors import DataError, PrerequisiteError
from medtune.knowledge.documents import read_documents
from medtune.knowledge.passages import read_entries
from medtune.recipe_assistant import KnowledgeSource

bs4 = pytest.importorskip("bs4", reason="the extra `documents` is absent")
pypdf = pytest.importorskip("pypdf", reason="the extra `documents` is absent")

MARKDOWN = (
    "# Gout\n\nA *painful* swelling.\n\n## Treatment\n\nRest and ice:\n\n- cold packs\n- [medicine](https://x.org)\n"
)
HTML = """<html><head><title>Asthma leaflet</title><script>alert(1)</script></head><body><nav><p>Home</p></nav>
<h1>Asthma</h1><p>Airways   narrow.</p><h2>Triggers</h2><ul><li>Smoke</li><li><p>Pollen</p></li></ul>
<table><tr><td>Dust</td><td>mites</td></tr></table><footer><p>Imprint</p></footer></body></html>"""


def pdf_of(text: str) -> bytes:
    """A page with one line of text, written by hand: pypdf reads and does not write text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(content)
    content += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return content + b"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start


def test_markdown_becomes_sections(tmp_path):
    (tmp_path / "gout.md").write_text(MARKDOWN)
    found = [(d.title, d.section, d.text) for d in read_documents(tmp_path)]
    assert found == [
        ("Gout", "", "A painful swelling."),
        ("Gout", "Treatment", "Rest and ice:\n\n- cold packs\n\n- medicine"),
    ]


def test_html_becomes_sections_without_navigation_and_scripts(tmp_path):
    (tmp_path / "asthma.html").write_text(HTML)
    found = [(d.title, d.section, d.text) for d in read_documents(tmp_path)]
    assert found == [
        ("Asthma leaflet", "Asthma", "Airways narrow."),
        ("Asthma leaflet", "Triggers", "- Smoke\n\nPollen\n\nDust\n\nmites"),
    ]


def test_a_list_item_keeps_its_words_before_its_sublist(tmp_path):
    (tmp_path / "pain.md").write_text("- Do not give ibuprofen\n  - to children with asthma\n- Rest\n")
    (found,) = read_documents(tmp_path)
    assert found.text == "- Do not give ibuprofen\n\n- to children with asthma\n\n- Rest"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<body><div>Do <b>not</b> run.</div><div><p>Rest.</p>Drink.</div></body>", "Do not run.\n\nRest.\n\nDrink."),
        ("<body>Loose.<p>Same.</p><p>Same.</p>End.<!-- no --></body>", "Loose.\n\nSame.\n\nSame.\n\nEnd."),
        ("<title>Pain</title>No body.<ul><li>Rest.</li></ul>", "No body.\n\n- Rest."),
        ("<section>One.<article>Two.</article></section>", "One.\n\nTwo."),
    ],
)
def test_text_in_a_wrapper_or_loose_is_read_in_its_order(tmp_path, page, text):
    (tmp_path / "page.html").write_text(page)
    assert [d.text for d in read_documents(tmp_path)] == [text]


def test_a_heading_keeps_what_is_wrapped_in_it(tmp_path):
    (tmp_path / "page.html").write_text("<h2><div>Care</div></h2><div>Rest.</div>")
    assert [(d.section, d.text) for d in read_documents(tmp_path)] == [("Care", "Rest.")]


def test_a_pdf_is_read_page_by_page(tmp_path):
    (tmp_path / "heart_failure.pdf").write_bytes(pdf_of("The heart pumps too little blood."))
    (found,) = read_documents(tmp_path)
    assert (found.title, found.section, found.text) == ("heart failure", "page 1", "The heart pumps too little blood.")


def test_text_and_archives_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("low-back-pain.txt", "Keep moving.")
    (found,) = read_documents(tmp_path / "all.zip")
    assert (found.title, found.text) == ("low back pain", "Keep moving.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.pdf", None, "scan.pdf: no text in it"),
        ("broken.pdf", b"%PDF-1.4 nothing", "broken.pdf: cannot be read as a PDF"),
        ("latin.txt", "Fieber über 40".encode("latin-1"), "latin.txt: not UTF-8 text"),
        ("empty.html", b"<html><body><script>x</script></body></html>", "empty.html: no text in it"),
        ("table.xlsx", b"x", r"no file that this layout reads. Found: 1 x .xlsx"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    if content is None:
        blank = io.BytesIO()
        writer = pypdf.PdfWriter()
        writer.add_blank_page(200, 200)
        writer.write(blank)
        content = blank.getvalue()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_documents(tmp_path))


def test_a_missing_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(pdf_of("text"))
    with pytest.raises(PrerequisiteError, match=r"pypdf, is not installed.*medtune\[documents\]"):
        list(read_documents(tmp_path))


def test_documents_become_passages(tmp_path):
    (tmp_path / "gout.md").write_text(MARKDOWN)
    source = KnowledgeSource(path=str(tmp_path), layout="documents", url="https://example.org", date="2025-01-01")
    first, second = (entry.passage for entry in read_entries([source]))
    assert (first.title, first.section, second.section) == ("Gout", "", "Treatment")
    assert first.url == second.url == "https://example.org"
    assert first.id != second.id
