"""HTTP on the wire behind the head: connections, bodies, deadlines, ids and logs."""

import socket
import time
import uuid

import pytest

from ragdtest import Ragd, wait_for
from wire import Wire, ask, chunked, collection, get, metric, post


@pytest.fixture(scope="module")
def server():
    config = {"http": {"max_request_line": 512, "max_headers_size": 2048, "max_headers": 20}, "limits": {"json_body": 4096}}
    with Ragd(config) as r:
        yield r


@pytest.fixture(scope="module")
def hasty():
    """Deadlines so short that tests can wait for them."""
    config = {
        "http": {
            "header_timeout": "300ms", "body_timeout": "400ms", "keepalive_timeout": "600ms", "write_timeout": "500ms",
            "request_timeout": "700ms", "body_min_rate": 1000,
        },
    }  # fmt: skip
    with Ragd(config) as r:
        yield r


# ---- connections


def test_keep_alive_of_both_versions(server):
    with Wire(server) as w:
        for _ in range(3):
            w.send(get())
            reply = w.reply()
            assert reply.status == 200 and "connection" not in reply.headers
        w.send(get("/livez", "Connection: foo, Close"))
        assert w.reply().headers["connection"] == "close"
        assert w.closed()
    with Wire(server, get("/livez", "Connection: Keep-Alive", version="1.0")) as w:
        assert w.reply().headers["connection"] == "keep-alive"
        w.send(get(version="1.0"))
        assert w.reply().headers["connection"] == "close"
        assert w.closed()


def test_pipelined_requests_are_answered_in_order(server):
    n = 300
    with Wire(server, "".join(get("/debug/sleep?ms=1" if i % 50 == 7 else "/livez", f"X-Request-Id: p{i}") for i in range(n))) as w:
        for i in range(n):
            reply = w.reply()
            assert reply.status == 200 and reply.headers["x-request-id"] == f"p{i}"


def test_pipelined_bodies(server):
    a, b = collection(), collection()
    data = post(a, f"Content-Length: {len(a)}") + post(chunked(b, ""), "Transfer-Encoding: chunked") + get("/livez", "Connection: close")
    with Wire(server, data) as w:
        assert [w.reply().status for _ in range(3)] == [201, 201, 200]
        assert w.closed()


def test_a_client_that_reads_nothing_does_not_grow_the_server(server):
    """Thousands of pipelined requests whose replies nobody reads: the server stops reading them."""
    with Wire(server) as w:
        w.sock.setblocking(False)
        sent = 0
        batch = (get("/openapi.json") * 100).encode()

        def stuck():
            nonlocal sent
            try:
                for _ in range(100):
                    sent += w.sock.send(batch)
                return False
            except BlockingIOError:
                time.sleep(0.2)
                try:
                    sent += w.sock.send(batch)
                    return False
                except BlockingIOError:
                    return True

        wait_for(stuck, "the window to close")
        assert ask(server, get()).status == 200
        w.sock.setblocking(True)
        for _ in range(50):
            assert w.reply().status == 200


def test_a_half_closed_client_gets_its_answer(server):
    with Wire(server, get("/debug/sleep?ms=300")) as w:
        w.sock.shutdown(socket.SHUT_WR)
        assert w.reply().status == 200
        assert w.closed()
    with Wire(server, get() + get()) as w:
        w.sock.shutdown(socket.SHUT_WR)
        assert [w.reply().status, w.reply().status] == [200, 200]
        assert w.closed()


def test_a_vanished_client_cancels_its_request(server):
    before = metric(server, "ragd_requests_canceled_total")
    with Wire(server, get("/debug/sleep?ms=25000")) as w:
        wait_for(lambda: metric(server, "ragd_requests_in_flight") >= 2, "the request to be in flight")
        w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
    wait_for(lambda: metric(server, "ragd_requests_canceled_total") > before, "the request to be cancelled", 10)
    with Wire(server, get("/debug/sleep?ms=25000")) as w:
        wait_for(lambda: metric(server, "ragd_requests_in_flight") >= 2, "the request to be in flight")
    wait_for(lambda: metric(server, "ragd_requests_canceled_total") > before + 1, "the second one, too", 10)


