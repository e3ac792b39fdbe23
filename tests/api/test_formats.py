"""Files as users send them, through the whole server: what is read of them, and what becomes of those that cannot be."""

import os
import re
import resource
import signal
import zipfile
from io import BytesIO

import pytest

import pdf
from ragdtest import BIN, Ragd, alive, children_of, wait_for
from apitest import Api

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
FAULT = "application/x-ragd-fault"


def container(parts):
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, text in parts.items():
            z.writestr(name, text)
    return out.getvalue()


def docx(*paragraphs):
    body = "".join(f"<w:p><w:r><w:t>{p}</w:t></w:r></w:p>" for p in paragraphs)
    return container({
        "[Content_Types].xml": "<Types><Override ContentType='application/vnd.openxmlformats-officedocument."
                               "wordprocessingml.document.main+xml'/></Types>",
        "_rels/.rels": f"<R><Relationship Id='a' Type='{OFFICE}officeDocument' Target='word/document.xml'/></R>",
        "word/document.xml": f"<w:document xmlns:w='w'><w:body>{body}</w:body></w:document>",
    })  # fmt: skip


def office(kind, main, parts, of):
    """A package whose main part has others, in order; `of` makes it of their ids."""
    folder, ids = main.rsplit("/", 1)[0], [f"r{i}" for i in range(len(parts))]
    relations = "".join(f"<Relationship Id='{i}' Type='{OFFICE}{kind}' Target='{i}.xml'/>" for i in ids)
    words = {"slide": "presentationml.presentation", "worksheet": "spreadsheetml.sheet"}
    return container({
        "[Content_Types].xml": "<Types><Override ContentType='application/vnd.openxmlformats-officedocument."
                               f"{words[kind]}.main+xml'/></Types>",
        "_rels/.rels": f"<R><Relationship Id='a' Type='{OFFICE}officeDocument' Target='{main}'/></R>",
        main: of(ids),
        main.replace("/", "/_rels/") + ".rels": f"<R>{relations}</R>",
        **{f"{folder}/{i}.xml": part for i, part in zip(ids, parts)},
    })  # fmt: skip


def pptx(*slides):
    parts = [f"<p:sld xmlns:p='p' xmlns:a='a'><p:sp><a:p><a:r><a:t>{s}</a:t></a:r></a:p></p:sp></p:sld>" for s in slides]
    return office("slide", "ppt/presentation.xml", parts, lambda ids: (
        "<p:presentation xmlns:p='p' xmlns:r='r'><p:sldIdLst>" + "".join(f"<p:sldId r:id='{i}'/>" for i in ids)
        + "</p:sldIdLst></p:presentation>"))  # fmt: skip


def xlsx(*sheets):
    """Each a list of rows of cells: texts, or (reference, text)."""
    def cell(c):
        at, text = c if isinstance(c, tuple) else ("", c)
        return f"<c {f'r={at!r}' if at else ''} t='inlineStr'><is><t>{text}</t></is></c>"

    parts = ["<worksheet><sheetData>" + "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
             + "</sheetData></worksheet>" for rows in sheets]  # fmt: skip
    return office("worksheet", "xl/workbook.xml", parts, lambda ids: (
        "<workbook xmlns:r='r'><sheets>" + "".join(f"<sheet name='Sheet {i}' r:id='{i}'/>" for i in ids)
        + "</sheets></workbook>"))  # fmt: skip


def pdf_of(*pages):
    file = pdf.Pdf()
    for page in pages:
        file.text_page([page])
    return file.bytes("")


@pytest.fixture(scope="module")
def caged():
    """A server with tight limits, in which documents may ask for faults."""
    config = {
        "debug": {"faults": True},
        "ingest": {"cage_memory": "64M", "cage_cpu": "1s", "cage_timeout": "10s", "cage_output": "1M", "workers": 1,
                   "retry_delay": "100ms"},
    }
    with Ragd(config) as server:
        yield Api(server)


def sent(api, collection, name, content, kind="application/octet-stream"):
    response = api.upload(collection, name, content, kind)
    assert response.status_code == 202, response.text
    return api.settled(response.json()["document"])


