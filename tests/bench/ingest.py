#!/usr/bin/python3
"""Ingestion in documents a second, from the first byte of the first upload until the last document can be found: ragd with one
and two ingest workers beside FastAPI with BackgroundTasks in as many workers, on both stores, over HTTP, with the same
documents; README.md in this folder explains it.

usage: ingest.py --ragd build/ragd [--rounds 2] [--texts 2000] [--files 100] [--stores sqlite,postgresql]
                 [--data build/retrieval] [--json FILE]
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
BATCH, CLIENTS, WORKERS = 50, 4, (1, 2)  # lines of one import; connections that upload; ingest workers
GOAL_RATIO = 1.0


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragd", default="build/ragd")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--texts", type=int, default=2000, help="texts of about 2 KB")
    parser.add_argument("--files", type=int, default=100, help="HTML and DOCX; PDF come on top")
    parser.add_argument("--stores", default="sqlite,postgresql")
    parser.add_argument("--data", default="build/retrieval", help="where the packages are kept")
    parser.add_argument("--json", help="write every run to this file")
    return parser.parse_args()


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Texts:
    """Small documents, handed over by bulk import, as NDJSON."""

    def __init__(self, root, count):
        self.name, texts = f"{count} texts of 2 KB", corpus.small_documents(root, count)
        lines = [json.dumps({"filename": f"text{i}.txt", "text": text}) for i, text in enumerate(texts)]
        self.count = count
        self.parts = ["\n".join(lines[at:at + BATCH]) for at in range(0, count, BATCH)]

    def send(self, http, base, part):
        return http.post(f"{base}/import", content=part, headers={"Content-Type": "application/x-ndjson"})


class Files:
    """Real files, uploaded one by one."""

    def __init__(self, root, folder, count):
        self.parts = corpus.files(root, folder, count)
        self.count, self.name = len(self.parts), corpus.kinds(self.parts)

    def send(self, http, base, part):
        with open(part, "rb") as file:
            return http.post(f"{base}/documents", files={"file": (part.name, file)})


def upload(work, base):
    """By CLIENTS connections, each with its share. A server may let a connection wait while it works off what came by it."""

    def client(number):
        with httpx.Client(trust_env=False, timeout=600) as http:
            for part in work.parts[number::CLIENTS]:
                answer = work.send(http, base, part)
                assert answer.is_success and '"status":"error"' not in answer.text, answer.text[:1000]

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))


def timed(work, base, pid, done):
    """done() counts documents that are ready, and those that failed."""
    before, began = cpu_seconds(pid), time.monotonic()
    upload(work, base)
    wait_for(lambda: sum(done()) >= work.count, lambda: f"all documents: {done()}", 1800, 0.05)
    took, ready = time.monotonic() - began, done()
    return {"rate": work.count / took, "ready": ready[0], "failed": ready[1],
            "cpu": (cpu_seconds(pid) - before) * 1000 / work.count}  # fmt: skip


def run_ragd(work, url, workers):
    with Ragd({"server": {"workers": 2}, "ingest": {"workers": workers}, "debug": {"faults": False},
               "database": {"auto_migrate": True, **({"url": url} if url else {})}}) as server:  # fmt: skip
        collection = server.post("/api/v1/collections", json={"name": "bench"}).json()["id"]

        def done():
            text = server.get("/metrics").text
            return tuple(int(float(re.search(rf"(?m)^ragd_{name} (\S+)", text)[1]))
                         for name in ("documents_indexed_total", "jobs_failed_total"))

        return timed(work, f"{server.url}/api/v1/collections/{collection}", server.pid, done)


def run_peer(work, url, workers):
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="ragd-bench-"))
    try:
        env = {"BENCH_DSN": url or str(tmp / "peer.db")}
        subprocess.run([sys.executable, HERE / "ingest_app.py"], check=True, env={**os.environ, **env})
        server = peers.gunicorn(tmp, "ingest_app", workers, env)
        try:
            done = lambda: (httpx.get(f"{server.url}/ready", trust_env=False, timeout=60).json()["ready"], 0)  # noqa: E731
            return timed(work, server.url, server.pid, done)
        finally:
            server.close()
    finally:
        shutil.rmtree(tmp)


def table(rows, rounds):
    print(f"\ningestion, from the first upload until all can be found; medians of {rounds} interleaved rounds; CPU without "
          "the database's\n")
    print("| store | documents | workers | ragd documents/s | FastAPI documents/s | ragd / it | ragd CPU ms | FastAPI CPU ms | "
          "ragd failed |")
    print("|---|---|---|---|---|---|---|---|---|")
    missed = []
    for (store, documents, workers), (mine, theirs) in rows.items():
        value = ratio(mine, theirs)
        print(f"| {store} | {documents} | {workers} | {median(mine, 'rate'):.0f} | {median(theirs, 'rate'):.0f} | {value:.2f} | "
              f"{median(mine, 'cpu'):.1f} | {median(theirs, 'cpu'):.1f} | {max(r['failed'] for r in mine)} |")
        if value < GOAL_RATIO or any(row["failed"] for row in mine):
            missed.append(f"{store}, {documents}, {workers} workers: {value:.2f}")
    print(f"\ngoal: ragd / FastAPI >= {GOAL_RATIO}, and no document fails: {'FAIL' if missed else 'PASS'}")
    for what in missed:
        print(f"FAIL: {what}")
    return missed


def measure(works, stores, cluster, rounds):
    """{(store, documents, workers): (runs of ragd, runs of the peer)}"""
    rows = {}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for store in stores:
            for work in works:
                for workers in WORKERS:
                    pair = rows.setdefault((store, work.name, workers), ([], []))
                    runs = [(0, run_ragd), (1, run_peer)]
                    for i, run in runs[::-1] if number % 2 else runs:
                        pair[i].append(run(work, cluster.new_database() if cluster and store == "postgresql" else None, workers))
    return rows


def main():
    args = parse_args()
    root, stores = pathlib.Path(args.data).resolve(), args.stores.split(",")
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="ragd-bench-"))
    cluster = None
    try:
        say("making documents")
        works = [Texts(root, args.texts), Files(root, tmp / "files", args.files)]
        if "postgresql" in stores:
            cluster = peers.postgres()
            cluster.create()
        rows = measure(works, stores, cluster, args.rounds)
        if args.json:
            named = [{"store": s, "documents": d, "workers": w, "ragd": m, "fastapi": t} for (s, d, w), (m, t) in rows.items()]
            pathlib.Path(args.json).write_text(json.dumps(named, indent=1))
        return bool(table(rows, args.rounds))
    finally:
        if cluster:
            cluster.close()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    os.environ["RAGD_BIN"] = os.path.abspath(parse_args().ragd)
    import httpx

    import corpus
    import peers
    from measure import cpu_seconds, median, ratio
    from ragdtest import Ragd, wait_for
    sys.exit(main())
