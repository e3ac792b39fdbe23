"""What was answered with 2xx is never lost: kill -9 of workers, master and PostgreSQL in the middle of uploads."""

import hashlib
import itertools
import os
import random

import httpx
import pytest

from kills import kill_master, kill_worker
from ragdtest import Ragd, wait_for
from watch import Background

ROUNDS = int(os.environ.get("RAGD_KILL_ROUNDS", "10"))
CLIENTS = 4
WORDS = "ledger copper harbour quiet index lantern orbit meadow signal turbine velvet winter".split()


class Uploads(Background):
    """Clients that upload without pause and remember what the server said yes to."""

    def __init__(self, server, collection):
        self.server, self.collection = server, collection
        self.acknowledged = {}  # document id -> SHA-256 of its bytes
        self.numbers = itertools.count()
        self.odd = []
        super().__init__((i,) for i in range(CLIENTS))

    def body(self):
        n = next(self.numbers)
        rng = random.Random(n)
        # Every seventh is longer than one stored part, so that uploads of several steps are hit as well.
        words = 200_000 if n % 7 == 0 else 300
        return f"document {n}\n\n" + " ".join(rng.choices(WORDS, k=words))

    def run(self, number):
        url = f"{self.server.url}/api/v1/collections/{self.collection}/documents"
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self.done.is_set():
                data = self.body().encode()
                try:
                    reply = client.post(url, files={"file": (f"{number}.txt", data, "text/plain")})
                except httpx.TransportError:
                    self.done.wait(0.02)  # the server is down or the worker was killed: nothing was promised
                    continue
                if reply.status_code in (200, 202):
                    self.acknowledged[reply.json()["document"]["id"]] = hashlib.sha256(data).hexdigest()
                elif reply.status_code == 503:
                    assert "retry-after" in reply.headers
                    self.done.wait(0.05)
                else:
                    self.odd.append((reply.status_code, reply.text))

    def wait_for_more(self, count):
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, f"{count} more uploads; odd answers: {self.odd[:3]}", 60)


@pytest.mark.parametrize("product", ["sqlite", "postgresql"])
def test_no_answered_write_is_lost(product, postgres_to_kill):
    config = {"server": {"workers": 2, "min_uptime": "0s"}, "ingest": {"workers": 1, "lease": "2s", "max_attempts": 20}}
    if product == "postgresql":
        config["database"] = {"url": postgres_to_kill.new_database(), "auto_migrate": True}
    with Ragd(config) as server:
        collection = server.post("/api/v1/collections", json={"name": "c"}).json()["id"]
        targets = [
            lambda: kill_worker(server, "http"),
            lambda: kill_worker(server, "ingest"),
            lambda: kill_master(server),
        ]
        if product == "postgresql":
            targets.append(lambda: (postgres_to_kill.kill(), postgres_to_kill.start()))
        with Uploads(server, collection) as uploads:
            for n in range(ROUNDS):
                uploads.wait_for_more(8)
                targets[n % len(targets)]()
            uploads.wait_for_more(8)
        assert not uploads.odd
        assert len(uploads.acknowledged) >= 8 * ROUNDS
        for document, digest in uploads.acknowledged.items():
            content = server.get(f"/api/v1/documents/{document}/content")
            assert content.status_code == 200, (document, content.text)
            assert hashlib.sha256(content.content).hexdigest() == digest

        def unfinished():
            states = {d: server.get(f"/api/v1/documents/{d}").json() for d in uploads.acknowledged}
            bad = {d: s["last_error"] for d, s in states.items() if s["status"] == "failed"}
            assert not bad, bad
            return [d for d, s in states.items() if s["status"] != "ready"]

        wait_for(lambda: not unfinished(), lambda: f"documents to become ready: {unfinished()[:3]}", 300, 0.5)
        found = server.post("/api/v1/search", json={"query": "lantern", "collections": [collection], "top_k": 1}).json()
        assert found["hits"]