def test_office_document_by_its_content(api, collection):
    document = sent(api, collection, "misnamed.pdf", docx("The anemometer is on the roof.", "Oil it in May."))
    assert document["status"] == "ready" and "wordprocessingml" in document["mime"], document
    (hit,) = api.search("anemometer", collection)["hits"]
    assert hit["text"].startswith("The anemometer is on the roof.")


def test_pdf_with_pages(api, collection):
    file = pdf.Pdf()
    file.text_page(["The first page is about kettles."])
    file.text_page(["The second page is about", "anemometers (and more)."], ["• wind", "speed"])
    document = sent(api, collection, "guide", file.bytes("Roof & tools"))
    assert document["status"] == "ready" and document["mime"] == "application/pdf", document
    assert document["pages"] == 2 and document["title"] == "Roof & tools"
    hit = api.search("anemometers", collection)["hits"][0]
    assert "The second page is about anemometers (and more)." in hit["text"]


SENTENCES = ["Kettles want citric acid.", "Fridges want silence.", "Anemometers want wind.", "Lamps want oil."]


@pytest.mark.parametrize("chunking", ["auto", "static", "structure", "parent_child"])
@pytest.mark.parametrize("content", [
    pdf_of(*SENTENCES), pptx(*SENTENCES), xlsx(*[[["Thing", "What"], [s.split()[0], s]] for s in SENTENCES]),
], ids=["pdf", "pptx", "xlsx"])  # fmt: skip
def test_hits_and_citations_name_their_page(api, content, chunking):
    collection = api.collection(chunking={"type": chunking})
    document = sent(api, collection, "file", content)
    assert document["status"] == "ready" and document["pages"] == 4, document
    for page, sentence in enumerate(SENTENCES, 1):
        hit = api.search(sentence.split()[0], collection)["hits"][0]
        assert sentence in hit["text"] and hit["page"] == page, hit
        question = {"question": f"What do {sentence.split()[0]} want?", "collections": [collection["id"]]}
        citation = api.post("/api/v1/ask", json=question).json()["citations"][0]
        assert sentence in citation["quote"] and citation["page"] == page, citation


CHARSETS = [("iso-2022-jp", "港は深い"), ("iso-2022-kr", "항구는 깊다"), ("hz", "港水很深"), ("utf-7", "Der Hafen für große Schiffe")]


@pytest.mark.parametrize("charset, text", CHARSETS, ids=[c for c, _ in CHARSETS])
def test_charsets_of_seven_bits(api, collection, charset, text):
    """In the cage, too, which has converters ready for what needs them only."""
    body = text.encode(charset.replace("-", "_") if charset != "hz" else "hz")
    mail = b"From: a@example.org\nMIME-Version: 1.0\nContent-Type: text/plain; charset=%s\n\n" % charset.encode()
    page = b"<html><meta charset=%s><p>" % charset.encode()
    for name, content in (("a.eml", mail + body), ("a.html", page + body + b"</p></html>")):
        document = sent(api, collection, name, content)
        assert document["status"] == "ready", document
        assert text in api.get(f"/api/v1/documents/{document['id']}/text").text


@pytest.mark.parametrize(
    "content, code, says",
    [
        (pdf.encrypted(), "encrypted", "password"),
        (pdf.scanned(3), "no_text", "3 pages"),
        (pdf.scanned()[:300], "invalid_file", "damaged"),
        (docx("x" * 5_000_000), "invalid_file", "unfolds"),
        (docx("text")[:-30], "invalid_file", "damaged"),
        (docx("<!DOCTYPE"), "invalid_file", "word/document.xml"),
    ],
    ids=["encrypted", "scanned", "cut-pdf", "bomb", "cut-zip", "broken-xml"],
)
def test_refused_for_good(api, collection, content, code, says):
    document = sent(api, collection, "file", content)
    assert document["status"] == "failed", document
    error = document["last_error"]
    assert error["code"] == code and error["stage"] == "extract" and says in error["message"], error


