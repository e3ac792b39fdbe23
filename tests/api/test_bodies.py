"""Bodies drawn at random: whatever is sent, the answer is a success or a problem of the client's, never a 5xx."""

import json

from hypothesis import HealthCheck, given, settings, strategies as st

from apitest import lines

SETTINGS = settings(max_examples=120, deadline=None, derandomize=True,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip
TEXT = st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)
HEADERS = {"Content-Type": "application/json"}


def near(members):
    """Objects of known members with values that often fit, sometimes do not, and now and then a stranger."""
    known = st.fixed_dictionaries({}, optional={name: fitting | VALUES for name, fitting in members.items()})
    return known | st.builds(lambda a, b: {**a, **b}, known, st.dictionaries(TEXT, VALUES, max_size=1)) | VALUES


FILTERS = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]), "key": TEXT, "value": VALUES}),
    lambda inner: st.fixed_dictionaries({"type": st.sampled_from(["and", "or"]), "filters": st.lists(inner, max_size=4)}),
    max_leaves=6,
)
METADATA = st.dictionaries(TEXT, VALUES, max_size=4)
DOCUMENT = near({
    "text": st.text(min_size=1), "external_id": TEXT, "filename": TEXT, "title": TEXT, "mime": TEXT, "language": st.sampled_from(["english", "none", "xx"]),
    "metadata": METADATA, "tags": st.lists(TEXT, max_size=3), "on_duplicate": st.sampled_from(["skip", "link", "version", "reject"])})  # fmt: skip
CHUNKING = near({"type": st.sampled_from(["auto", "static", "structure"]), "max_tokens": st.integers(), "overlap": st.integers()})


def encode(value):
    """As JSON; Python writes NaN and lone surrogates, which are no JSON: the server must see through those as well."""
    return json.dumps(value).encode()


def harmless(response):
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json" and response.json()["detail"]
    return response


@SETTINGS
@given(body=near({"name": TEXT, "description": TEXT, "language": TEXT, "metadata": METADATA, "chunking": CHUNKING}))
def test_collections(api, body):
    response = harmless(api.post("/api/v1/collections", content=encode(body), headers=HEADERS))
    if response.status_code == 201:
        made = response.json()
        assert made["name"] == body["name"] and made["metadata"] == body.get("metadata", {})
        assert api.delete(api.path(made)).status_code in (200, 202)


@SETTINGS
@given(body=DOCUMENT)
def test_documents(api, shared, body):
    response = harmless(api.post(api.path(shared, "/documents"), content=encode(body), headers=HEADERS))
    if response.status_code == 202 and "on_duplicate" not in body:
        document = response.json()["document"]
        assert document["metadata"] == (body.get("metadata") or {}) and document["title"] == (body.get("title") or None)
        assert api.get(f"/api/v1/documents/{document['id']}/content").text == body["text"]


@SETTINGS
@given(body=near({"title": TEXT, "metadata": METADATA, "tags": st.lists(TEXT, max_size=3), "language": TEXT}))
def test_patches(api, patched, body):
    harmless(api.patch(f"/api/v1/documents/{patched['id']}", content=encode(body), headers=HEADERS))


@SETTINGS
@given(body=near({"query": TEXT, "top_k": st.integers(1, 20), "offset": st.integers(0, 50), "filter": FILTERS, "min_score": st.floats(),
                  "highlight": st.booleans(), "explain": st.booleans(), "mode": st.sampled_from(["lexical", "hybrid", "vector"])}))  # fmt: skip
def test_searches(api, shared, body):
    harmless(api.post("/api/v1/search", content=encode(body), headers=HEADERS))


@SETTINGS
@given(body=near({"question": TEXT, "query": TEXT, "top_k": st.integers(1, 20), "filter": FILTERS, "answer": st.sampled_from(["auto", "extractive"]),
                  "stream": st.booleans(), "max_tokens": st.integers(), "model": TEXT,
                  "history": st.lists(near({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=3)}))  # fmt: skip
def test_questions(api, shared, body):
    harmless(api.post("/api/v1/ask", content=encode(body), headers=HEADERS))


@SETTINGS
@given(body=near({"url": st.sampled_from(["http://127.0.0.1:9/", "http://127.0.0.1:9/\ud800"]) | TEXT, "secret": TEXT, "enabled": st.just(False),
                  "events": st.lists(st.sampled_from(["job.*", "document.ready"]) | TEXT, min_size=1, max_size=3),
                  "headers": st.dictionaries(TEXT, TEXT, max_size=3)}))  # fmt: skip
def test_webhooks(api, body):
    response = harmless(api.post("/api/v1/webhooks", content=encode(body), headers=HEADERS))
    if response.status_code == 201:
        made = f"/api/v1/webhooks/{response.json()['id']}"
        harmless(api.patch(made, content=encode(body), headers=HEADERS))
        assert api.delete(made).status_code == 204


JUDGED = TEXT | near({"external_id": TEXT, "document_id": TEXT, "chunk_id": TEXT, "grade": st.integers() | st.floats()})


@SETTINGS
@given(body=near({"name": TEXT, "questions": st.lists(near({"id": TEXT, "query": TEXT, "relevant": st.lists(JUDGED, max_size=3)}), max_size=3)}),
       run=near({"set": TEXT, "mode": st.sampled_from(["lexical", "hybrid"]), "k": st.integers(), "base": TEXT}))  # fmt: skip
def test_golden_sets(api, body, run):
    response = harmless(api.post("/api/v1/eval/sets", content=encode(body), headers=HEADERS))
    harmless(api.post("/api/v1/eval/runs", content=encode(run), headers=HEADERS))
    if response.status_code == 201:
        made = response.json()
        if isinstance(run, dict):
            harmless(api.post("/api/v1/eval/runs", content=encode({**run, "set": made["id"]}), headers=HEADERS))
        assert api.delete(f"/api/v1/eval/sets/{made['id']}").status_code == 204


@SETTINGS
@given(filter=FILTERS, q=TEXT, tag=TEXT, external_id=TEXT, limit=st.integers())
def test_lists(api, shared, filter, q, tag, external_id, limit):
    params = {"filter": json.dumps(filter), "q": q, "tag": tag, "external_id": external_id, "limit": limit}
    params = {k: str(v).encode("utf-8", "surrogatepass").decode("utf-8", "replace") for k, v in params.items()}
    harmless(api.get(api.path(shared, "/documents"), params=params))


@SETTINGS
@given(body=st.binary(max_size=200))
def test_bytes(api, shared, body):
    for path in ("/api/v1/search", "/api/v1/ask", "/api/v1/webhooks", "/api/v1/eval/sets", "/api/v1/collections", api.path(shared, "/documents/delete")):
        harmless(api.post(path, content=body, headers=HEADERS))
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    harmless(api.post(api.path(shared, "/documents"), content=b"--b\r\n" + body + b"\r\n--b--\r\n", headers=multipart))


@settings(SETTINGS, max_examples=30)
@given(batch=st.lists(DOCUMENT.map(encode) | st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), max_size=20))
def test_imports(api, shared, batch):
    response = api.post(api.path(shared, "/import"), content=b"\n".join(batch), headers={"Content-Type": "application/x-ndjson"})
    assert response.status_code == 200
    answers = lines(response)
    assert {a["error"]["code"] for a in answers if a["status"] == "error"} <= {"bad_request", "validation", "too_large", "conflict"}
    assert [a["line"] for a in answers] == [i for i, line in enumerate(batch, 1) if line.strip(b" \t\r")]
