"""HTTP on plain sockets: what is sent is exactly what is given, and every byte of the answer is accounted for."""

import json
import uuid


class Reply:
    def __init__(self, status, version, headers, body):
        self.status, self.version, self.headers, self.body = status, version, headers, body

    def json(self):
        return json.loads(self.body)


class Wire:
    """One connection: what is sent is exactly what is given."""

    def __init__(self, server, data=b""):
        self.sock = server.connect()
        self.buffer = b""
        if data:
            self.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def more(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                raise EOFError(f"the connection ended; so far: {self.buffer!r}")
        head, _, self.buffer = self.buffer.partition(mark)
        return head

    def exactly(self, n):
        while len(self.buffer) < n:
            if not self.more():
                raise EOFError(f"the connection ended after {len(self.buffer)} of {n} bytes")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def chunks(self):
        body = b""
        while True:
            size = int(self.until(b"\r\n"), 16)
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
            if not size:
                return body

    def reply(self, head=False):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if not head and int(status) not in (100, 204, 304):
            if "content-length" in headers:
                body = self.exactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                body = self.chunks()
            else:
                while self.more():
                    pass
                body, self.buffer = self.buffer, b""
        return Reply(int(status), version, headers, body)

    def closed(self):
        """The server has closed, and sent nothing further."""
        while self.more():
            pass
        return self.buffer == b""


def ask(server, data):
    with Wire(server, data) as w:
        return w.reply()


def get(path="/livez", *fields, version="1.1"):
    return "".join([f"GET {path} HTTP/{version}\r\nHost: test\r\n", *(f + "\r\n" for f in fields), "\r\n"])


def post(body, *fields, path="/api/v1/collections"):
    return f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n" + "".join(f + "\r\n" for f in fields) + "\r\n" + body


def collection():
    return json.dumps({"name": f"c-{uuid.uuid4()}"})


def chunked(*pieces):
    return "".join(f"{len(p):x}\r\n{p}\r\n" for p in pieces)


def metric(server, name):
    for line in server.get("/metrics").text.splitlines():
        if line.startswith(name + " ") or line.startswith(name + "{"):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no metric {name}")
