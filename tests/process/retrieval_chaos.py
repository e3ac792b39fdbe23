#!/usr/bin/python3
"""Processes are killed while documents are ingested, replaced, deleted and searched: workers, the master, the broker of the
cages, Redis, Qdrant and the server of the model. No job may stick, no search may be answered wrongly unless it says `degraded`,
and in the end store and index agree.

usage: retrieval_chaos.py [--seconds 300] [--seed N] [--services]      RAGD_BIN names the binary"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

import httpx

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent)]

from kills import kill_master, kill_worker  # noqa: E402
from openai_server import buckets  # noqa: E402
from ragdtest import Postgres, Ragd, report, wait_for  # noqa: E402
from services import Model, Qdrant, Redis  # noqa: E402
from soak import show  # noqa: E402
from watch import Background  # noqa: E402

COMMON = "ledger copper harbour quiet index lantern orbit meadow signal turbine velvet winter".split()
COMMON_BUCKETS = {at for word in COMMON for at, _ in buckets(word, Model.dimension)}
MODES = ["hybrid", "lexical", "vector"]
AWAY = {502, 503, 504}  # said honestly: the answer cannot be given now


class Library(Background):
    """Two writers and two searchers. What is `ready` must be found by the word that it alone has; what is `gone` must not."""

    def __init__(self, server, collection, rng):
        self.server, self.collection, self.rng = server, collection, rng
        self.lock = threading.Lock()
        self.pending, self.ready, self.gone = {}, {}, {}  # document id: its own word
        self.numbers = itertools.count()
        self.searches = {"asked": 0, "degraded": 0, "away": 0, "cut off": 0}
        self.wrong = []
        super().__init__([(self.write,), (self.write,), (self.search,), (self.search,)])

    def run(self, what):
        with httpx.Client(base_url=self.server.url, timeout=60, trust_env=False) as client:
            while not self.done.is_set():
                with contextlib.suppress(httpx.TransportError):  # its worker was killed
                    what(client)
                self.done.wait(0.02)

    def body(self):
        """A text with a word that it alone has. Words that share a bucket of the model with a common one would not do: rightly,
        others can be nearer to them than their own text."""
        number = next(self.numbers)
        alone = COMMON_BUCKETS
        while not alone.isdisjoint(COMMON_BUCKETS):
            word = f"zq{number}x{self.rng.randrange(10**6)}"
            alone = {at for at, _ in buckets(word, Model.dimension)}
        return word, f"# {word}\n\n{' '.join(self.rng.choices(COMMON, k=8))} {word}.\n"

    def write(self, client):
        self.look(client)
        if len(self.ready) > 20 and self.rng.random() < 0.3:
            self.delete(client)
        elif len(self.pending) < 40:
            self.create(client)

    def create(self, client):
        word, text = self.body()
        url = f"/api/v1/collections/{self.collection}/documents"
        answer = client.post(url, files={"file": ("a.md", text.encode(), "text/markdown")})
        if answer.status_code == 202:
            with self.lock:
                self.pending[answer.json()["document"]["id"]] = word
        elif answer.status_code not in AWAY:
            self.wrong.append((answer.status_code, answer.text))

    def delete(self, client):
        with self.lock:
            document = self.rng.choice(list(self.ready))
            word = self.ready.pop(document)
        while not self.done.is_set():
            with contextlib.suppress(httpx.TransportError):
                if client.delete(f"/api/v1/documents/{document}").status_code in (204, 404):
                    with self.lock:
                        self.gone[document] = word
                    return
            self.done.wait(0.05)

    def look(self, client):
        """Which of the pending ones are ready?"""
        with self.lock:
            some = self.rng.sample(list(self.pending), min(4, len(self.pending)))
        for document in some:
            answer = client.get(f"/api/v1/documents/{document}")
            if answer.status_code == 200 and answer.json()["status"] == "ready":
                with self.lock:
                    if document in self.pending:
                        self.ready[document] = self.pending.pop(document)

    def search(self, client):
        mode = self.rng.choice(MODES)
        with self.lock:
            gone = bool(self.gone) and self.rng.random() < 0.3
            among = list((self.gone if gone else self.ready).items())
        if not among:
            return
        document, word = self.rng.choice(among)
        query = {"query": word, "mode": mode, "collections": [self.collection], "top_k": 10}
        self.searches["asked"] += 1
        try:
            answer = client.post("/api/v1/search", json=query)
        except httpx.TransportError:
            self.searches["cut off"] += 1
            raise
        if answer.status_code in AWAY:
            self.searches["away"] += 1
        elif answer.status_code != 200:
            self.wrong.append((mode, answer.status_code, answer.text))
        else:
            self.judge(mode, document, word, gone, answer.json())

    def judge(self, mode, document, word, gone, found):
        ids = [h["document_id"] for h in found["hits"]]
        self.searches["degraded"] += bool(found["degraded"])
        if gone and document in ids:
            self.wrong.append((mode, "found though deleted", document, word, found))
        with self.lock:
            still_there = document in self.ready
        if not gone and still_there and document not in ids and not found["degraded"]:
            self.wrong.append((mode, "not found", document, word, found))


class Chaos:
    def __init__(self, server, redis, model, qdrant, rng):
        self.server, self.redis, self.model, self.qdrant, self.rng = server, redis, model, qdrant, rng
        self.happened = {}

    def restart(self, service):
        service.kill()
        time.sleep(self.rng.uniform(0, 4))  # how long it is away
        service.start()

    def broker(self):
        for pid in self.server.processes():
            with contextlib.suppress(OSError):
                if b"cage" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    # name: (how often, what)
    ACTIONS = {
        "KILL an http worker": (3, lambda self: kill_worker(self.server, "http", self.rng)),
        "KILL an ingest worker": (4, lambda self: kill_worker(self.server, "ingest", self.rng)),
        "KILL the master": (1, lambda self: kill_master(self.server)),
        "KILL the broker": (2, broker),
        "KILL Redis": (2, lambda self: self.restart(self.redis)),
        "KILL the model": (2, lambda self: self.restart(self.model)),
        "KILL Qdrant": (2, lambda self: self.qdrant and self.restart(self.qdrant)),
    }

    def step(self):
        names = list(self.ACTIONS)
        name = self.rng.choices(names, [self.ACTIONS[n][0] for n in names])[0]
        self.ACTIONS[name][1](self)
        self.happened[name] = self.happened.get(name, 0) + 1
        return name


def unfinished(server, collection):
    """Documents that are neither ready nor failed, and jobs that are not over."""
    counts = {}
    for status in ("queued", "parsing", "chunking", "embedding", "indexing"):
        found = server.get(f"/api/v1/collections/{collection}/documents?status={status}").json()["data"]
        counts[status] = [(d["id"], d["last_error"]) for d in found]
    for status in ("queued", "running"):
        counts[f"jobs {status}"] = [j["id"] for j in server.get(f"/api/v1/jobs?status={status}").json()["data"]]
    return {name: found for name, found in counts.items() if found}


def chaos(seconds, seed, services, say=lambda line: None):
    """`services`: on PostgreSQL and Qdrant, else on what is embedded; with Redis in any case."""
    rng = random.Random(seed)
    config = {
        "server": {"workers": 2, "min_uptime": "0s"},
        "ingest": {"workers": 2, "lease": "3s", "max_attempts": 50, "retry_delay": "100ms", "poll": "200ms"},
    }
    with contextlib.ExitStack() as stack:
        redis, model = stack.enter_context(Redis()), stack.enter_context(Model())
        qdrant = stack.enter_context(Qdrant()) if services else None
        config["cache"] = {"url": f"redis://127.0.0.1:{redis.port}/0"}
        config["embedding"] = {"url": model.url, "model": "words", "timeout": "2s"}
        if services:
            config["database"] = {"url": stack.enter_context(Postgres()).new_database(), "auto_migrate": True}
            config["vectors"] = {"url": qdrant.url, "timeout": "2s"}
        with Ragd(config) as server:
            collection = server.post("/api/v1/collections", json={"name": "c"}).json()["id"]
            c = Chaos(server, redis, model, qdrant, rng)
            with Library(server, collection, rng) as library:
                wait_for(lambda: len(library.ready) > 5, lambda: f"the first documents:\n{server.log()[-3000:]}", 60)
                begin = time.monotonic()
                while time.monotonic() - begin < seconds:
                    say(f"{time.monotonic() - begin:6.1f} s: {c.step()}")
                    time.sleep(rng.uniform(0.3, 1.2))  # the pace at which things happen
            server.hang_up()
            wait_for(lambda: not unfinished(server, collection), lambda: f"the end of {unfinished(server, collection)}:\n"
                     f"{server.log()[-3000:]}", 120, 0.2)  # fmt: skip
            name = f"retrieval chaos of {seconds} s, {'services' if services else 'embedded'}"
            report(f"{name}, what happened", c.happened)
            report(f"{name}, documents, of them deleted", f"{next(library.numbers)}, {len(library.gone)}")
            report(f"{name}, searches", library.searches)
            assert not library.wrong, library.wrong[:3]
            failed = server.get(f"/api/v1/collections/{collection}/documents?status=failed").json()["data"]
            assert not failed, failed[:3]
            checks = []  # what was deleted last may still be on its way out of the index

            def clean():
                checks.append(server.cli("fsck", "--json", timeout=60))
                return checks[-1].returncode == 0

            wait_for(clean, lambda: f"fsck to be content: {checks[-1]}", 60, 0.5)
            counts = json.loads(checks[-1].stdout)
            assert counts["missing"] == counts["orphans"] == counts["mismatched"] == counts["aliases"] == 0, counts
            assert server.stop() == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--services", action="store_true", help="on PostgreSQL and Qdrant instead of what is embedded")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    chaos(args.seconds, args.seed, args.services, say=lambda line: print(line, flush=True))
    show()


if __name__ == "__main__":
    main()