# ---- bodies


def test_content_length_in_pieces(server):
    body = collection()
    with Wire(server, post("", f"Content-Length: {len(body)}")) as w:
        for c in body:
            w.send(c)
        assert w.reply().status == 201


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_chunked_in_pieces(server, step):
    body = collection()
    data = f"5\r\n{body[:5]}\r\n1;ext=\"a b\"\r\n{body[5]}\r\n00{len(body) - 6:X}\r\n{body[6:]}\r\n0\r\nX-Trailer: a\r\nY: b c\r\n\r\n"
    with Wire(server, post("", "Transfer-Encoding: chunked")) as w:
        for i in range(0, len(data), step):
            w.send(data[i : i + step])
        assert w.reply().status == 201
        w.send(get())
        assert w.reply().status == 200


BAD_CHUNKS = {
    "no digits": "\r\nabc\r\n0\r\n\r\n",
    "a sign": "+3\r\nabc\r\n0\r\n\r\n",
    "a minus": "-3\r\nabc\r\n0\r\n\r\n",
    "0x": "0x3\r\nabc\r\n0\r\n\r\n",
    "a leading space": " 3\r\nabc\r\n0\r\n\r\n",
    "a trailing space": "3 \r\nabc\r\n0\r\n\r\n",
    "a space before an extension": "3 ;a\r\nabc\r\n0\r\n\r\n",
    "an underscore": "1_0\r\nabc\r\n0\r\n\r\n",
    "an overflow": "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a size beyond 63 bits": "8000000000000000\r\nabc\r\n0\r\n\r\n",
    "a bare LF after the size": "3\nabc\r\n0\r\n\r\n",
    "a bare LF after the data": "3\r\nabc\n0\r\n\r\n",
    "data longer than its size": "3\r\nabcd\r\n0\r\n\r\n",
    "data shorter than its size": "3\r\nab\r\n0\r\n\r\n",
    "a bare CR in an extension": "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "NUL in an extension": "3;a\0\r\nabc\r\n0\r\n\r\n",
    "a bare LF at the end": "3\r\nabc\r\n0\r\n\n",
    "a trailer without a name": "0\r\n: x\r\n\r\n",
    "a trailer with a space before the colon": "0\r\nX : x\r\n\r\n",
    "a folded trailer": "0\r\nX: x\r\n y\r\n\r\n",
    "a bare LF in a trailer": "0\r\nX: x\n\r\n",
    "endless extensions": "1;" + "x" * 20000 + "\r\na\r\n0\r\n\r\n",
    "endless trailers": "0\r\n" + "X: y\r\n" * 5000 + "\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks_get_400_and_the_end(server, name):
    data = post(BAD_CHUNKS[name], "Transfer-Encoding: chunked")
    with Wire(server, data + get("/livez", "X-Request-Id: smuggled")) as w:
        reply = w.reply()
        assert reply.status == 400, reply.body
        assert reply.headers["connection"] == "close"
        assert w.closed()
    assert "smuggled" not in server.access_log()


def test_too_large_by_length_is_refused_before_it_is_read(server):
    with Wire(server, post("", "Content-Length: 100000000")) as w:
        reply = w.reply()
        assert reply.status == 413 and reply.headers["connection"] == "close"
        assert reply.json()["code"] == "too_large"


def test_a_client_that_goes_on_sending_still_reads_the_refusal(server):
    """No reset before the reply: what comes after the decision is taken and thrown away."""
    size = 3_000_000
    with Wire(server, post("", f"Content-Length: {size}")) as w:
        for _ in range(30):
            w.send(b"x" * (size // 30))
        assert w.reply().status == 413
        assert w.closed()


def test_too_large_while_reading_chunks(server):
    with Wire(server, post("", "Transfer-Encoding: chunked")) as w:
        for _ in range(10):
            w.send(chunked("x" * 1000))
        reply = w.reply()
        assert reply.status == 413 and reply.headers["connection"] == "close"
        assert w.closed()


def test_expect_continue(server):
    body = collection()
    with Wire(server, post("", f"Content-Length: {len(body)}", "Expect: 100-continue")) as w:
        assert w.reply().status == 100
        w.send(body + get())
        assert w.reply().status == 201
        assert w.reply().status == 200


def test_expect_continue_is_not_sent_for_what_is_refused_anyway(server):
    for request in (
        post("", "Content-Length: 100000000", "Expect: 100-continue"),
        post("", "Content-Length: 10", "Expect: 100-continue", path="/no/such/path"),
    ):
        with Wire(server, request) as w:
            reply = w.reply()
            assert reply.status in (404, 413)
            assert reply.headers["connection"] == "close"
            assert w.closed()


def test_expect_continue_of_a_client_that_does_not_wait(server):
    body = collection()
    with Wire(server, post(body, f"Content-Length: {len(body)}", "Expect: 100-Continue")) as w:
        assert w.reply().status == 201


def test_a_small_unread_body_does_not_end_the_connection(server):
    with Wire(server, post("", "Content-Length: 2000", path="/no/such/path")) as w:
        reply = w.reply()
        assert reply.status == 404 and "connection" not in reply.headers
        w.send("x" * 2000 + get())
        assert w.reply().status == 200


def test_a_body_that_ends_too_early(server):
    with Wire(server, post("{", "Content-Length: 10")) as w:
        w.sock.shutdown(socket.SHUT_WR)
        reply = w.reply()
        assert reply.status == 400 and reply.headers["connection"] == "close"
        assert w.closed()


# ---- deadlines


def test_an_idle_connection_is_closed_without_a_word(hasty):
    with Wire(hasty, get()) as w:
        assert w.reply().status == 200
        assert w.closed()
    with Wire(hasty) as w:
        assert w.closed()


def test_a_slow_head_gets_408(hasty):
    with Wire(hasty, "GET /livez HTTP/1.1\r\nHost: a\r\n") as w:
        reply = w.reply()
        assert reply.status == 408 and reply.headers["connection"] == "close"
        assert w.closed()


def dribble(w, pause):
    """Sends byte after byte until the server answers; its reply."""
    w.sock.settimeout(pause)
    begun = time.monotonic()
    while not w.buffer:
        try:
            w.send("x")
            w.more()
        except socket.timeout:
            assert time.monotonic() - begun < 20
    w.sock.settimeout(10)
    return w.reply()


def test_dribbling_does_not_extend_the_head(hasty):
    with Wire(hasty, "GET /livez HTTP/1.1\r\nHost: a\r\nX: ") as w:
        assert dribble(w, 0.05).status == 408


def test_a_gap_in_the_body_gets_408(hasty):
    with Wire(hasty, post("{", "Content-Length: 10")) as w:
        reply = w.reply()
        assert reply.status == 408 and reply.headers["connection"] == "close"
        assert w.closed()


def test_a_body_below_the_minimum_rate_gets_408(hasty):
    with Wire(hasty, post("", "Content-Length: 3000")) as w:
        assert dribble(w, 0.1).status == 408


def test_a_request_that_takes_too_long_gets_504(hasty):
    with Wire(hasty, get("/debug/sleep?ms=20000")) as w:
        reply = w.reply()
        assert reply.status == 504
        assert reply.json()["code"] == "deadline_exceeded"


def test_a_client_that_stops_reading_is_cut_off(hasty):
    before = metric(hasty, "ragd_connections")
    with Wire(hasty) as w:
        w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        w.sock.setblocking(False)
        batch = (get("/openapi.json") * 50).encode()
        try:
            for _ in range(1000):
                w.sock.send(batch)
        except (BlockingIOError, ConnectionError):
            pass
        wait_for(lambda: metric(hasty, "ragd_connections") <= before, "the connection to be cut")


# ---- ids and logs


def test_request_ids(server):
    assert ask(server, get("/livez", "X-Request-Id: mine.1")).headers["x-request-id"] == "mine.1"
    for bad in ("two words", "x" * 129, 'quo"te', ""):
        made = ask(server, get("/livez", f"X-Request-Id: {bad}")).headers["x-request-id"]
        assert made != bad and made.startswith("req_")
    ids = {ask(server, get()).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_the_access_log_cannot_be_forged(server):
    ask(server, get("/livez", 'User-Agent: a" "\\x', "X-Request-Id: forged"))
    line = wait_for(lambda: [x for x in server.access_log().splitlines() if " forged " in x], "the line in the access log")[0]
    assert '"a\\x22 \\x22\\x5cx" forged ' in line
    assert line.startswith("127.0.0.1 - - [")
    assert '"GET /livez HTTP/1.1" 200 ' in line
    assert line.rsplit(" ", 1)[1].isdigit()


def test_refused_requests_are_logged_and_counted(server):
    before = metric(server, "ragd_requests_rejected_total")
    ask(server, "GET /refused HTTP/1.1\r\nBad Header: x\r\n\r\n")
    wait_for(lambda: '"GET /refused HTTP/1.1" 400 ' in server.access_log(), "the line in the access log")
    assert metric(server, "ragd_requests_rejected_total") == before + 1


def test_trusted_proxies_say_who_the_client_is():
    def client_of(server, fields, target="/livez"):
        rid = uuid.uuid4().hex
        ask(server, get(target, f"X-Request-Id: {rid}", *fields))
        line = wait_for(lambda: [x for x in server.access_log().splitlines() if rid in x], "the line")[0]
        return line.split(" ")[0]

    forged = ["X-Forwarded-For: 203.0.113.9"]
    with Ragd() as r:
        assert client_of(r, forged) == "127.0.0.1"
    with Ragd({"server": {"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]}}) as r:
        assert client_of(r, forged) == "203.0.113.9"
        assert client_of(r, ["X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.1.2.3"]) == "203.0.113.9"
        assert client_of(r, ["X-Forwarded-For: 198.51.100.7", "X-Forwarded-For: 203.0.113.9:1234, 10.1.2.3"]) == "203.0.113.9"
        assert client_of(r, ["X-Forwarded-For: 198.51.100.7, nonsense, 10.1.2.3"]) == "10.1.2.3"
        assert client_of(r, ["X-Forwarded-For: [2001:db8::7]:99"]) == "2001:db8::7"
        assert client_of(r, []) == "127.0.0.1"
        assert client_of(r, forged, "/%zz") == "203.0.113.9"  # a request that is refused for its target


def test_everything_is_served_under_the_base_path():
    r = Ragd({"server": {"base_path": "/rag/"}})
    try:
        r.start(ready="/rag/readyz")
        assert r.get("/rag/livez").status_code == 200
        assert r.get("/rag").status_code == 200
        assert r.get("/livez").status_code == 404
        assert r.get("/ragged").status_code == 404
    finally:
        r.close()


def test_the_debug_routes_exist_only_where_faults_are_allowed():
    with Ragd({"debug": {"faults": False}}) as r:
        assert r.get("/debug/sleep?ms=0").status_code == 404


def test_more_than_max_in_flight_gets_503():
    with Ragd({"http": {"max_in_flight": 2}}) as r:
        with Wire(r, get("/debug/sleep?ms=5000")), Wire(r, get("/debug/sleep?ms=5000")):

            def refused():
                reply = ask(r, get("/api/v1/collections"))
                return reply if reply.status == 503 else None

            reply = wait_for(refused, "a 503")
            assert reply.json()["code"] == "overloaded"
            assert int(reply.headers["retry-after"]) >= 1
            assert int(reply.headers["retry-after-ms"]) >= 1
            for probe in ("/livez", "/readyz", "/metrics"):
                assert ask(r, get(probe)).status == 200
