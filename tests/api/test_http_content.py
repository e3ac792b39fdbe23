"""Bodies out: ranges and conditional requests on content, streams under back-pressure, server-sent events; and how a
worker lets go of its connections."""

import hashlib
import os
import re
import signal
import socket
import threading

import pytest

from ragdtest import Ragd, wait_for
from wire import Wire, get, metric

SIZE = 3_000_000


@pytest.fixture(scope="module")
def server():
    with Ragd({"http": {"body_timeout": "20s"}}) as r:
        yield r


@pytest.fixture(scope="module")
def content():
    """Bytes that compress badly and differ everywhere, so that a shifted piece shows."""
    return b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(SIZE // 32 + 1))[:SIZE]


@pytest.fixture(scope="module")
def path(server, content):
    """Where the content of a document of these bytes is."""
    collection = server.post("/api/v1/collections", json={"name": "content"}).json()["id"]
    files = {"file": ("dir/data.bin", content, "application/octet-stream")}
    reply = server.post(f"/api/v1/collections/{collection}/documents", files=files)
    assert reply.status_code == 202, reply.text
    assert reply.json()["document"]["filename"] == "data.bin"
    return f"/api/v1/documents/{reply.json()['document']['id']}/content"


def test_the_whole(server, path, content):
    reply = server.get(path)
    assert reply.status_code == 200
    assert reply.content == content
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["etag"].startswith('"')
    head = server.request("HEAD", path)
    assert head.status_code == 200 and head.headers["content-length"] == str(SIZE) and head.content == b""


@pytest.mark.parametrize(
    ("range_", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=1048570-1048590", 1048570, 1048590),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=2999990-99999999", 2999990, SIZE - 1),
        ("bytes=-10", SIZE - 10, SIZE - 1),
        ("bytes=-99999999", 0, SIZE - 1),
        ("BYTES = 5-9".replace(" ", ""), 5, 9),
    ],
)
def test_one_range(server, path, content, range_, first, last):
    reply = server.get(path, headers={"Range": range_})
    assert reply.status_code == 206
    assert reply.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert reply.content == content[first : last + 1]


@pytest.mark.parametrize("range_", ["bytes=0-1,4-5", "bytes=5-1", "bytes=a-b", "bytes=", "bytes=-", "lines=1-2", "bytes", "bytes=1-2x"])
def test_ranges_that_are_ignored(server, path, range_):
    reply = server.get(path, headers={"Range": range_})
    assert reply.status_code == 200
    assert reply.headers["content-length"] == str(SIZE)


@pytest.mark.parametrize("range_", [f"bytes={SIZE}-", "bytes=-0", "bytes=99999999999999-"])
def test_ranges_that_cannot_be_satisfied(server, path, range_):
    reply = server.get(path, headers={"Range": range_})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{SIZE}"
    assert reply.json()["code"] == "range_not_satisfiable"


