"""What is measured: ragd and the servers beside it, each in the benchmark's temporary directory, on a free port."""

import json
import os
import pathlib
import subprocess
import sys
import time

import httpx

import sql
from ragdtest import Postgres, Ragd, free_port, wait_for

HERE = pathlib.Path(__file__).resolve().parent
HEALTH = '{"status":"ok","version":"0.1.0","uptime_s":9}'
TEXT = "Retention of board papers follows the policy of the group: reports are kept for ten years, drafts for two. "


class Server:
    """A process that listens on 127.0.0.1:port, ended by pid."""

    def __init__(self, argv, port, log, env=None):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        with open(log, "ab") as out:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                         env={**os.environ, **(env or {})})
        self.pid = self.proc.pid
        wait_for(self.answers, lambda: f"{argv[0]}: {pathlib.Path(log).read_text()}")

    def answers(self):
        assert self.proc.poll() is None, f"ended with {self.proc.returncode}"
        try:
            return httpx.get(self.url + "/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def close(self):
        self.proc.terminate()
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()


def floor(tmp, workers):
    subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-o", tmp / "floor", HERE / "epoll_floor.c"], check=True)
    port = free_port()
    return Server([str(tmp / "floor"), str(port), str(workers)], port, tmp / "floor.log")


def nginx(tmp, workers):
    port = free_port()
    paths = "".join(f"{k}_temp_path {tmp}/{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (tmp / "nginx.conf").write_text(
        f"worker_processes {workers};\npid {tmp}/nginx.pid;\nerror_log {tmp}/nginx.log;\ndaemon off;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; keepalive_requests 1000000000;\n{paths}"
        f"server {{ listen 127.0.0.1:{port}; default_type application/json; location / {{ return 200 '{HEALTH}'; }} }} }}\n")
    return Server(["/usr/sbin/nginx", "-e", f"{tmp}/nginx.log", "-c", f"{tmp}/nginx.conf"], port, tmp / "nginx.log")


def gunicorn(tmp, app, workers, env, python=sys.executable):
    """A FastAPI application of this folder under gunicorn, with uvicorn workers."""
    port = free_port()
    argv = [python, "-m", "gunicorn", "-w", str(workers), "-k", "uvicorn.workers.UvicornWorker", "-b", f"127.0.0.1:{port}",
            "--log-level", "warning", "--timeout", "120", "--chdir", str(HERE), f"{app}:app"]  # fmt: skip
    return Server(argv, port, tmp / f"{app}.log", {**env, "PYTHONDONTWRITEBYTECODE": "1"})


def fastapi(tmp, workers, dsn):
    return gunicorn(tmp, "fastapi_app", workers, {
        "BENCH_DSN": dsn, "BENCH_GET": sql.PEER_GET, "BENCH_LIST": sql.PEER_LIST, "BENCH_INSERT": sql.PEER_INSERT})


def postgres():
    return Postgres(["fsync=on", "shared_buffers=256MB", "max_connections=200", "max_wal_size=4GB",
                     "checkpoint_timeout=30min", "autovacuum=off", "jit=off"])  # fmt: skip


def ragd(workers, dsn):
    """As in production, without ingest workers: access log, metrics and request ids are on."""
    return Ragd({"server": {"workers": workers}, "database": {"url": dsn, "auto_migrate": True},
                 "debug": {"faults": False}}, args=["--role", "http"])  # fmt: skip


class Load:
    """The documents that everybody serves, made through ragd's own import, and the requests for them."""

    def __init__(self, server, cluster, database, tmp, count):
        self.server, self.cluster, self.database, self.tmp = server, cluster, database, tmp
        self.next_body = 1
        self.collection = self.new_collection("bench")
        self.scratch = self.new_collection("scratch")  # for what the creates write
        began = time.monotonic()
        self.ids = self.import_documents(count)
        self.import_seconds = time.monotonic() - began
        self.write("ids", [f"/api/v1/documents/{i}" for i in self.ids[::max(1, count // 20000)]])
        self.write("pages", [f"/api/v1/collections/{self.collection}/documents?limit=20&after={i}"
                             for i in self.ids[100::max(1, count // 2000)]])
        body = {"title": "Board paper", "filename": "paper.txt", "tags": ["team-7", "board"],
                "metadata": {"department": "audit", "pages": 12, "confidential": False},
                "text": "0000000000 " + TEXT * 16}  # fmt: skip
        (tmp / "body").write_text(json.dumps(body))
        self.create_target = f"/api/v1/collections/{self.scratch}/documents"

    def new_collection(self, name):
        answer = self.server.post("/api/v1/collections", json={"name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def write(self, name, lines):
        (self.tmp / name).write_text("\n".join(lines) + "\n")

    def import_documents(self, count, batch=1000):
        ids = []
        for first in range(0, count, batch):
            body = b"".join(self.line(i) for i in range(first, min(first + batch, count)))
            answer = self.server.post(f"/api/v1/collections/{self.collection}/import", content=body,
                                      headers={"Content-Type": "application/x-ndjson"})
            assert answer.status_code == 200, answer.text
            rows = [json.loads(line) for line in answer.text.splitlines()]
            ids += [row["document_id"] for row in rows]
        assert len(ids) == count
        return ids

    @staticmethod
    def line(i):
        return json.dumps({
            "title": f"Quarterly report {i} on {('storage', 'retrieval', 'networking', 'billing')[i % 4]}",
            "filename": f"report-{i}.txt", "tags": [f"team-{i % 20}", f"year-{2000 + i % 25}"],
            "metadata": {"source": f"https://files.example.org/{i % 100}/report-{i}.pdf", "size": 1000 + i},
            "text": f"Report {i}. {TEXT}"}).encode() + b"\n"  # fmt: skip

    def environ(self, work):
        if work == "d":
            first, self.next_body = self.next_body, self.next_body + 10_000_000
            return {"BENCH_BODY": str(self.tmp / "body"), "BENCH_TARGET": self.create_target, "BENCH_FIRST": str(first)}
        return {"BENCH_TARGETS": str(self.tmp / {"b": "ids", "c": "pages"}[work])}

    def clean(self):
        """Takes away what creates have written, so that each run meets the same tables."""
        for statement in sql.CLEAN:
            self.cluster.execute(statement.format(scratch=self.scratch), self.database)
        for statement in ("VACUUM", "CHECKPOINT"):
            self.cluster.execute(statement, self.database)
