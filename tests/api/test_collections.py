"""Collections: create, get by id and name, list, merge patch, delete, ETags."""

import pytest

from apitest import NO_ID, pages
from ragdtest import wait_for

PATH = "/api/v1/collections"


def test_create_get_and_location(api):
    response = api.post(PATH, json={"name": "Größe 1", "description": "d", "language": "german", "metadata": {"a": [1, 2.5, None]},
                                    "chunking": {"type": "static", "max_tokens": 100, "overlap": 10}})  # fmt: skip
    made = response.json()
    assert response.status_code == 201 and response.headers["location"] == f"{PATH}/{made['id']}"
    assert response.headers["etag"] == f'"v{made["version"]}"'
    assert made["name"] == "Größe 1" and made["language"] == "german" and made["metadata"] == {"a": [1, 2.5, None]}
    assert made["chunking"] == {"type": "static", "max_tokens": 100, "overlap": 10}
    assert made["counts"] == {"documents": 0, "chunks": 0, "bytes": 0, "failed": 0}
    assert api.get(f"{PATH}/{made['id']}").json() == made
    assert api.get(f"{PATH}/Größe 1").json() == made  # by name


def test_names_are_unique(api, collection):
    api.problem(api.post(PATH, json={"name": collection["name"]}), 409, "name_taken")


@pytest.mark.parametrize(
    "body, pointer, says",
    [
        ({}, "/name", "required"),
        ({"name": ""}, "/name", "1 to 128"),
        ({"name": "x" * 129}, "/name", "1 to 128"),
        ({"name": 5}, "/name", "a string, not a number"),
        ({"name": "a\nb"}, "/name", "control"),
        ({"name": "a/b"}, "/name", "'/'"),
        ({"name": " a"}, "/name", "space"),
        ({"name": ".."}, "/name", "no path"),
        ({"name": NO_ID}, "/name", "form of an id"),
        ({"nmae": "a"}, "/nmae", "did you mean 'name'"),
        ({"name": "a", "metadata": []}, "/metadata", "an object, not an array"),
        ({"name": "a", "metadata": {"k": "v" * 1100}}, "/metadata", "limits.metadata"),
        ({"name": "a", "language": "klingon"}, "/language", "english"),
        ({"name": "a", "chunking": {"type": "magic"}}, None, "chunk"),
        ({"name": "a", "description": "x" * 4097}, "/description", "4096"),
    ],
)
def test_bad_members_are_named(api, body, pointer, says):
    problem = api.problem(api.post(PATH, json=body), 422, "validation", pointer)
    assert says in problem["detail"] or says in problem["errors"][0]["pointer"]


def test_lists_page_in_both_directions(api):
    made = [api.collection() for _ in range(7)]
    ids = [c["id"] for c in made]
    everything = [c["id"] for c in pages(api, PATH, limit=3)]
    assert everything[:7] == ids[::-1]  # newest first
    assert [c["id"] for c in pages(api, PATH, limit=50, order="asc")] == everything[::-1]
    page = api.get(PATH, params={"limit": 2, "after": ids[6]}).json()
    assert [c["id"] for c in page["data"]] == [ids[5], ids[4]]
    assert page["first_id"] == ids[5] and page["last_id"] == ids[4] and page["has_more"] is True
    page = api.get(PATH, params={"limit": 2, "before": ids[3]}).json()
    assert [c["id"] for c in page["data"]] == [ids[5], ids[4]]
    assert [c["id"] for c in api.get(PATH, params={"limit": 2, "order": "asc", "after": ids[0]}).json()["data"]] == ids[1:3]


def test_bad_paging_is_refused(api):
    for query in ("limit=0", "limit=51", "limit=x", "limit=", "after=x", "before=x", "order=up", "limti=3"):
        api.problem(api.get(f"{PATH}?{query}"), 422, "validation")


