"""NDJSON in, NDJSON out: order, bad lines, size, interleaving, and what a vanished client leaves behind."""

import json
import socket

from apitest import lines
from ragdtest import Ragd, wait_for

NDJSON = {"Content-Type": "application/x-ndjson"}


def send(api, collection, content, headers=NDJSON):
    if not isinstance(content, bytes):
        content = b"".join(json.dumps(line).encode() + b"\n" for line in content)
    return api.post(api.path(collection, "/import"), content=content, headers=headers)


def dechunk(body):
    """What a chunked body carries; it must be complete."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert body == b"\r\n"
            return whole
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]


def test_every_line_is_answered_in_order(api, collection):
    response = send(api, collection, [{"text": f"imported number {i}", "external_id": f"i-{i}"} for i in range(500)])
    assert response.status_code == 200 and response.headers["content-type"] == "application/x-ndjson"
    answers = lines(response)
    assert [a["line"] for a in answers] == list(range(1, 501))
    assert {a["status"] for a in answers} == {"created"}
    assert len({a["document_id"] for a in answers}) == 500
    wait_for(lambda: api.get(api.path(collection)).json()["counts"]["chunks"] == 500, "all to be indexed", timeout=60, every=0.1)
    assert api.search("imported", collection, top_k=1)["total_estimate"] == 500


def test_bad_lines_are_told_and_the_others_taken(api, collection):
    answers = lines(send(api, collection, b"\n".join([
        b'{"text":"good one"}',
        b'{"text":',
        b"",
        b'{"txet":"x"}',
        b"[]",
        b'{"text":"good two","metadata":{"a":1}}\r',
        b'{"text":"' + b"x" * 40000 + b'"}',
        b"\xff\xfe",
        b'{"text":"x","tags":[1]}',
        b'{"text":"good three"}',
    ])))  # fmt: skip
    assert [(a["line"], a["status"]) for a in answers] == [
        (1, "created"), (2, "error"), (4, "error"), (5, "error"), (6, "created"), (7, "error"), (8, "error"), (9, "error"), (10, "created")]  # fmt: skip
    errors = {a["line"]: a["error"] for a in answers if a["status"] == "error"}
    assert errors[2]["code"] == "bad_request" and "column" in errors[2]["message"]
    assert errors[4] == {"code": "validation", "message": "Unknown member 'txet'; did you mean 'text'?", "pointer": "/txet"}
    assert "limits.import_line" in errors[7]["message"] and errors[7]["code"] == "too_large"
    assert errors[9]["pointer"] == "/tags/0"
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 3


def test_lines_about_one_document_take_effect_in_order(api, collection):
    content = [{"text": f"content {i}", "external_id": "same", "title": str(i)} for i in range(20)]
    answers = lines(send(api, collection, content))
    assert answers[0]["status"] == "created" and {a["status"] for a in answers[1:]} == {"updated"}
    document = api.get(api.path(collection, "/documents/by-external-id/same")).json()
    assert document["title"] == "19" and document["versions"] == 20


def test_repeated_imports_change_nothing(api, collection):
    content = [{"text": f"repeat {i}", "external_id": f"r{i}"} for i in range(20)] + [{"text": "no id"}]
    assert {a["status"] for a in lines(send(api, collection, content))} == {"created"}
    again = lines(send(api, collection, content))
    assert {a["status"] for a in again[:-1]} == {"unchanged"} and again[-1]["status"] == "duplicate"
    assert api.get(api.path(collection)).json()["counts"]["documents"] == 21


def test_an_empty_import(api, collection):
    response = send(api, collection, b"")
    assert response.status_code == 200 and response.content == b""
    assert send(api, collection, b"\n\n\n").content == b""


def test_refusals(api, collection):
    api.problem(send(api, collection, b"x", {"Content-Type": "application/json"}), 415, "unsupported_media_type")
    api.problem(api.post("/api/v1/collections/nope/import", content=b"{}", headers=NDJSON), 404, "not_found")


def test_answers_come_while_the_body_is_still_sent(api, collection):
    """A client may send one line, read its answer, and only then send the next."""
    with api.server.connect() as s:
        s.sendall(f"POST {api.path(collection, '/import')} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
                  "Transfer-Encoding: chunked\r\n\r\n".encode())  # fmt: skip
        got = b""
        for i in range(1, 6):
            line = json.dumps({"text": f"interactive {i}"}).encode() + b"\n"
            s.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            while f'"line":{i},'.encode() not in got:
                piece = s.recv(65536)
                assert piece, got
                got += piece
        s.sendall(b"0\r\n\r\n")
        while not got.endswith(b"0\r\n\r\n"):
            got += s.recv(65536)


def test_a_client_that_reads_nothing_until_it_has_sent_all(api, collection):
    """Answers of far more than any socket buffer wait for it without stopping the import."""
    content = b"x\n" * 60000
    with api.server.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        s.sendall(f"POST {api.path(collection, '/import')} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
                  f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode())  # fmt: skip
        s.sendall(content)
        got = b""
        while piece := s.recv(1 << 20):
            got += piece
    answers = [json.loads(line) for line in dechunk(got.partition(b"\r\n\r\n")[2]).splitlines()]
    assert [a["line"] for a in answers] == list(range(1, 60001)) and {a["status"] for a in answers} == {"error"}


def test_a_client_that_leaves_does_no_harm(api, collection):
    with api.server.connect() as s:
        s.sendall(f"POST {api.path(collection, '/import')} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
                  "Content-Length: 1000000\r\n\r\n".encode())  # fmt: skip
        for i in range(50):
            s.sendall(json.dumps({"text": f"left behind {i}"}).encode() + b"\n")
        wait_for(lambda: api.get(api.path(collection)).json()["counts"]["documents"] > 0, "the first lines to be stored")
    assert api.get("/livez").status_code == 200
    assert len(lines(send(api, collection, [{"text": "after that"}]))) == 1


def test_vectors_need_a_model(api, collection):
    answers = lines(send(api, collection, [{"text": "with a vector", "vector": [1, 2]}, {"text": "without"}]))
    assert [a["status"] for a in answers] == ["error", "created"]
    assert answers[0]["error"]["pointer"] == "/vector" and "embedding.model" in answers[0]["error"]["message"]


def test_one_long_vector_does_not_count_for_all():
    """Memory for as many of the first one's length would be 26 GB, and the end of the worker."""
    line = {"chunks": [{"text": "a", "vector": [1] * 16384}] + [{"vector": [1]}] * 400000}
    with Ragd({}) as ragd:
        collection = ragd.post("/api/v1/collections", json={"name": "c"}).json()
        body = json.dumps(line, separators=(",", ":")) + "\n"
        ndjson = {"Content-Type": "application/x-ndjson"}
        answer = ragd.post(f"/api/v1/collections/{collection['id']}/import", content=body, headers=ndjson).json()
        assert answer["error"]["pointer"] == "/chunks/1/vector" and "dimensions" in answer["error"]["message"]
