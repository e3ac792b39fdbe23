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
A_DOCUMENT, QUERIES = 100, 2000  # chunks a document
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


def serve_ragd(tmp, texts, queries):
    documents = ({"title": f"Part {at // A_DOCUMENT}", "chunks": [{"text": t} for t in texts[at:at + A_DOCUMENT]]}
                 for at in range(0, len(texts), A_DOCUMENT))
    return searchers.serve_ragd(tmp / "ragd", {}, documents, len(texts), queries, "lexical")


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


def report(engines, found, same, args):
    print(f"\nlexical search over {args.chunks:,} chunks, {QUERIES:,} queries, {TOP_K} hits, {WORKERS} workers a server, HTTP; "
          f"medians of {args.rounds} interleaved rounds of {args.seconds} s\n")
    errors = table(engines, found, same, args)
    goals = [("p50 of ragd with one connection, ms", median(found["ragd"]["one"], "p50"), "<=", GOAL_P50)]
    goals += [(f"ragd / {e.name}", ratio(found["ragd"]["many"], found[e.name]["many"]), ">=", GOAL_RATE) for e in engines[1:]]
    return verdict(goals, errors)


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
        found = measure(engines, args)
        missed = report(engines, found, same, args)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"runs": found, "same hits": same}, indent=1))
        return bool(missed)
    finally:
        for engine in engines:
            engine.server.close()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    os.environ["RAGD_BIN"] = os.path.abspath(parse_args().ragd)
    import corpus
    import peers
    import searchers
    from measure import median, ratio
    from searchers import TOP_K, WORKERS, Engine, agreement, measure, say, table, verdict, write_bodies
    sys.exit(main())
