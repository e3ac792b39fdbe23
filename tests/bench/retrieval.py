#!/usr/bin/python3
"""How good search is: nDCG@10 of ragd, by words, by vectors and by both, beside a reference made of PyPI's bm25s, on two sets;
retrieval.md explains them.

usage: retrieval.py --ragd build/ragd [--data build/retrieval] [--python build/venv-bench/bin/python3] [--documents 10000]
                    [--queries 1000] [--json FILE]

Embedder and reference need a Python of their own (--python; deploy/install-pypi.sh bench makes it): without it only the
words are measured, with a message. Exit code 1: by words ragd is more than a point of nDCG@10 below the reference, by vectors
likewise, or by both more than a point below the better of its own two.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import retrieval_sets  # noqa: E402

POINT = 0.01
ARMS = ("lexical", "vector", "hybrid")
NEEDED = "import bm25s, Stemmer, wordllama, tokenizers, safetensors, numpy"
REFERENCE = HERE / "retrieval_bm25s.py"
ROWS = [("ragd, a document a chunk", ["--set", "ingest.chunk_tokens=4096"]), ("ragd, default chunks", [])]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragd", default="build/ragd")
    parser.add_argument("--data", default="build/retrieval", help="where the sets are kept")
    parser.add_argument("--python", default="build/venv-bench/bin/python3")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def run(argv, cwd):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("RAGD_", "DATABASE_URL", "REDIS_", "PORT"))}
    done = subprocess.run(argv, cwd=cwd, env=keep, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


@contextlib.contextmanager
def embedder(python):
    """The settings for a server of the model, while it runs."""
    server = subprocess.Popen([python, HERE / "retrieval_embed.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        name, port = server.stdout.readline().split()
        assert name == "port"
        yield ["--set", f"embedding.url=http://127.0.0.1:{port}/v1", "--set", "embedding.model=wordllama"]
    finally:
        server.stdin.close()
        server.wait(30)


def measure_ragd(ragd, data, settings, arms):
    """A server's database of its own in a temporary folder: ingest, then the golden set by each arm."""
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="ragd-retrieval-"))
    try:
        more = ["--set", f"database.url=sqlite:{tmp}/ragd.db", *settings]
        began = time.time()
        ingested = run([ragd, "ingest", *more, "--json", data / "documents"], tmp)
        took = time.time() - began
        if ingested["ready"] != ingested["files"]:
            sys.exit(f"{ingested['files'] - ingested['ready']} documents were not ingested")
        rows = {}
        for arm in arms:
            row = run([ragd, "eval", *more, "--mode", arm, "--json", data / "golden.ndjson"], tmp)
            rows[arm] = {k: row[k] for k in ("ndcg@10", "recall@k", "mrr", "p50_ms", "p99_ms")}
            rows[arm]["documents_per_s"] = ingested["files"] / took
        return rows
    finally:
        shutil.rmtree(tmp)


def misses(name, mine, reference):
    """What is too low, in words."""
    found = []
    for arm in ("lexical", "vector"):
        if reference and mine[arm]["ndcg@10"] < reference[arm]["ndcg@10"] - POINT:
            found.append(f"{name}: by {arm} arm ragd's nDCG@10 is more than a point below the reference")
    if "hybrid" in mine and mine["hybrid"]["ndcg@10"] < max(mine[a]["ndcg@10"] for a in ("lexical", "vector")) - POINT:
        found.append(f"{name}: hybrid is more than a point of nDCG@10 below the better arm")
    return found


def show(title, rows):
    for arm, row in rows.items():
        speed = f"{row['p50_ms']:8.2f}{row['p99_ms']:8.2f}{row['documents_per_s']:13.0f}" if "p50_ms" in row else ""
        print(f"{title:26}{arm:9}{row['ndcg@10']:8.4f}{row['recall@k']:11.4f}{row['mrr']:7.4f}{speed}", flush=True)


def measure(args, settings, arms):
    """(figures, what was missed) of both sets."""
    ragd, root = pathlib.Path(args.ragd).resolve(), pathlib.Path(args.data).resolve()
    figures, missed = {}, []
    for name, build in retrieval_sets.SETS.items():
        data = root / f"{name}-{args.documents}-{args.queries}"
        if not (data / "golden.ndjson").exists():
            say(f"{name}: building")
            build(root, data, args.documents, args.queries)
        questions = sum(1 for _ in open(data / "golden.ndjson"))
        documents = sum(1 for _ in (data / "documents").iterdir())
        print(f"\n{name}: {documents} documents, {questions} questions")
        print(f"{'':26}{'arm':9} nDCG@10  recall@10    MRR  p50 ms  p99 ms  documents/s", flush=True)
        rows = {}
        for title, more in ROWS:
            rows[title] = measure_ragd(ragd, data, [*settings, *more], arms)
            show(title, rows[title])
        reference = None
        if len(arms) > 1:
            reference = rows["reference"] = run([args.python, REFERENCE, data], data)
            show("bm25s, exact, RRF", reference)
        missed += misses(f"{name}, {ROWS[0][0]}", rows[ROWS[0][0]], reference)
        missed += misses(f"{name}, {ROWS[1][0]}", rows[ROWS[1][0]], None)
        figures[name] = {"documents": documents, "questions": questions, "rows": rows}
    return figures, missed


def main():
    args = parse_args()
    args.python = os.path.abspath(args.python)
    able = os.access(args.python, os.X_OK) and subprocess.run([args.python, "-c", NEEDED], capture_output=True).returncode == 0
    if able:
        with embedder(args.python) as settings:
            figures, missed = measure(args, settings, ARMS)
    else:
        say(f"only by words, for {args.python} has no embedder and no bm25s: deploy/install-pypi.sh bench")
        figures, missed = measure(args, [], ARMS[:1])
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=1))
    for what in missed:
        print(f"MISSED: {what}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
