"""What search.py and vectors.py share: search servers that hold the same chunks, asked over HTTP in turns."""
import itertools
import json
import pathlib
import sys
import time

import httpx

from measure import Wrk, median, memory, ratio
from ragdtest import Ragd, wait_for
from report import reaches

HERE = pathlib.Path(__file__).resolve().parent
WORKERS, TOP_K = 2, 10  # of each server; hits a query


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Engine:
    """A server that has the chunks: its process, where to POST, and the file of bodies to send there."""

    def __init__(self, name, server, target, bodies, fill_seconds):
        self.name, self.server, self.target, self.bodies, self.fill_seconds = name, server, target, bodies, fill_seconds
        self.client = httpx.Client(trust_env=False, timeout=30)

    def run(self, connections, seconds):
        env = {"BENCH_TARGET": self.target, "BENCH_BODIES": str(self.bodies)}
        return Wrk(self.server.url, connections, seconds, str(HERE / "search.lua"), env,
                   {"server": self.server.pid}).result()  # fmt: skip

    def ask(self, body):
        answer = self.client.post(self.server.url + self.target, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
        return answer.json()["hits"]


def write_bodies(file, queries, **more):
    file.write_text("".join(json.dumps({"query": query, "top_k": TOP_K, **more}) + "\n" for query in queries))
    return file


def serve_ragd(folder, config, documents, chunks, queries, mode, batch=50):
    """Filled with chunks that the client made, so that all engines have the same; then served without ingest workers."""
    folder.mkdir()
    config = {"server": {"workers": WORKERS}, "ingest": {"workers": 2}, "debug": {"faults": False}, **config}
    began = time.monotonic()
    with Ragd(config, dir=folder) as loading:
        collection = loading.post("/api/v1/collections", json={"name": "bench"}).json()["id"]
        path = f"/api/v1/collections/{collection}"
        documents = iter(documents)
        while lines := [json.dumps(document) for document in itertools.islice(documents, batch)]:
            answer = loading.post(f"{path}/import", content="\n".join(lines).encode(), timeout=120,
                                  headers={"Content-Type": "application/x-ndjson"})  # fmt: skip
            bad = [line for line in answer.text.splitlines() if '"error"' in line]
            assert answer.status_code == 200 and not bad, bad[:1] or answer.text
        wait_for(lambda: loading.get(path).json()["counts"]["chunks"] == chunks, "all chunks", 1800, 0.2)
        loading.stop(timeout=120)
    server = Ragd(config, dir=folder, args=["--role", "http"])
    server.start()
    bodies = write_bodies(folder.with_suffix(".bodies"), queries, mode=mode, collections=[collection])
    return Engine("ragd", server, "/api/v1/search", bodies, time.monotonic() - began)


def measure(engines, args):
    """{name: {"one": runs with one connection, "many": runs with many}}; the order rotates."""
    found = {engine.name: {"one": [], "many": []} for engine in engines}
    for engine in engines:
        engine.run(args.connections, 1)  # warm
    for number in range(args.rounds):
        say(f"round {number + 1} of {args.rounds}")
        shift = number % len(engines)
        for engine in engines[shift:] + engines[:shift]:
            found[engine.name]["one"].append(engine.run(1, args.seconds))
            found[engine.name]["many"].append(engine.run(args.connections, args.seconds))
    return found


def agreement(engines, queries):
    """How many of the first ten texts ragd and each peer have in common, on average: they shall do the same work."""
    bodies = [engine.bodies.read_text().splitlines() for engine in engines]
    common = {engine.name: 0 for engine in engines[1:]}
    for i in range(queries):
        mine, *others = [{hit["text"] for hit in engine.ask(lines[i])} for engine, lines in zip(engines, bodies)]
        for engine, theirs in zip(engines[1:], others):
            common[engine.name] += len(mine & theirs) / max(len(mine | theirs), 1)
    return {name: total / queries for name, total in common.items()}


def table(engines, found, same, args):
    """Prints what was measured; returns how many requests failed."""
    print(f"| server | p50 ms | p99 ms | requests/s, {args.connections} connections | ragd / it | p99 ms then | CPU us | "
          "PSS MB | same hits | fill s | errors |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    mine, errors = found["ragd"]["many"], 0
    for engine in engines:
        one, many = found[engine.name]["one"], found[engine.name]["many"]
        bad = sum(row["errors"] for row in one + many)
        errors += bad
        shared = f"{same[engine.name]:.2f}" if engine.name in same else "-"
        print(f"| {engine.name} | {median(one, 'p50'):.2f} | {median(one, 'p99'):.2f} | {median(many, 'rate'):,.0f} | "
              f"{ratio(mine, many):.2f} | {median(many, 'p99'):.1f} | {median(many, 'server'):,.0f} | "
              f"{memory(engine.server.pid)['Pss'] / 1e6:.0f} | {shared} | {engine.fill_seconds:.0f} | {bad} |")  # fmt: skip
    return errors


def verdict(goals, errors):
    """Prints each (what, value, sign, bound); returns what was missed."""
    missed = [f"{errors} requests failed: the rows with errors are void"] if errors else []
    print("\n| goal | value | pass | |\n|---|---|---|---|")
    for what, value, sign, bound in goals:
        ok = reaches(value, sign, bound)
        print(f"| {what} | {value:.2f} | {sign} {bound} | {'PASS' if ok else 'FAIL'} |")
        missed += [] if ok else [what]
    return missed
