"""What happens to a document that comes twice: duplicates, upserts, versions, Idempotency-Key; and Prefer."""

import hashlib
import itertools
import os
import signal
import sqlite3
import threading

import httpx
import pytest

from ragdtest import Ragd, wait_for

WORDS = itertools.count()


def fresh(text="some text"):
    return f"{text} {next(WORDS)}"


# -- the same bytes again


def test_duplicates_are_skipped_by_default(api, collection):
    text = fresh()
    first = api.post(api.path(collection, "/documents"), json={"text": text, "title": "first"})
    again = api.post(api.path(collection, "/documents"), json={"text": text, "title": "second"})
    assert first.status_code == 202 and again.status_code == 200
    body = again.json()
    assert body["duplicate_of"] == body["document"]["id"] == first.json()["document"]["id"]
    assert body["job"] is None and body["document"]["title"] == "first"
    assert again.headers["location"] == first.headers["location"]
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 1


def test_the_same_bytes_in_another_collection_are_no_duplicate(api, collection):
    text, other = fresh(), api.collection()
    first, second = api.add(collection, text), api.add(other, text)
    assert "duplicate_of" not in second and first["document"]["id"] != second["document"]["id"]


def test_duplicates_can_be_linked(api, collection):
    text = fresh("linked")
    first = api.ready(collection, text)
    second = api.ready(collection, text, on_duplicate="link", external_id="copy")
    assert second["id"] != first["id"] and second["sha256"] == first["sha256"]
    assert len(api.search("linked", collection)["hits"]) == 2
    assert api.delete(f"/api/v1/documents/{first['id']}").status_code == 204
    assert api.get(f"/api/v1/documents/{second['id']}/content").text == text  # the bytes have another owner


def test_duplicates_can_be_rejected(api, collection):
    text = fresh()
    first = api.add(collection, text)["document"]
    response = api.post(api.path(collection, "/documents"), json={"text": text, "on_duplicate": "reject"})
    api.problem(response, 409, "conflict", says=first["id"])


def test_duplicates_can_be_versions(api, collection):
    text = fresh()
    first = api.ready(collection, text, title="old", tags=["a"])
    response = api.post(api.path(collection, "/documents"), json={"text": text, "title": "new", "on_duplicate": "version"})
    assert response.status_code in (200, 202)
    document = response.json()["document"]
    assert document["id"] == first["id"] and document["title"] == "new" and document["version"] > first["version"]


def test_large_duplicates(api, collection):
    content = (fresh("large ") * 200000).encode()[: 2 << 20]
    first = api.upload(collection, "a.txt", content)
    assert first.status_code == 202
    assert api.upload(collection, "b.txt", content).json()["duplicate_of"] == first.json()["document"]["id"]
    api.problem(api.upload(collection, "c.txt", content, on_duplicate="reject"), 409, "conflict")
    linked = api.upload(collection, "d.txt", content, on_duplicate="link").json()["document"]
    assert api.get(f"/api/v1/documents/{linked['id']}/content").content == content


def test_external_ids_are_unique(api, collection):
    api.add(collection, fresh(), external_id="taken")
    response = api.post(api.path(collection, "/documents"), json={"text": fresh(), "external_id": "taken"})
    api.problem(response, 409, "conflict", says="PUT collections/{collection}/documents/by-external-id/{external_id}")


def test_simultaneous_uploads_make_one_document(api, collection):
    text, answers = fresh("raced"), []

    def send():
        answers.append(httpx.post(f"{api.server.url}{api.path(collection, '/documents')}", json={"text": text}, timeout=30))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {a.status_code for a in answers} <= {200, 202}
    assert len({a.json()["document"]["id"] for a in answers}) == 1
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 1


# -- upsert by external id


def test_upsert(api, collection):
    path = api.path(collection, "/documents/by-external-id/page%2F1")
    first = api.put(path, json={"text": "the first content", "title": "one"})
    assert first.status_code == 201 and first.json()["document"]["external_id"] == "page/1"
    document = api.settled(first.json()["document"])
    assert api.get(path).json() == document

    same = api.put(path, json={"text": "the first content", "title": "one"})
    assert same.status_code == 200 and same.json()["unchanged"] is True and same.json()["job"] is None

    retitled = api.put(path, json={"text": "the first content", "title": "two"})
    assert retitled.status_code == 200 and retitled.json()["job"] is None
    assert retitled.json()["document"]["title"] == "two" and retitled.json()["document"]["versions"] == 1

    other = api.put(path, json={"text": "a second content entirely", "title": "two"})
    assert other.status_code == 200 and other.json()["job"] and other.json()["document"]["versions"] == 2
    assert other.json()["document"]["id"] == document["id"]
    assert api.settled(other.json()["document"])["status"] == "ready"
    assert api.search("first", collection)["hits"] == []
    assert len(api.search("second", collection)["hits"]) == 1
    versions = api.get(f"/api/v1/documents/{document['id']}/versions").json()["data"]
    assert {v["version"] for v in versions} == {1, 2}
    assert {v["sha256"] for v in versions} == {hashlib.sha256(t).hexdigest() for t in (b"the first content", b"a second content entirely")}


