"""Documents: both ways to send them, reading them back in every form, lists, changes, deletion."""

import hashlib
import os

import pdf
import pytest

from apitest import NO_ID, pages
from ragdtest import wait_for

TEXT = "# Rivers\n\nThe Rhine rises in the Alps.\n\n## Length\n\nIt is 1,230 kilometres long.\n"


def test_json_document(api, collection):
    response = api.post(api.path(collection, "/documents"), json={
        "text": TEXT, "external_id": "r-1", "filename": "rhine.md", "title": "The Rhine", "language": "english",
        "metadata": {"year": 2020, "float": 0.1, "nested": {"ü": ["ß", None, True]}}, "tags": ["river", "alps", "river"]})  # fmt: skip
    assert response.status_code == 202
    document, job = response.json()["document"], response.json()["job"]
    assert response.headers["location"] == f"/api/v1/documents/{document['id']}"
    assert document["collection_id"] == collection["id"] and document["external_id"] == "r-1"
    assert document["filename"] == "rhine.md" and document["title"] == "The Rhine" and document["mime"] == "text/markdown"
    assert document["bytes"] == len(TEXT) and document["sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert document["metadata"] == {"year": 2020, "float": 0.1, "nested": {"ü": ["ß", None, True]}}
    assert document["tags"] == ["river", "alps"] and document["versions"] == 1
    assert job["document_id"] == document["id"] and job["type"] == "ingest" and job["id"] == document["job_id"]
    done = api.settled(document)
    assert done["status"] == "ready" and done["chunks"] >= 1 and done["last_error"] is None and done["tokens"] > 0


def test_multipart_document(api, collection):
    content = b"<html><head><title>A page</title></head><body><h1>Lakes</h1><p>Lake Constance is deep.</p></body></html>"
    response = api.upload(collection, "lake.html", content, "text/html", metadata='{"depth": 251}', tags=["a", "b"],
                          external_id="lake", on_duplicate="link")  # fmt: skip
    assert response.status_code == 202, response.text
    document = response.json()["document"]
    assert document["filename"] == "lake.html" and document["mime"] == "text/html"
    assert document["metadata"] == {"depth": 251} and document["tags"] == ["a", "b"] and document["external_id"] == "lake"
    done = api.settled(document)
    assert done["status"] == "ready" and done["title"] == "A page"
    assert "Lake Constance is deep." in api.get(f"/api/v1/documents/{document['id']}/text").text
    assert api.get(f"/api/v1/documents/{document['id']}/content").content == content


def test_tags_as_one_json_field_and_names_in_other_scripts(api, collection):
    document = api.upload(collection, "東京.txt", "東京は日本の首都です。".encode(), tags='["x","y"]').json()["document"]
    assert document["tags"] == ["x", "y"] and document["filename"] == "東京.txt"
    disposition = api.get(f"/api/v1/documents/{document['id']}/content").headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''%E6%9D%B1%E4%BA%AC.txt"


def test_paths_in_file_names_are_dropped(api, collection):
    assert api.upload(collection, "../../etc/passwd", b"root").json()["document"]["filename"] == "passwd"


@pytest.mark.parametrize("size", [1, 4096, 65536, 65537, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_content_comes_back_byte_for_byte(api, collection, size):
    content = os.urandom(size // 2).hex().encode().ljust(size, b"x")[:size]
    document = api.upload(collection, "big.txt", content).json()["document"]
    assert document["bytes"] == size and document["sha256"] == hashlib.sha256(content).hexdigest()
    response = api.get(f"/api/v1/documents/{document['id']}/content")
    assert response.content == content and response.headers["x-content-type-options"] == "nosniff"


def test_ranges_and_conditions_on_content(api, collection):
    content = bytes(range(32, 127)) * 15000  # crosses a part of the store
    document = api.upload(collection, "r.txt", content).json()["document"]
    path = f"/api/v1/documents/{document['id']}/content"
    whole = api.get(path)
    assert whole.headers["accept-ranges"] == "bytes"
    edge = 1 << 20
    for spec, first, last in [("0-9", 0, 9), (f"{edge - 5}-{edge + 5}", edge - 5, edge + 5), ("-7", len(content) - 7, len(content) - 1),
                              ("1400000-", 1400000, len(content) - 1), ("5-99999999", 5, len(content) - 1)]:  # fmt: skip
        part = api.get(path, headers={"Range": f"bytes={spec}"})
        assert part.status_code == 206 and part.content == content[first : last + 1]
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
    beyond = api.get(path, headers={"Range": "bytes=99999999-"})
    api.problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(content)}"
    etag = whole.headers["etag"]
    assert api.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert api.get(path, headers={"Range": "bytes=0-1", "If-Range": etag}).status_code == 206
    assert api.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    head = api.server.request("HEAD", path)
    assert head.headers["content-length"] == str(len(content)) and head.content == b""


def test_text_and_chunks(api, collection):
    text = "\n\n".join(f"Paragraph {i} tells of the number {i} and nothing else, in words enough." * 12 for i in range(30))
    document = api.ready(collection, text, filename="long.txt")
    base = f"/api/v1/documents/{document['id']}"
    got = api.get(base + "/text")
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert api.get(base + "/text", headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    chunks = pages(api, base + "/chunks", limit=3)
    assert len(chunks) == document["chunks"] > 3
    assert [c["ordinal"] for c in chunks] == list(range(len(chunks)))
    for c in chunks:
        assert got.text[c["char_start"] : c["char_end"]] == c["text"]
        assert got.content[c["byte_start"] : c["byte_end"]].decode() == c["text"]
        assert hashlib.sha256(c["text"].encode()).hexdigest() == c["sha256"]
        assert api.get(f"{base}/chunks/{c['id']}").json() == c
    other = api.ready(collection, "another document")
    api.problem(api.get(f"/api/v1/documents/{other['id']}/chunks/{chunks[0]['id']}"), 404, "not_found")
    api.problem(api.get(f"/api/v1/documents/{other['id']}/chunks?after={chunks[0]['id']}"), 422, "validation")
    api.problem(api.get(f"{base}/chunks?after=x"), 422, "validation")
    api.problem(api.get(f"{base}/chunks/{NO_ID}"), 404, "not_found")


def test_headings_of_chunks(api, collection):
    document = api.ready(collection, TEXT, filename="r.md")
    chunks = api.get(f"/api/v1/documents/{document['id']}/chunks").json()["data"]
    assert any("Rivers" in c["headings"] or "Rivers" in c["text"] for c in chunks)


@pytest.mark.parametrize(
    "members, pointer",
    [
        ({}, "/text"),
        ({"text": ""}, "/text"),
        ({"text": 1}, "/text"),
        ({"text": "x", "tags": "a"}, "/tags"),
        ({"text": "x", "tags": [""]}, "/tags/0"),
        ({"text": "x", "tags": ["a", 5]}, "/tags/1"),
        ({"text": "x", "tags": ["t"] * 65}, "/tags"),
        ({"text": "x", "tags": ["t" * 129]}, "/tags/0"),
        ({"text": "x", "metadata": {"a": "b" * 1024}}, "/metadata"),
        ({"text": "x", "metadata": "a"}, "/metadata"),
        ({"text": "x", "external_id": "e" * 257}, "/external_id"),
        ({"text": "x", "external_id": "a\u0001"}, "/external_id"),
        ({"text": "x", "title": "t" * 513}, "/title"),
        ({"text": "x", "filename": "f" * 256}, "/filename"),
        ({"text": "x", "language": "xx"}, "/language"),
        ({"text": "x", "on_duplicate": "explode"}, "/on_duplicate"),
        ({"text": "x", "metdata": {}}, "/metdata"),
    ],
)
def test_bad_members_are_named(api, collection, members, pointer):
    api.problem(api.post(api.path(collection, "/documents"), json=members), 422, "validation", pointer)


def test_bad_forms(api, collection):
    path = api.path(collection, "/documents")
    api.problem(api.post(path, files={"other": ("a.txt", b"x")}), 422, "validation")
    api.problem(api.post(path, files={"metadata": (None, b"{}")}), 422, "validation", "/file")
    api.problem(api.upload(collection, "a.txt", b""), 422, "validation", "/file", "empty")
    api.problem(api.upload(collection, "a.txt", b"x", metadata="{"), 422, "validation", "/metadata")
    api.problem(api.upload(collection, "a.txt", b"x", metadata="[]"), 422, "validation", "/metadata")
    api.problem(api.upload(collection, "a.txt", b"x", titel="t"), 422, "validation", "/titel", "did you mean 'title'")
    api.problem(api.post(path, files=[("file", ("a", b"1")), ("file", ("b", b"2"))]), 422, "validation", "/file")
    multipart = {"Content-Type": "multipart/form-data; boundary=xyz"}
    api.problem(api.post(path, content=b"no boundary here", headers=multipart), 400, "bad_request")
    api.problem(api.post(path, content=b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\ncut', headers=multipart), 400, "bad_request")
    api.problem(api.post(path, content=b"x", headers={"Content-Type": "multipart/form-data"}), 400, "bad_request")
    api.problem(api.post(path, content=b"x", headers={"Content-Type": "application/pdf"}), 415, "unsupported_media_type")
    api.problem(api.post(path, content=b"x"), 415, "unsupported_media_type")


# -- lists


@pytest.fixture(scope="module")
def library(api):
    """Twelve documents with metadata to filter by."""
    c = api.collection()
    made = []
    for i in range(12):
        members = {"external_id": f"doc-{i}", "title": f"Title {i}", "tags": ["even" if i % 2 == 0 else "odd"]}
        metadata = {"n": i, "half": i / 2, "name": f"n{i:02}", "even": i % 2 == 0, "deep": {"k": i}, "list": [i, i + 1]}
        if i == 11:
            metadata = {}
        made.append(api.ready(c, f"text number {i}", metadata=metadata, **members))
    return c, made


def test_pages(api, library):
    c, made = library
    ids = [d["id"] for d in made]
    assert [d["id"] for d in pages(api, api.path(c, "/documents"), limit=5)] == ids[::-1]
    assert [d["id"] for d in pages(api, api.path(c, "/documents"), limit=5, order="asc")] == ids
    listed = api.get(api.path(c, "/documents"), params={"limit": 50, "order": "asc"}).json()["data"]
    assert listed == [api.document(d) for d in made]


def test_empty_list(api, collection):
    body = api.get(api.path(collection, "/documents")).json()
    assert body == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    "params, expected",
    [
        ({"external_id": "doc-3"}, {3}),
        ({"external_id": "doc"}, set()),
        ({"tag": "even"}, {0, 2, 4, 6, 8, 10}),
        ({"q": "title 1"}, {1, 10, 11}),
        ({"q": "%"}, set()),
        ({"status": "ready"}, set(range(12))),
        ({"status": "failed"}, set()),
        ({"sha256": hashlib.sha256(b"text number 7").hexdigest()}, {7}),
        ({"filter": '{"type":"eq","key":"n","value":3}'}, {3}),
        ({"filter": '{"type":"eq","key":"n","value":"3"}'}, set()),
        ({"filter": '{"type":"ne","key":"n","value":3}'}, set(range(12)) - {3}),
        ({"filter": '{"type":"gt","key":"n","value":8.5}'}, {9, 10}),
        ({"filter": '{"type":"gte","key":"half","value":5}'}, {10}),
        ({"filter": '{"type":"lt","key":"name","value":"n02"}'}, {0, 1}),
        ({"filter": '{"type":"lte","key":"deep.k","value":1}'}, {0, 1}),
        ({"filter": '{"type":"in","key":"n","value":[1,2,99]}'}, {1, 2}),
        ({"filter": '{"type":"nin","key":"n","value":[1,2]}'}, set(range(12)) - {1, 2}),
        ({"filter": '{"type":"eq","key":"even","value":true}'}, {0, 2, 4, 6, 8, 10}),
        ({"filter": '{"type":"eq","key":"list","value":5}'}, {4, 5}),
        ({"filter": '{"type":"and","filters":[{"type":"gt","key":"n","value":3},{"type":"lt","key":"n","value":6}]}'}, {4, 5}),
        ({"filter": '{"type":"or","filters":[{"type":"eq","key":"n","value":0},{"type":"eq","key":"n","value":9}]}'}, {0, 9}),
        ({"filter": '{"type":"eq","key":"n","value":3}', "tag": "even"}, set()),
    ],
)
def test_list_filters(api, library, params, expected):
    c, made = library
    found = {d["id"] for d in pages(api, api.path(c, "/documents"), limit=5, **params)}
    assert found == {made[i]["id"] for i in expected}


@pytest.mark.parametrize(
    "query",
    [
        "status=nope", "sha256=abc", "filter={", "filter=[]", 'filter={"type":"eq"}', 'filter={"type":"xx","key":"a","value":1}',
        'filter={"type":"gt","key":"a","value":true}', 'filter={"type":"in","key":"a","value":1}', "staus=ready", "tag=a&colour=red",
        'filter={"type":"and","filters":[{"type":"eq","key":"","value":1}]}',
    ],
)  # fmt: skip
def test_bad_list_queries(api, collection, query):
    problem = api.problem(api.get(api.path(collection, "/documents") + "?" + query), 422, "validation")
    assert problem["error"]["param"] == query.partition("=")[0] or "unknown query parameter" in problem["detail"]


# -- change and removal


def test_merge_patch(api, collection):
    document = api.ready(collection, "to be changed", title="Old", tags=["a"], metadata={"keep": 1, "drop": 2, "in": {"x": 1}})
    path = f"/api/v1/documents/{document['id']}"
    changed = api.patch(path, json={"title": "New", "tags": ["b", "c"], "metadata": {"drop": None, "in": {"y": 2}}}).json()
    assert changed["title"] == "New" and changed["tags"] == ["b", "c"]
    assert changed["metadata"] == {"keep": 1, "in": {"x": 1, "y": 2}}
    assert changed["status"] == "ready" and changed["versions"] == 1 and changed["version"] > document["version"]
    cleared = api.patch(path, json={"title": None, "tags": None, "metadata": None}).json()
    assert (cleared["title"], cleared["tags"], cleared["metadata"]) == (None, [], {})
    assert api.patch(path, json={}).status_code == 200
    api.problem(api.patch(path, json={"status": "ready"}), 422, "validation", "/status")
    api.problem(api.patch(path, json={"tags": [1]}), 422, "validation", "/tags/0")
    api.problem(api.patch(path, json={"metadata": {"big": "x" * 1100}}), 422, "validation", "/metadata")
    api.problem(api.patch(path, content=b"[]", headers={"Content-Type": "application/json"}), 400, "bad_request")


def test_etags(api, collection):
    document = api.ready(collection, "with an etag")
    path = f"/api/v1/documents/{document['id']}"
    etag = api.get(path).headers["etag"]
    assert api.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert api.patch(path, json={"title": "a"}, headers={"If-Match": etag}).status_code == 200
    api.problem(api.patch(path, json={"title": "b"}, headers={"If-Match": etag}), 412, "version_mismatch")
    api.problem(api.delete(path, headers={"If-Match": etag}), 412, "version_mismatch")
    assert api.get(path).headers["etag"] != etag
    assert api.delete(path, headers={"If-Match": api.get(path).headers["etag"]}).status_code == 204


def test_delete(api, collection):
    document = api.ready(collection, "soon gone", external_id="gone")
    path = f"/api/v1/documents/{document['id']}"
    response = api.delete(path)
    assert response.status_code == 204 and response.content == b""
    for rest in ("", "/content", "/text", "/chunks", "/versions"):
        api.problem(api.get(path + rest), 404, "not_found")
    api.problem(api.delete(path), 404, "not_found")
    api.problem(api.get(api.path(collection, "/documents/by-external-id/gone")), 404, "not_found")
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 0
    assert api.search("soon gone", collection)["hits"] == []


def test_missing_documents(api):
    for which in (NO_ID, "x", "1", "%20", "'"):
        for rest in ("", "/content", "/text", "/chunks", "/versions"):
            api.problem(api.get(f"/api/v1/documents/{which}{rest}"), 404, "not_found")
        api.problem(api.patch(f"/api/v1/documents/{which}", json={}), 404, "not_found")
        api.problem(api.post(f"/api/v1/documents/{which}/reprocess"), 404, "not_found")


def test_delete_by_filter(api):
    c = api.collection()
    for i in range(6):
        api.ready(c, f"document {i}", metadata={"n": i})
    path, body = api.path(c, "/documents/delete"), {"filter": {"type": "gte", "key": "n", "value": 4}}
    dry = api.post(path, json={**body, "dry_run": True})
    assert dry.status_code == 200 and dry.json() == {"matched": 2, "dry_run": True, "job": None}
    assert api.get(api.path(c)).json()["counts"]["documents"] == 6
    real = api.post(path, json=body)
    assert real.status_code == 202 and real.json()["matched"] == 2
    assert api.job_over(real.json()["job"])["status"] == "succeeded"
    left = api.get(api.path(c, "/documents")).json()["data"]
    assert {d["metadata"]["n"] for d in left} == {0, 1, 2, 3}
    api.problem(api.post(path, json={}), 422, "validation", "/filter")
    api.problem(api.post(path, json={"filter": {"type": "eq"}}), 422, "validation")


# -- versions and processing


def test_reprocess(api, collection):
    document = api.ready(collection, "to be indexed twice")
    response = api.post(f"/api/v1/documents/{document['id']}/reprocess")
    assert response.status_code == 202
    assert response.headers["location"] == f"/api/v1/jobs/{response.json()['id']}"
    assert api.job_over(response.json())["status"] == "succeeded"
    again = api.settled(document)
    assert again["status"] == "ready" and again["chunks"] == document["chunks"]
    assert len(api.search("indexed twice", collection)["hits"]) == 1


def test_bad_files_are_quarantined_with_a_reason(api, collection):
    """What is not what it says ends as failed, and is said to have failed wherever one may look."""
    document = api.upload(collection, "image.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "image/png").json()["document"]
    failed = api.settled(document)
    assert failed["status"] == "failed"
    assert failed["last_error"]["code"] in ("unsupported_file", "invalid_file") and failed["last_error"]["message"]
    job = api.get(f"/api/v1/jobs/{failed['job_id']}").json()
    assert job["status"] == "failed" and job["error"]["code"] == failed["last_error"]["code"]
    api.problem(api.get(f"/api/v1/documents/{document['id']}/text"), 409, "conflict")
    assert api.get(api.path(collection)).json()["counts"]["failed"] == 1
    assert [d["id"] for d in api.get(api.path(collection, "/documents?status=failed")).json()["data"]] == [document["id"]]


def test_what_is_there_stays_when_an_update_fails(api, collection):
    by_id = api.path(collection, "/documents/by-external-id/x")
    document = api.settled(api.put(by_id, json={"text": "the anemometer is on the roof"}).json()["document"])
    text = api.get(f"/api/v1/documents/{document['id']}/text").text
    for broken in (pdf.encrypted(), pdf.scanned()[:300]):
        response = api.put(by_id, files={"file": ("a.pdf", broken, "application/pdf")})
        assert response.status_code == 200
        failed = api.settled(response.json()["document"])
        assert failed["status"] == "failed" and failed["last_error"]["message"] and failed["chunks"] == 1
        assert api.get(f"/api/v1/documents/{document['id']}/content").content == broken
        assert api.get(f"/api/v1/documents/{document['id']}/text").text == text
        chunks = api.get(f"/api/v1/documents/{document['id']}/chunks").json()["data"]
        assert [chunk["text"] for chunk in chunks] == [text]
        hits = api.search("anemometer", collection)["hits"]
        assert [hit["chunk_id"] for hit in hits] == [chunks[0]["id"]]
    ready = api.settled(api.put(by_id, json={"text": "the barometer is in the hall"}).json()["document"])
    assert ready["status"] == "ready" and ready["last_error"] is None and ready["versions"] == 4
    assert not api.search("anemometer", collection)["hits"] and api.search("barometer", collection)["hits"]


@pytest.mark.parametrize("on_duplicate", [None, "version"])
def test_what_failed_is_tried_again_when_it_is_sent_again(api, collection, on_duplicate):
    send = {"text": " \n", "filename": "blank.txt"}
    again = {**send, "on_duplicate": on_duplicate} if on_duplicate else send
    path = api.path(collection, "/documents")
    failed = api.settled(api.post(path, json=send).json()["document"])
    response = api.post(path, json=again)
    assert response.status_code == 202
    answer = response.json()
    assert answer["document"]["id"] == failed["id"] and answer["document"]["status"] == "queued"
    assert answer.get("duplicate_of") == (None if on_duplicate else failed["id"])
    assert answer["job"]["id"] not in (None, failed["job_id"]) and answer["document"]["job_id"] == answer["job"]["id"]
    assert api.job_over(answer["job"])["status"] == "failed"
    assert api.settled(failed)["versions"] == (2 if on_duplicate else 1)
    api.problem(api.post(path, json={**send, "on_duplicate": "reject"}), 409, "conflict")

    # by its external id, with and without another title
    by_id = api.path(collection, "/documents/by-external-id/x")
    failed = api.settled(api.put(by_id, json=send).json()["document"])
    for title in ({}, {"title": "Blank"}):
        response = api.put(by_id, json={**send, **title})
        assert response.status_code == 200 and "unchanged" not in response.json()
        assert api.job_over(response.json()["job"])["status"] == "failed"
        failed = api.settled(failed)
        assert failed["status"] == "failed" and failed["title"] == title.get("title") and failed["versions"] == 1


def test_blank_text_fails_as_empty(api, collection):
    failed = api.settled(api.add(collection, "  \n\t ")["document"])
    assert failed["status"] == "failed" and failed["last_error"]["code"] == "empty_file"


def test_text_of_a_document_that_is_not_ready(api, server, collection):
    """Between upload and ready there is no text: 409, and then there is."""
    document = api.add(collection, "almost there")["document"]
    response = api.get(f"/api/v1/documents/{document['id']}/text")
    if response.status_code != 200:
        api.problem(response, 409, "conflict")
    wait_for(lambda: api.get(f"/api/v1/documents/{document['id']}/text").status_code == 200, "the text")


def test_chunks_made_by_the_client(api, collection):
    chunks = [
        {"text": "The pilot boards at the héron buoy.", "headings": ["Harbour", "Pilots"], "page": 2},
        {"text": "Lines are doubled in winter.\nAlways."},
    ]
    path = api.path(collection) + "/documents"
    made = api.post(path, json={"chunks": chunks, "title": "Given"})
    assert made.status_code == 202, made.text
    document = api.settled(made.json()["document"])
    assert document["chunks"] == 2 and document["pages"] == 2
    base = f"/api/v1/documents/{document['id']}"
    text = api.get(base + "/text").text
    assert text == "\n\n".join(c["text"] for c in chunks)
    got = api.get(base + "/chunks").json()["data"]
    for mine, theirs in zip(chunks, got, strict=True):
        assert theirs["text"] == mine["text"] == text[theirs["char_start"] : theirs["char_end"]]
        assert theirs["headings"] == mine.get("headings", []) and theirs["page"] == mine.get("page")
    assert api.post(path, json={"chunks": chunks}).json()["duplicate_of"] == document["id"]
    for bad, pointer in [
        ({"chunks": []}, "/chunks"),
        ({"chunks": "x"}, "/chunks"),
        ({"chunks": chunks, "text": "x"}, "/chunks"),
        ({"chunks": [{"text": ""}]}, "/chunks/0/text"),
        ({"chunks": [{"text": "a"}, {"txt": "x"}]}, "/chunks/1/txt"),
        ({"chunks": [{"text": "a", "headings": [1]}]}, "/chunks/0/headings/0"),
        ({"chunks": ["a"]}, "/chunks/0"),
        ({}, "/text"),
    ]:
        answer = api.post(path, json=bad)
        assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == pointer, (bad, answer.text)


def test_children_know_their_parents(api):
    made = api.post("/api/v1/collections", json={"name": "parents", "chunking": {"type": "parent_child", "max_tokens": 32}})
    assert made.status_code == 201, made.text
    text = " ".join(f"Sentence number {i} tells of harbours and tides." for i in range(60))
    document = api.ready(made.json(), text, filename="p.txt")
    chunks = pages(api, f"/api/v1/documents/{document['id']}/chunks", limit=50)
    assert len(chunks) > 6
    for c in chunks:
        p = c["parent"]
        assert p["char_start"] <= c["char_start"] and c["char_end"] <= p["char_end"]
    assert len({c["parent"]["char_start"] for c in chunks}) < len(chunks) / 2
