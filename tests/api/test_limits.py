"""Every bound answers with a 4xx that names its configuration key."""

import json

import pytest

from apitest import lines

JSON = {"Content-Type": "application/json"}


def test_json_bodies(api):
    body = json.dumps({"name": "x" * 70000}).encode()
    api.problem(api.post("/api/v1/collections", content=body, headers=JSON), 413, "too_large", says="limits.json_body")

    def pieces():
        yield body[:100]
        yield body[100:]

    api.problem(api.post("/api/v1/collections", content=pieces(), headers=JSON), 413, "too_large", says="limits.json_body")
    api.problem(api.post("/api/v1/search", content=b" " * 70000, headers=JSON), 413, "too_large", says="limits.json_body")


def test_uploads(api, collection):
    big = b"x" * (3 << 20)
    assert api.upload(collection, "fits.txt", big).status_code == 202
    api.problem(api.upload(collection, "big.txt", big + b"x"), 413, "too_large", says="limits.upload")
    api.problem(api.upload(collection, "huge.txt", big * 2), 413, "too_large", says=f"limits.upload allows, {len(big)} bytes")
    text = json.dumps({"text": "x" * ((3 << 20) + 1)})
    api.problem(api.post(api.path(collection, "/documents"), content=text, headers=JSON), 413, "too_large", says="limits.upload")
    api.problem(api.post(api.path(collection, "/documents"), content=b" " * (5 << 20), headers=JSON), 413, "too_large", says="limits.upload")
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 1


def test_lines_of_imports(api, collection):
    content = json.dumps({"text": "x" * 33000}).encode() + b'\n{"text":"short"}\n'
    answers = lines(api.post(api.path(collection, "/import"), content=content, headers={"Content-Type": "application/x-ndjson"}))
    assert [a["status"] for a in answers] == ["error", "created"] and "limits.import_line" in answers[0]["error"]["message"]


def test_request_lines(api):
    api.problem(api.server.get("/livez?" + "x" * 3000), 414, "uri_too_long", says="http.max_request_line")


def test_header_sections(api):
    api.problem(api.server.get("/livez", headers={"X-Big": "x" * 9000}), 431, "headers_too_large", says="http.max_headers_size")
    many = {f"X-{i}": "1" for i in range(120)}
    api.problem(api.server.get("/livez", headers=many), 431, "headers_too_large", says="http.max_headers")


def test_depth(api):
    for depth, status in ((10, 422), (17, 400)):  # within the bound it is only an unknown member
        body = b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        problem = api.problem(api.post("/api/v1/search", content=body, headers=JSON), status, "bad_request" if status == 400 else "validation")
        if status == 400:
            assert "deeper than 16" in problem["detail"]
    deep = b"[" * 30000
    api.problem(api.post("/api/v1/search", content=deep, headers=JSON), 400, "bad_request", says="deeper than 16")


def test_metadata(api, collection):
    fits = {"k": "v" * (1024 - len('{"k":""}'))}
    assert api.post(api.path(collection, "/documents"), json={"text": "x", "metadata": fits}).status_code == 202
    fits["k"] += "v"
    api.problem(api.post(api.path(collection, "/documents"), json={"text": "y", "metadata": fits}), 422, "validation", "/metadata", "limits.metadata")


@pytest.mark.parametrize("query", ["limit=51", "limit=0", "limit=-1", "limit=99999999999999999999", "limit=1e1"])
def test_pages(api, collection, query):
    api.problem(api.get(api.path(collection, f"/documents?{query}")), 422, "validation")


def test_filters(api):
    def search(filter):
        return api.post("/api/v1/search", json={"query": "x", "filter": filter})

    leaf = {"type": "eq", "key": "a", "value": 1}
    api.problem(search({"type": "and", "filters": [leaf] * 200}), 422, "validation")
    deep = leaf
    for _ in range(6):
        deep = {"type": "and", "filters": [deep]}
    assert search(deep).status_code == 200
    api.problem(search({"type": "in", "key": "a", "value": list(range(1001))}), 422, "validation")
    api.problem(search({"type": "eq", "key": "k" * 129, "value": 1}), 422, "validation")


def test_query_terms_beyond_the_bound_are_reported(api, collection):
    api.ready(collection, "word0 word1 word2")
    result = api.search(" ".join(f"word{i}" for i in range(60)), collection)
    assert len(result["hits"]) == 1 and len(result["ignored_terms"]) == 28