def test_upsert_keeps_what_it_does_not_name(api, collection):
    path = api.path(collection, "/documents/by-external-id/kept")
    metadata, tags = {"team": "a"}, ["x"]
    first = api.put(path, json={"text": "one", "title": "t", "metadata": metadata, "tags": tags})
    assert first.status_code == 201
    same = api.put(path, json={"text": "one"}).json()
    assert same["unchanged"] is True
    other = api.put(path, json={"text": "two"}).json()["document"]
    assert (other["title"], other["metadata"], other["tags"]) == ("t", metadata, tags)
    emptied = api.put(path, json={"text": "two", "metadata": {}, "tags": []}).json()["document"]
    assert (emptied["title"], emptied["metadata"], emptied["tags"]) == ("t", {}, [])


def test_upsert_of_a_file(api, collection):
    path = api.path(collection, "/documents/by-external-id/file")
    response = api.put(path, files={"file": ("a.md", b"# Head\n\nbody")}, data={"tags": "x"})
    assert response.status_code == 201 and response.json()["document"]["mime"] == "text/markdown"
    big = b"0123456789abcdef\n" * 100000
    assert api.put(path, files={"file": ("a.txt", big)}).status_code == 200
    document = api.get(path).json()
    assert document["bytes"] == len(big)
    assert api.get(f"/api/v1/documents/{document['id']}/content").content == big


def test_upsert_with_if_match(api, collection):
    path = api.path(collection, "/documents/by-external-id/guarded")
    first = api.settled(api.put(path, json={"text": fresh()}).json()["document"])
    etag = api.get(path).headers["etag"]
    assert api.put(path, json={"text": fresh()}, headers={"If-Match": etag}).status_code == 200
    api.problem(api.put(path, json={"text": fresh()}, headers={"If-Match": etag}), 412, "version_mismatch")
    assert api.document(first)["versions"] == 2


def test_upsert_may_demand_that_the_document_is_new_or_is_there(api, collection):
    path = api.path(collection, "/documents/by-external-id/conditional")
    api.problem(api.put(path, json={"text": fresh()}, headers={"If-Match": "*"}), 412, "version_mismatch")
    api.problem(api.put(path, json={"text": fresh()}, headers={"If-None-Match": '"v1"'}), 400, "bad_request")
    text = fresh()
    assert api.put(path, json={"text": text}, headers={"If-None-Match": "*"}).status_code == 201
    api.problem(api.put(path, json={"text": fresh()}, headers={"If-None-Match": "*"}), 412, "version_mismatch")
    assert api.get(f"/api/v1/documents/{api.get(path).json()['id']}/content").text == text
    assert api.put(path, json={"text": fresh()}, headers={"If-Match": "*"}).status_code == 200


