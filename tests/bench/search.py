#!/usr/bin/python3
"""Lexical search over 100,000 chunks of real text: ragd on its default store beside what a Python team would deploy, all
with two workers, over HTTP, on the same chunks and queries, in turns; README.md in this folder explains it.

usage: search.py --ragd build/ragd [--rounds 5] [--seconds 3] [--chunks 100000] [--connections 16] [--data build/retrieval]
                 [--venv build/venv-bench] [--json FILE]

bm25s needs the Python of --venv (deploy/install-pypi.sh bench makes it); without it that peer is left out, with a message.
"""
import argparse
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
A_DOCUMENT, QUERIES, WORKERS, TOP_K = 100, 2000, 2, 10  # chunks a document; of each server; hits a query
GOAL_P50, GOAL_RATE = 5.0, 1.0


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragd", default="build/ragd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=16, help="for the throughput")
    parser.add_argument("--data", default="build/retrieval", help="where the packages' descriptions are kept")
    parser.add_argument("--venv", default="build/venv-bench", help="a Python with bm25s, PyStemmer and FastAPI")
    parser.add_argument("--json", help="write every run to this file")
    return parser.parse_args()


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Engine:
    """A server that has the chunks: its process, where to POST, and the file of bodies to send there."""

    def __init__(self, name, server, target, bodies, fill_seconds):
        self.name, self.server, self.target, self.bodies, self.fill_seconds = name, server, target, bodies, fill_seconds

    def run(self, connections, seconds):
        env = {"BENCH_TARGET": self.target, "BENCH_BODIES": str(self.bodies)}
        return Wrk(self.server.url, connections, seconds, str(HERE / "search.lua"), env,
                   {"server": self.server.pid}).result()  # fmt: skip

    def ask(self, body):
        answer = httpx.post(self.server.url + self.target, content=body, trust_env=False, timeout=30,
                            headers={"Content-Type": "application/json"})  # fmt: skip
        assert answer.status_code == 200, answer.text
        return answer.json()["hits"]


def write_bodies(file, queries, **more):
    file.write_text("".join(json.dumps({"query": query, "top_k": TOP_K, **more}) + "\n" for query in queries))
    return file


def serve_ragd(tmp, texts, queries):
    """Filled with chunks that the client made, so that all engines have the same; then served without ingest workers."""
    folder = tmp / "ragd"
    folder.mkdir()
    config = {"server": {"workers": WORKERS}, "ingest": {"workers": 2}, "debug": {"faults": False}}
    began = time.monotonic()
    with Ragd(config, dir=folder) as loading:
        collection = loading.post("/api/v1/collections", json={"name": "bench"}).json()["id"]
        path = f"/api/v1/collections/{collection}"
        lines = [json.dumps({"title": f"Part {at // A_DOCUMENT}", "chunks": [{"text": t} for t in texts[at:at + A_DOCUMENT]]})
                 for at in range(0, len(texts), A_DOCUMENT)]
        for at in range(0, len(lines), 50):
            answer = loading.post(f"{path}/import", content="\n".join(lines[at:at + 50]).encode(), timeout=120,
                                  headers={"Content-Type": "application/x-ndjson"})  # fmt: skip
            bad = [line for line in answer.text.splitlines() if '"error"' in line]
            assert answer.status_code == 200 and not bad, bad[:1] or answer.text
        wait_for(lambda: loading.get(path).json()["counts"]["chunks"] == len(texts), "all chunks", 1800, 0.2)
        loading.stop(timeout=120)
    server = Ragd(config, dir=folder, args=["--role", "http"])
    server.start()
    bodies = write_bodies(tmp / "ragd.bodies", queries, mode="lexical", collections=[collection])
    return Engine("ragd", server, "/api/v1/search", bodies, time.monotonic() - began)