ENDS = {
    "crash": (b"crash", FAULT, "parser_crashed"),
    "leave": (b"leave", FAULT, "parser_crashed"),
    "disown": (b"disown", FAULT, "parser_crashed"),
    "spin": (b"spin", FAULT, "parser_timeout"),
    "eat": (b"eat", FAULT, "parser_memory"),
    "pdf-bomb": (pdf.bomb(b"q Q\n"), "application/pdf", "parser_timeout"),
    "too-large": (b"words \n" * 300_000, "text/plain", "too_large"),
}
if "asan" in BIN:  # whose shadow is beyond every limit of memory
    del ENDS["eat"]


@pytest.mark.parametrize("content, kind, code", ENDS.values(), ids=ENDS.keys())
def test_a_reader_that_fails_does_so_alone(caged, content, kind, code):
    collection = caged.collection()
    document = sent(caged, collection, "file", content, kind)
    assert document["status"] == "failed", document
    error = document["last_error"]
    assert error["code"] == code and error["stage"] == "extract", error
    assert error.get("page") == (3 if kind == FAULT else None), error
    job = caged.get("/api/v1/jobs", params={"document": document["id"]}).json()["data"][0]
    assert job["attempts"] == 1, job  # another try would end the same way
    assert sent(caged, collection, "after.md", b"# Still here")["status"] == "ready"


def cage_counts(ragd, what):
    text = ragd.get("/metrics").text
    return {m[1]: float(m[2]) for m in re.finditer(rf"^ragd_cage_{what}{{(.*)}} (.*)$", text, re.M)}


def test_metrics(caged):
    collection = caged.collection()
    names = {'format="csv",outcome="ok"', 'format="csv",outcome="refused"', 'format="other",outcome="crashed"'}
    before = cage_counts(caged, "documents_total")
    sent(caged, collection, "a.csv", b"Name,City\nAda,London\n")
    sent(caged, collection, "empty.csv", b" ")
    sent(caged, collection, "file", b"crash", FAULT)
    after = cage_counts(caged, "documents_total")
    assert {n for n in after if after[n] != before.get(n, 0)} == names, after
    assert all(after[n] == before.get(n, 0) + 1 for n in names), after
    assert cage_counts(caged, "seconds_total")['format="csv"'] > 0
    assert "\nragd_cages_running 0\n" in caged.get("/metrics").text


def broker_of(server):
    """The one for text that is UTF-8."""
    for child in [child for worker in server.workers() for child in children_of(worker)]:
        with open(f"/proc/{child}/cmdline", "rb") as f:
            if f.read().rstrip(b"\0") == b"ragd: cage broker":
                return child
    return None


def test_a_cage_that_cannot_be_closed_counts_as_a_try(caged):
    """Whatever the reason, and be it the document's size: it is not tried for ever."""
    collection = caged.collection()
    assert sent(caged, collection, "a.md", b"one")["status"] == "ready"
    broker = broker_of(caged.server)
    resource.prlimit(broker, resource.RLIMIT_NOFILE, (9, 9))  # no room for the descriptors of a cage
    document = sent(caged, collection, "b.md", b"two")
    os.kill(broker, signal.SIGKILL)
    assert document["status"] == "failed", document
    error = document["last_error"]
    assert error["code"] == "sandbox_failed" and error["stage"] == "extract", error
    job = caged.get("/api/v1/jobs", params={"document": document["id"]}).json()["data"][0]
    assert job["attempts"] == 3, job
    assert sent(caged, collection, "c.md", b"three")["status"] == "ready"


def test_broker_comes_back_and_ends_with_its_worker(caged):
    server = caged.server
    collection = caged.collection()
    assert sent(caged, collection, "a.md", b"one")["status"] == "ready"
    first = broker_of(server)
    os.kill(first, signal.SIGKILL)
    assert sent(caged, collection, "b.md", b"two")["status"] == "ready"
    second = broker_of(server)
    assert second not in (None, first)
    with open(f"/proc/{second}/environ", "rb") as f:
        assert b"=" not in f.read()  # nothing to inherit
    parent = next(w for w in server.workers() if second in children_of(w))
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: not alive(second), "the broker to end with its worker")
    assert sent(caged, collection, "c.md", b"three")["status"] == "ready"
