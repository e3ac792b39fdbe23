"""Questions: answers from sentences of the documents, their citations, the stream. With a model: test_models.py."""

import hashlib
import json

import pytest

TEXTS = {
    "kettles.md": "# Kettles\n\nDescale the kettle with citric acid every month. Never use bleach.\n\nRinse it twice.",
    "koeln.txt": "Grüße aus Köln. The cathedral of Köln is 157 m high. It was begun in 1248.",
    "tea.txt": "Green tea wants water of 80 degrees. A kettle that boils is too hot for it.",
}


@pytest.fixture(scope="module")
def kitchen(api):
    c = api.collection()
    for name, text in TEXTS.items():
        api.settled(api.upload(c, name, text.encode()).json()["document"])
    return c


def ask(api, collection, question, **members):
    response = api.post("/api/v1/ask", json={"question": question, "collections": [collection["id"]], **members})
    assert response.status_code == 200, response.text
    return response.json()


def events(text):
    """(event, data) of a stream."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            yield fields["event"], json.loads(fields["data"])


def verify(api, citations):
    """Every citation is confirmed by the server, and its hash is that of its quote."""
    for c in citations:
        assert c["sha256"] == hashlib.sha256(c["quote"].encode()).hexdigest()
        place = {name: c[name] for name in ("char_start", "char_end", "quote", "sha256")}
        path = f"/api/v1/documents/{c['document_id']}/chunks/{c['chunk_id']}/verify"
        assert api.get(path, params=place).json() == {"valid": True, "reason": None}
        whole = api.get(f"/api/v1/documents/{c['document_id']}/text").text
        assert whole[c["char_start"]:c["char_end"]] == c["quote"]


@pytest.mark.parametrize("title", ["# Fridges", "# House\n\nIt is warm.\n\n## Fridges", "# House\n\n## Fridges"])
def test_headings_are_not_quoted(api, title):
    c = api.collection()
    api.ready(c, f"{title}\n\nDefrost the fridge in spring. Then it hums less.\n\n## Descale\n\nNot needed.", mime="text/markdown")
    for question in ("How to defrost fridges?", "fridges", "Fridges: descale?"):
        a = ask(api, c, question)
        assert a["answer"].startswith("Defrost the fridge in spring. [1]"), a
        assert not {"House", "Fridges", "Descale"} & {q["quote"] for q in a["citations"]}, a
        verify(api, a["citations"])


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_sentences_with_citations(api, kitchen, mode):
    a = ask(api, kitchen, "How do I descale the kettle?", mode=mode)
    assert a["answer"].startswith("Descale the kettle with citric acid every month. [1]")
    assert a["grounded"] and a["answered_by"] == "extractive" and a["model"] is None and a["usage"] is None
    assert a["degraded"] == (["vectors"] if mode == "hybrid" else [])
    assert a["citations"][0]["filename"] == "kettles.md" and [c["n"] for c in a["citations"]] == list(range(1, len(a["citations"]) + 1))
    verify(api, a["citations"])
    for c in a["citations"]:
        [[start, end]] = c["answer_spans"]
        assert a["answer"][start:end] == c["quote"]


def test_letters_beyond_ascii(api, kitchen):
    a = ask(api, kitchen, "Wie hoch ist the cathedral of Köln?")
    assert a["citations"][0]["quote"] == "The cathedral of Köln is 157 m high."
    verify(api, a["citations"])


def test_nothing_found(api, kitchen):
    a = ask(api, kitchen, "xylophone")
    assert a["citations"] == [] and not a["grounded"] and a["answer"]


def test_filters_and_query_hold(api, kitchen):
    assert ask(api, kitchen, "kettle", filter={"type": "eq", "key": "absent", "value": 1})["citations"] == []
    a = ask(api, kitchen, "What about it?", query="cathedral", answer="extractive")
    assert a["citations"][0]["filename"] == "koeln.txt"


def test_stream(api, kitchen):
    body = {"question": "How do I descale the kettle?", "collections": [kitchen["id"]], "stream": True}
    response = api.post("/api/v1/ask", json=body)
    assert response.headers["content-type"] == "text/event-stream" and response.headers["x-accel-buffering"] == "no"
    got = list(events(response.text))
    names = [name for name, _ in got]
    assert names[:2] == ["meta", "citations"] and names[-1] == "done" and set(names[2:-1]) == {"delta", "citation"}
    done = got[-1][1]
    api.validate(done, "Answer")
    assert "".join(data["text"] for name, data in got if name == "delta") == done["answer"]
    spans = [[data["n"], data["answer_span"]] for name, data in got if name == "citation"]
    assert spans == [[c["n"], span] for c in done["citations"] for span in c["answer_spans"]]
    verify(api, got[1][1])
    assert got[0][1]["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    "body, pointer",
    [
        ({}, "/question"),
        ({"question": ""}, "/question"),
        ({"question": "x", "answer": "oracle"}, "/answer"),
        ({"question": "x", "answer": "llm"}, "/answer"),
        ({"question": "x", "mode": "metadata"}, "/mode"),
        ({"question": "x", "mode": "vector"}, "/mode"),
        ({"question": "x", "history": [{"role": "system", "content": "x"}]}, "/history/0/role"),
        ({"question": "x", "history": [{"role": "user"}]}, "/history/0/content"),
        ({"question": "x", "history": ["x"]}, "/history/0"),
        ({"question": "x", "max_tokens": 0}, "/max_tokens"),
        ({"question": "x", "offset": 1}, "/offset"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_questions(api, kitchen, body, pointer, stream):
    api.problem(api.post("/api/v1/ask", json={**body, "stream": stream}), 422, "validation", pointer)


def test_metrics(api, kitchen):
    ask(api, kitchen, "kettle")
    text = api.get("/metrics").text
    counts = dict(line.split() for line in text.splitlines() if line.startswith(("ragd_answers", "ragd_searches")))
    assert int(counts["ragd_answers_extractive_total"]) >= 1 and int(counts["ragd_searches_hybrid_total"]) >= 1
    assert int(counts["ragd_searches_degraded_total"]) >= 1