def serve_fts5(tmp, texts, bodies):
    """A table, an FTS5 index over it with the stemmer that it has, and that optimized."""
    began = time.monotonic()
    db = sqlite3.connect(tmp / "fts5.db")
    db.executescript("""PRAGMA journal_mode = WAL;
        CREATE TABLE chunks (id INTEGER PRIMARY KEY, document INTEGER, title TEXT, text TEXT);
        CREATE VIRTUAL TABLE chunks_fts USING fts5(text, content='chunks', content_rowid='id',
                                                   tokenize='porter unicode61 remove_diacritics 2');""")
    rows = [(i, i // A_DOCUMENT, f"Part {i // A_DOCUMENT}", t) for i, t in enumerate(texts)]
    db.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?)", rows)
    db.execute("INSERT INTO chunks_fts (chunks_fts) VALUES ('rebuild')")
    db.execute("INSERT INTO chunks_fts (chunks_fts) VALUES ('optimize')")
    db.commit()
    db.close()
    server = peers.gunicorn(tmp, "fts5_app", WORKERS, {"BENCH_DB": str(tmp / "fts5.db")})
    return Engine("FTS5 in FastAPI", server, "/search", bodies, time.monotonic() - began)


def serve_bm25s(tmp, texts, bodies, python):
    if subprocess.run([python, "-c", "import bm25s, Stemmer, fastapi"], capture_output=True).returncode:
        say(f"bm25s: left out, for {python} has no bm25s, PyStemmer and FastAPI: deploy/install-pypi.sh bench")
        return None
    began = time.monotonic()
    rows = ({"chunk_id": i, "document_id": i // A_DOCUMENT, "title": f"Part {i // A_DOCUMENT}", "text": t}
            for i, t in enumerate(texts))
    (tmp / "chunks.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run([python, HERE / "bm25s_app.py", tmp / "chunks.ndjson", tmp / "bm25s"], check=True)
    server = peers.gunicorn(tmp, "bm25s_app", WORKERS, {"BENCH_INDEX": str(tmp / "bm25s")}, python)
    return Engine("bm25s in FastAPI", server, "/search", bodies, time.monotonic() - began)


def measure(engines, args):
    """{name: {"one": runs with one connection, "many": runs with many}}; the order rotates."""
    found = {engine.name: {"one": [], "many": []} for engine in engines}
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
    print(f"\nlexical search over {args.chunks:,} chunks, {QUERIES:,} queries, {TOP_K} hits, {WORKERS} workers a server, HTTP; "
          f"medians of {args.rounds} interleaved rounds of {args.seconds} s\n")
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
    missed = [f"{errors} requests failed: the rows with errors are void"] if errors else []
    goals = [("p50 of ragd with one connection, ms", median(found["ragd"]["one"], "p50"), "<=", GOAL_P50)]
    goals += [(f"ragd / {e.name}", ratio(mine, found[e.name]["many"]), ">=", GOAL_RATE) for e in engines[1:]]
    print("\n| goal | value | pass | |\n|---|---|---|---|")
    for what, value, sign, bound in goals:
        ok = reaches(value, sign, bound)
        print(f"| {what} | {value:.2f} | {sign} {bound} | {'PASS' if ok else 'FAIL'} |")
        missed += [] if ok else [what]
    return missed


def main():
    args = parse_args()
    root = pathlib.Path(args.data).resolve()
    say("reading the descriptions of packages")
    texts, queries = corpus.chunks(root, args.chunks), corpus.queries(root, QUERIES)
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="ragd-bench-"))
    engines = []
    try:
        bodies = write_bodies(tmp / "bodies", queries)
        say("filling ragd, FTS5 and bm25s")
        for serve in (lambda: serve_ragd(tmp, texts, queries), lambda: serve_fts5(tmp, texts, bodies),
                      lambda: serve_bm25s(tmp, texts, bodies, f"{args.venv}/bin/python3")):  # fmt: skip
            engine = serve()
            engines += [engine] if engine else []
        same = agreement(engines, 50)
        for engine in engines:
            engine.run(args.connections, 1)  # warm
        found = measure(engines, args)
        missed = table(engines, found, same, args)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"runs": found, "same hits": same}, indent=1))
        return bool(missed)
    finally:
        for engine in engines:
            engine.server.close()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    os.environ["RAGD_BIN"] = os.path.abspath(parse_args().ragd)
    import httpx

    import corpus
    import peers
    from measure import Wrk, median, memory, ratio
    from ragdtest import Ragd, wait_for
    from report import reaches
    sys.exit(main())
