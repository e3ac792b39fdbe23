"""Behind nginx with upstream keep-alive: no POST is lost by a reload or a stop. A proxy cannot send a POST again that
may have been taken, so each connection that is closed in its face is an error that a client sees."""

import http.client
import json
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile

from ragdtest import Ragd, fetch, free_port, report, wait_for
from watch import Background, hup


class Nginx:
    """One worker process in front of `backends`, with up to 16 idle connections to them."""

    def __init__(self, *backends):
        self.port = free_port()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ragd-nginx-"))
        paths = "".join(f"{k}_temp_path {self.dir}/{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        servers = "".join(f"server 127.0.0.1:{b.port} max_fails=0;" for b in backends)
        (self.dir / "nginx.conf").write_text(
            f"pid {self.dir}/pid;\nerror_log {self.dir}/error.log;\ndaemon off;\nmaster_process off;\n"
            f"events {{ worker_connections 256; }}\nhttp {{ access_log off;\n{paths}"
            f"upstream ragd {{ {servers} keepalive 16; }}\n"
            f"server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://ragd;\n"
            'proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
        )

    def __enter__(self):
        self.proc = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-e", f"{self.dir}/error.log", "-c", f"{self.dir}/nginx.conf"])
        wait_for(lambda: fetch(f"http://127.0.0.1:{self.port}/livez") == 200, self.log)
        return self

    def __exit__(self, *exc):
        self.proc.terminate()
        self.proc.wait(30)
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        return (self.dir / "error.log").read_text()


class Posts(Background):
    """Documents, posted over kept connections by a few clients at once, until the end of the block."""

    def __init__(self, port, collection, clients=8):
        self.port, self.path = port, f"/api/v1/collections/{collection}/documents"
        self.answers = [[] for _ in range(clients)]
        super().__init__((answers,) for answers in self.answers)

    def run(self, answers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.done.is_set():
            body = json.dumps({"text": f"document {len(answers)} of {id(answers)}"})
            try:
                connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                answers.append(answer.status)
            except (OSError, http.client.HTTPException) as e:
                answers.append(repr(e))
                connection.close()
            self.done.wait(0.002)  # connections are idle now and then
        connection.close()

    def count(self):
        return sum(len(a) for a in self.answers)

    def more(self, n):
        goal = self.count() + n
        wait_for(lambda: self.count() >= goal, lambda: f"{n} more answers", 60)

    def failures(self):
        return [a for answers in self.answers for a in answers if a not in (201, 202)]


def collection_of(r):
    return r.post("/api/v1/collections", json={"name": "posts"}).json()["id"]


def test_no_post_is_lost_by_reloads():
    with Ragd({"server": {"workers": 2}, "log": {"access": "off"}}) as r, Nginx(r) as nginx:
        collection = collection_of(r)
        with Posts(nginx.port, collection) as posts:
            for _ in range(4):
                posts.more(50)
                assert "reloaded" in hup(r)
                wait_for(lambda: len(r.workers()) == 3, "the old workers to leave")
        report("POSTs through nginx during 4 reloads", posts.count())
        assert posts.failures() == [], nginx.log()


def test_no_post_is_lost_when_one_of_two_servers_stops(postgres):
    config = {"database": {"url": postgres.new_database(), "auto_migrate": True}, "log": {"access": "off"}}
    with Ragd(config) as leaves, Ragd(config) as stays, Nginx(leaves, stays) as nginx:
        collection = collection_of(stays)
        with Posts(nginx.port, collection) as posts:
            posts.more(100)
            leaves.hang_up()
            assert leaves.stop() == 0
            posts.more(50)
        report("POSTs through nginx around a stop", posts.count())
        assert posts.failures() == [], nginx.log()


def test_idle_connections_are_not_all_closed_at_once():
    """After the first of them is closed, others still take a request, and answer that it was their last."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with Ragd({"server": {"graceful_timeout": "20s"}}) as r:
        idle = [r.connect() for _ in range(40)]
        for s in idle:
            s.sendall(request)
            assert s.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        r.hang_up()
        r.send(signal.SIGTERM)
        gone, _, _ = select.select(idle, [], [], 30)
        assert gone
        last = []
        for s in idle:
            try:
                s.sendall(request)
                last.append(s.makefile("rb").read())
            except ConnectionError:
                last.append(b"")
        report("idle connections that were still served after the first was closed", sum(map(bool, last)))
        served = [a for a in last if a]
        assert served
        for answer in served:
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"connection: close\r\n" in answer.lower()
        assert r.wait_exit() == 0
        for s in idle:
            s.close()
