"""Request heads, byte by byte: what is refused and how, what is accepted. Plain sockets, because no client library would
send most of this."""

import socket

import pytest

from ragdtest import Ragd
from wire import Wire, ask, get


@pytest.fixture(scope="module")
def server():
    config = {"http": {"max_request_line": 512, "max_headers_size": 2048, "max_headers": 20}, "limits": {"json_body": 4096}}
    with Ragd(config) as r:
        yield r


# ---- refused heads: one framing, or 400 and the end

BAD_HEADS = {
    "two lengths that differ": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "lengths in a list": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a signed length": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "a negative length": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
    "an empty length": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabc",
    "a length beyond 63 bits": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
    "length with chunked": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with length": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "chunked not last": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two fields": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding that is not chunked": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "an empty coding": "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n",
    "chunked in 1.0": "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF after the request line": "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare LF in the headers": "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "a bare LF at the end": "GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a bare CR in a value": "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "CR CR LF": "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "a space before the colon": "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a tab before the colon": "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
    "obs-fold": "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a fold before the first field": "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a line without a colon": "GET / HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n",
    "an empty field name": "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "NUL in a value": "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "NUL in a name": "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
    "DEL in a value": "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    "a name that is no token": "GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n",
    "no Host": "GET / HTTP/1.1\r\n\r\n",
    "two Hosts": "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in 1.0": "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "a Host with a space": "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a Host with a path": "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with a user": "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a Host with a bad port": "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    "a Host with an open bracket": "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "a method that is no token": "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no method": " / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the target": "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the version": "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tab as separator": "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space at the end": "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": "GET /\r\nHost: a\r\n\r\n",
    "a lower-case version": "GET / http/1.1\r\nHost: a\r\n\r\n",
    "a version of three parts": "GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
    "a fragment": "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a quote in the target": 'GET /" HTTP/1.1\r\nHost: a\r\n\r\n',
    "a backslash in the target": "GET /\\x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control in the target": "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a raw byte in the target": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative target": "GET livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "an authority as target": "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "the asterisk for GET": "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target of another host": "GET http://b/livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target of another scheme": "GET ftp://a/livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "%00 in the path": get("/api/v1/collections/a%00b"),
    "a bad escape in the path": get("/api/v1/collections/%zz"),
    "a cut escape in the path": get("/api/v1/collections/%4"),
    "an encoded control in the path": get("/api/v1/collections/a%0ab"),
    "invalid UTF-8 in the path": get("/api/v1/collections/%ff"),
    "overlong UTF-8 in the path": get("/api/v1/collections/%c0%af"),
    "a dot segment": get("/api/../livez"),
    "a single dot segment": get("/api/./v1"),
    "an encoded dot segment": get("/api/%2e%2e/livez"),
    "a dot segment behind an encoded slash": get("/api/v1/collections/a%2f..%2fb"),
    "%00 in the query": get("/livez?a=%00"),
    "a bad escape in the query": get("/livez?a=%g1"),
    "invalid UTF-8 in the query": get("/livez?a=%fe"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "many empty lines": "\r\n" * 5 + get(),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_bad_heads_get_400_and_the_end(server, name):
    with Wire(server, BAD_HEADS[name]) as w:
        reply = w.reply()
        assert reply.status == 400, reply.body
        assert reply.headers["connection"] == "close"
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["code"] == "bad_request"
        assert w.closed()


@pytest.mark.parametrize("name", BAD_HEADS)
def test_what_follows_a_bad_head_is_no_request(server, name):
    data = BAD_HEADS[name]
    data = data if isinstance(data, bytes) else data.encode("latin-1")
    with Wire(server, data + get("/livez", "X-Request-Id: smuggled").encode()) as w:
        assert w.reply().status == 400
        assert w.closed()
    assert "smuggled" not in server.access_log()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n", 417),
        ("GET /" + "x" * 600 + " HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        ("GET /" + "x" * 600, 414),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 2100 + "\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "x" * 2100, 431),
        ("GET / HTTP/1.1\r\nHost: a\r\n" + "".join(f"X-{i}: y\r\n" for i in range(20)) + "\r\n", 431),
    ],
)
def test_other_refusals_close_as_well(server, data, status):
    with Wire(server, data) as w:
        reply = w.reply()
        assert reply.status == status
        assert reply.headers["connection"] == "close"
        assert reply.json()["status"] == status
        assert w.closed()


def test_limits_are_exact(server):
    line = "GET /{} HTTP/1.1"
    fits = "?" + "x" * (512 - 1 - len(line) + 2 - 1)
    assert len(line.format(fits)) == 511  # 512 with its CR
    assert ask(server, line.format(fits) + "\r\nHost: a\r\n\r\n").status == 200
    assert ask(server, line.format(fits + "x") + "\r\nHost: a\r\n\r\n").status == 414
    fields = "".join(f"X-{i}: y\r\n" for i in range(19))
    assert ask(server, "GET /livez HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n").status == 200


# ---- accepted heads


@pytest.mark.parametrize(
    "data",
    [
        get(),
        "\r\n" + get(),
        "GET http://test/livez HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET HTTP://Test:80/livez HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /livez HTTP/1.1\r\nhOST:test:8000\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
        "GET /liv%65z HTTP/1.1\r\nHost: a\r\nX:   spaces \t \r\nY:\r\n\r\n",
        b"GET /livez?q=%C3%A4+b HTTP/1.1\r\nHost: a\r\nX: \xe4\xf6\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
def test_accepted_heads(server, data):
    assert ask(server, data).status == 200


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
def test_a_head_may_come_in_pieces(server, size):
    data = get("/livez", "X-Request-Id: pieces", "User-Agent: slow")
    with Wire(server) as w:
        w.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(data), size):
            w.send(data[i : i + size])
        reply = w.reply()
        assert reply.status == 200 and reply.headers["x-request-id"] == "pieces"


def test_slashes_in_a_parameter_stay_in_it(server):
    reply = ask(server, get("/api/v1/collections/a%2Fb"))
    assert reply.status in (404, 422)
    assert ask(server, get("/%61pi%2Fv1/collections")).status == 404


def test_head_has_the_length_and_no_body(server):
    with Wire(server, "HEAD /livez HTTP/1.1\r\nHost: a\r\n\r\n" + get()) as w:
        head = w.reply(head=True)
        full = w.reply()
        assert head.status == 200 and full.status == 200
        assert head.headers["content-length"] == str(len(full.body)) != "0"


def test_options_and_allow(server):
    reply = ask(server, "OPTIONS /api/v1/collections HTTP/1.1\r\nHost: a\r\n\r\n")
    assert reply.status == 204
    assert reply.headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert ask(server, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    wrong = ask(server, "DELETE /api/v1/collections HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wrong.status == 405
    assert wrong.headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert wrong.json()["error"]["code"] == "method_not_allowed"
    assert ask(server, get("/no/such/path")).status == 404