def test_merge_patch(api):
    c = api.collection(metadata={"a": 1, "b": {"c": 2, "d": 3}})
    changed = api.patch(api.path(c), json={"description": "new", "metadata": {"a": None, "b": {"c": 9}, "e": [1]}}).json()
    assert changed["description"] == "new" and changed["metadata"] == {"b": {"c": 9, "d": 3}, "e": [1]}
    assert changed["version"] > c["version"] and changed["updated_at"] >= c["updated_at"]
    reset = api.patch(api.path(c), json={"description": None, "metadata": None}).json()
    assert reset["description"] == "" and reset["metadata"] == {}
    assert api.get(api.path(c)).json() == reset
    api.problem(api.patch(api.path(c), json={"name": None}), 422, "validation", "/name")
    api.problem(api.patch(api.path(c), json={"counts": {}}), 422, "validation", "/counts")
    other = api.collection()
    api.problem(api.patch(api.path(c), json={"name": other["name"]}), 409, "name_taken")
    body = api.patch(api.path(c), content=b'{"name":"renamed-%s"}' % c["id"].encode(), headers={"Content-Type": "application/merge-patch+json"})
    assert body.json()["name"] == f"renamed-{c['id']}"


def test_etags(api, collection):
    response = api.get(api.path(collection))
    etag = response.headers["etag"]
    assert api.get(api.path(collection), headers={"If-None-Match": etag}).status_code == 304
    assert api.get(api.path(collection), headers={"If-None-Match": '"v999999"'}).status_code == 200
    assert api.patch(api.path(collection), json={"description": "1"}, headers={"If-Match": etag}).status_code == 200
    api.problem(api.patch(api.path(collection), json={"description": "2"}, headers={"If-Match": etag}), 412, "version_mismatch")
    api.problem(api.delete(api.path(collection), headers={"If-Match": etag}), 412, "version_mismatch")
    assert api.get(api.path(collection)).json()["description"] == "1"


def test_missing_collections(api):
    for which in (NO_ID, "no-such-name", "%20", "null"):
        api.problem(api.get(f"{PATH}/{which}"), 404, "not_found")
        api.problem(api.patch(f"{PATH}/{which}", json={}), 404, "not_found")
        api.problem(api.delete(f"{PATH}/{which}"), 404, "not_found")
        api.problem(api.get(f"{PATH}/{which}/documents"), 404, "not_found")
        api.problem(api.post(f"{PATH}/{which}/documents", json={"text": "x"}), 404, "not_found")


def test_delete_hides_at_once_and_removes_all(api):
    c = api.collection()
    documents = [api.ready(c, f"document number {i}") for i in range(3)]
    response = api.delete(api.path(c))
    assert response.status_code in (200, 202) and response.json()["type"] == "delete_collection"
    api.problem(api.get(api.path(c)), 404, "not_found")
    assert api.job_over(response.json())["status"] == "succeeded"
    for d in documents:
        wait_for(lambda: api.get(f"/api/v1/documents/{d['id']}").status_code == 404, "the document to be gone")
    assert api.post(PATH, json={"name": c["name"]}).status_code == 201  # the name is free again


def test_counts_are_exact(api, collection):
    api.ready(collection, "one two three")
    api.ready(collection, "four five six seven")
    counts = api.get(api.path(collection)).json()["counts"]
    assert counts == {"documents": 2, "chunks": 2, "bytes": len("one two three") + len("four five six seven"), "failed": 0}


def test_bodies_that_are_no_json_objects(api):
    json = {"Content-Type": "application/json"}
    for body in (b"", b"{", b"[]", b'"x"', b'{"name":"a","name":"b"}', b'{"name":"a"} x', b"\xff", b'{"name":"\\u0000"}'):
        problem = api.problem(api.post(PATH, content=body, headers=json), 400, "bad_request")
        assert problem["detail"]
    api.problem(api.post(PATH, content=b"{\n  x", headers=json), 400, "bad_request", says="line 2, column 3")
    api.problem(api.post(PATH, content=b'{"name":"a"}', headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