def test_only_one_of_many_creates_what_must_be_new(api, collection):
    path, codes = api.path(collection, "/documents/by-external-id/race"), []

    def put(text):
        codes.append(httpx.put(api.server.url + path, json={"text": text}, headers={"If-None-Match": "*"}).status_code)

    threads = [threading.Thread(target=put, args=(fresh(),)) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(codes) == [201] + [412] * 7


def test_upsert_errors(api, collection):
    path = api.path(collection, "/documents/by-external-id/a")
    api.problem(api.put(path, json={"text": "x", "external_id": "b"}), 422, "validation", "/external_id")
    api.problem(api.put(path, json={}), 422, "validation", "/text")
    api.problem(api.get(path), 404, "not_found")
    api.problem(api.put(api.path(collection, "/documents/by-external-id/" + "x" * 257), json={"text": "x"}), 422, "validation")


# -- Idempotency-Key


def test_a_key_gives_the_first_answer_again(api, collection):
    path, body, key = api.path(collection, "/documents"), {"text": fresh(), "on_duplicate": "link"}, {"Idempotency-Key": fresh("k")}
    first = api.post(path, json=body, headers=key)
    again = api.post(path, json=body, headers=key)
    assert first.status_code == again.status_code == 202
    assert again.content == first.content and again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"] and "idempotent-replayed" not in first.headers
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 1


def test_a_key_is_of_one_body_path_and_method(api, collection):
    path, key = api.path(collection, "/documents"), {"Idempotency-Key": fresh("k")}
    assert api.post(path, json={"text": fresh()}, headers=key).status_code == 202
    api.problem(api.post(path, json={"text": fresh()}, headers=key), 422, "idempotency_key_reused")
    other = api.collection()
    assert api.post(api.path(other, "/documents"), json={"text": fresh()}, headers=key).status_code == 202


def test_a_form_sent_again_has_another_boundary(api, collection):
    key, content = {"Idempotency-Key": fresh("k")}, fresh("form").encode() * 10000
    first = api.upload(collection, "a.txt", content, headers=key, on_duplicate="link")
    again = api.upload(collection, "a.txt", content, headers=key, on_duplicate="link")
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true" and again.content == first.content
    api.problem(api.upload(collection, "b.txt", content, headers=key), 422, "idempotency_key_reused")
    document = first.json()["document"]
    assert api.get(f"/api/v1/documents/{document['id']}/content").content == content


def test_errors_are_not_kept(api, collection):
    key, path = {"Idempotency-Key": fresh("k")}, api.path(collection, "/documents")
    api.problem(api.post(path, json={"txt": "x"}, headers=key), 422, "validation")
    assert api.post(path, json={"text": fresh()}, headers=key).status_code == 202


def test_a_key_in_use_is_busy(api, collection):
    """Two at once: one does the work, the other is told to wait or gets the answer."""
    text, key, answers = fresh("slow") * 50000, {"Idempotency-Key": fresh("k")}, []

    def send():
        answers.append(httpx.post(f"{api.server.url}{api.path(collection, '/documents')}", timeout=30, headers={**key, "Prefer": "wait=20"},
                                  json={"text": text, "on_duplicate": "link"}))  # fmt: skip

    threads = [threading.Thread(target=send) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {a.status_code for a in answers} <= {200, 201, 202, 409}, [a.text for a in answers]
    for a in answers:
        if a.status_code == 409:
            api.problem(a, 409, "busy")
            assert int(a.headers["retry-after"]) >= 1
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 1


def test_bad_keys(api, collection):
    api.problem(api.post(api.path(collection, "/documents"), json={"text": "x"}, headers={"Idempotency-Key": "k" * 256}), 400, "bad_request")


# -- Prefer


def test_wait_answers_when_the_document_is_ready(api, collection):
    response = api.post(api.path(collection, "/documents"), json={"text": fresh()}, headers={"Prefer": "wait=20"})
    assert response.status_code == 201
    assert response.json()["document"]["status"] == "ready" and response.json()["job"]["status"] == "succeeded"


def test_minimal_answers(api, collection):
    response = api.post(api.path(collection, "/documents"), json={"text": fresh()}, headers={"Prefer": "return=minimal"})
    body = response.json()
    assert set(body["document"]) == {"id"} and set(body["job"]) == {"id"}


def test_if_match_can_be_demanded():
    with Ragd({"http": {"require_if_match": True}}) as ragd:
        made = ragd.post("/api/v1/collections", json={"name": "a"})
        path = made.headers["location"]
        refused = ragd.request("PATCH", path, json={"description": "x"})
        assert refused.status_code == 428 and refused.json()["code"] == "precondition_required"
        assert ragd.request("PATCH", path, json={"description": "x"}, headers={"If-Match": made.headers["etag"]}).status_code == 200


def test_a_key_whose_worker_died_is_free_again_in_time():
    """kill -9 between effect and answer: the key is in use until no request can be that old any more."""
    with Ragd({"http": {"request_timeout": "60s"}}, args=["--role", "http"]) as ragd:
        made = ragd.post("/api/v1/collections", json={"name": "a"}).json()
        path, key = f"/api/v1/collections/{made['id']}/documents", {"Idempotency-Key": "k"}
        lost = threading.Thread(target=lambda: pytest.raises(httpx.TransportError, httpx.post, ragd.url + path, json={"text": "once"}, timeout=30,
                                                             headers={**key, "Prefer": "wait=30"}))  # fmt: skip
        lost.start()
        wait_for(lambda: ragd.get(f"/api/v1/collections/{made['id']}").json()["counts"]["documents"] == 1, "the effect")
        os.kill(ragd.workers()[0], signal.SIGKILL)
        lost.join()

        def retried():
            try:
                return ragd.post(path, json={"text": "once"}, headers=key)
            except httpx.TransportError:
                return None

        busy = wait_for(retried, "the next worker")
        assert busy.status_code == 409 and busy.json()["code"] == "busy" and int(busy.headers["retry-after"]) >= 1
        with sqlite3.connect(f"{ragd.dir}/ragd.db", timeout=10) as database:
            database.execute("UPDATE idempotency SET created_us = created_us - 121 * 1000000")
        again = ragd.post(path, json={"text": "once"}, headers=key)
        assert again.status_code == 200 and "duplicate_of" in again.json()
        assert ragd.post(path, json={"text": "once"}, headers=key).headers["idempotent-replayed"] == "true"