def test_conditional_requests(server, path, content):
    first = server.get(path, headers={"Range": "bytes=0-0"})
    etag, date = first.headers["etag"], first.headers.get("last-modified")
    for tags in (etag, "W/" + etag, f'"x", {etag}', "*"):
        reply = server.get(path, headers={"If-None-Match": tags})
        assert reply.status_code == 304 and reply.content == b"" and reply.headers["etag"] == etag
    assert server.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert server.get(path, headers={"If-Match": '"x"'}).status_code == 412
    assert server.get(path, headers={"If-Match": etag, "Range": "bytes=0-1"}).status_code == 206
    assert server.get(path, headers={"If-Range": etag, "Range": "bytes=0-1"}).status_code == 206
    assert server.get(path, headers={"If-Range": '"x"', "Range": "bytes=0-1"}).status_code == 200
    assert server.get(path, headers={"If-Range": "W/" + etag, "Range": "bytes=0-1"}).status_code == 200
    if date:
        assert server.get(path, headers={"If-Modified-Since": date}).status_code == 304
        assert server.get(path, headers={"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}).status_code == 200
        assert server.get(path, headers={"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}).status_code == 412
        assert server.get(path, headers={"If-Range": date, "Range": "bytes=0-1"}).status_code == 206


def test_a_slow_reader_gets_everything(server, path, content):
    """The stream waits for the client; the server holds a bounded part of it; others are served meanwhile."""
    with Wire(server) as w:
        w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)
        w.send(get(path))
        for _ in range(20):
            assert server.get("/livez").status_code == 200
        reply = w.reply()
        assert reply.body == content
        w.send(get())
        assert w.reply().status == 200


def test_many_downloads_at_once(server, path, content):
    digests = []

    def fetch():
        with Wire(server, get(path)) as w:
            digests.append(hashlib.sha256(w.reply().body).digest())

    threads = [threading.Thread(target=fetch) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert digests == [hashlib.sha256(content).digest()] * 16


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(server):
    collection = server.post("/api/v1/collections", json={"name": "ten"}).json()["id"]
    line = b'{"text":"hello"}\n'
    head = f"POST /api/v1/collections/{collection}/import HTTP/1.0\r\nContent-Type: application/x-ndjson\r\nContent-Length: {len(line)}\r\n\r\n"
    with Wire(server, head.encode() + line) as w:
        reply = w.reply()
        assert reply.status == 200
        assert "transfer-encoding" not in reply.headers and reply.headers["connection"] == "close"
        assert b'"line":1' in reply.body.replace(b" ", b"")


def test_a_stream_in_both_directions(server):
    """Each line is answered before the next is sent."""
    collection = server.post("/api/v1/collections", json={"name": "both"}).json()["id"]
    fields = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
    with Wire(server, f"POST /api/v1/collections/{collection}/import HTTP/1.1\r\nHost: a\r\n{fields}\r\n") as w:
        for i in range(5):
            line = f'{{"text":"document {i}"}}\n'
            w.send(f"{len(line):x}\r\n{line}\r\n")
            if i == 0:
                assert b" 200 " in w.until(b"\r\n\r\n")
            size = int(w.until(b"\r\n"), 16)
            assert re.search(rb'"line": ?%d\b' % (i + 1), w.exactly(size + 2))
        w.send("0\r\n\r\n")
        assert w.chunks() == b""
        w.send(get())
        assert w.reply().status == 200


def test_large_multipart_goes_through_a_file(server, content):
    collection = server.post("/api/v1/collections", json={"name": "large"}).json()["id"]
    big = content * 5
    reply = server.post(f"/api/v1/collections/{collection}/documents", files={"file": ("big.bin", big)})
    assert reply.status_code == 202
    assert server.get(f"/api/v1/documents/{reply.json()['document']['id']}/content").content == big


def test_expect_continue_of_an_upload_that_is_too_large(server):
    collection = server.post("/api/v1/collections", json={"name": "limit"}).json()["id"]
    head = f"POST /api/v1/collections/{collection}/documents HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=B\r\n"
    with Wire(server, head + "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n") as w:
        reply = w.reply()
        assert reply.status == 413 and reply.headers["connection"] == "close"


# ---- the end of a worker


def test_a_stop_finishes_what_is_in_hand_and_closes_the_rest():
    with Ragd() as r:
        with Wire(r, get()) as idle, Wire(r, get("/debug/sleep?ms=4000")) as busy:
            assert idle.reply().status == 200
            wait_for(lambda: metric(r, "ragd_requests_in_flight") >= 2, "the request to be in flight")
            r.client.close()
            r.client = None
            r.send(signal.SIGTERM)
            assert idle.closed()
            reply = busy.reply()
            assert reply.status == 200 and reply.headers["connection"] == "close"
            assert busy.closed()
        assert r.wait_exit() == 0


def test_a_fast_stop_waits_for_nobody():
    with Ragd() as r:
        with Wire(r, get("/debug/sleep?ms=20000")) as busy:
            wait_for(lambda: metric(r, "ragd_requests_in_flight") >= 2, "the request to be in flight")
            r.send(signal.SIGINT)
            assert busy.closed()
        assert r.wait_exit(10) == 0


def test_connections_are_shared_evenly():
    with Ragd({"server": {"workers": 2}}) as r:
        wait_for(lambda: [w["state"] for w in r.status()["workers"] if w["role"] == "http"] == ["READY"] * 2, "both workers")
        wires = [Wire(r, get()) for _ in range(64)]
        assert all(w.reply().status == 200 for w in wires)
        held = []
        for pid in r.workers():
            sockets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            held.append(sum(s.startswith("socket:") for s in sockets))
        busier, other = sorted(held)[-1:-3:-1]
        for w in wires:
            w.sock.close()
        assert busier - other <= 16, held


# ---- server-sent events


@pytest.fixture(scope="module")
def quiet():
    """Without ingest workers every job stays queued, so its events stay open."""
    with Ragd(args=["--role", "http"]) as r:
        yield r


def queued(server):
    """The path of the events of a job that does not move."""
    name = hashlib.sha256(os.urandom(8)).hexdigest()
    collection = server.post("/api/v1/collections", json={"name": name}).json()["id"]
    reply = server.post(f"/api/v1/collections/{collection}/documents", json={"text": "hello"})
    return f"/api/v1/jobs/{reply.json()['job']['id']}/events"


def follow(server, events=None):
    """A connection that follows such a job."""
    w = Wire(server, get(events or queued(server)))
    head = w.until(b"\r\n\r\n").decode().lower()
    assert " 200 " in head
    for field in ("content-type: text/event-stream", "cache-control: no-cache, no-transform", "x-accel-buffering: no"):
        assert field in head
    assert b"data: {" in w.until(b"\n\n")
    return w


def test_events_outlive_the_request_timeout(quiet):
    """The timeout is short for them alone: to queue the job may take longer on a slow disk."""
    events = queued(quiet)
    quiet.write_config({"http": {"request_timeout": "300ms"}})
    assert quiet.cli("reload").returncode == 0
    with follow(quiet, events) as w:
        w.sock.settimeout(1)
        with pytest.raises(socket.timeout):
            w.until(b"0\r\n\r\n")
        assert quiet.get("/livez").status_code == 200
    quiet.write_config({"http": {"request_timeout": None}})
    assert quiet.cli("reload").returncode == 0


def test_a_follower_that_leaves_is_noticed(quiet):
    before = metric(quiet, "ragd_requests_in_flight")
    with follow(quiet):
        assert metric(quiet, "ragd_requests_in_flight") == before + 1
    wait_for(lambda: metric(quiet, "ragd_requests_in_flight") == before, "the request to end")


def test_a_stop_does_not_wait_for_followers():
    with Ragd(args=["--role", "http"]) as r:
        with follow(r) as w:
            r.send(signal.SIGTERM)
            while w.more():
                pass
        assert r.wait_exit(10) == 0
