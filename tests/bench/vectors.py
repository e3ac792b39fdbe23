"""Vector search over 100,000 x 384, on the same vectors and in turns, so that all meet the same machine: first the engines in
the process, the embedded index beside Qdrant's (qdrant-edge-py); then servers over HTTP, ragd beside FastAPI over Qdrant's
engine, each with two workers. README.md in this folder explains it.

usage: vectors.py --ragd build/ragd --tool build/tests/bench/vectors [--rounds 3] [--seconds 3] [--vectors 100000] [--dim 384]
                  [--connections 16] [--json FILE]

Runs in build/venv-bench, which has the engine, FastAPI and numpy (deploy/install-pypi.sh bench). `exact` compares everything,
as ragd does; `hnsw` is its graph with default settings; `int8` is exact over quantised vectors with rescoring, the same method
as ragd's. Vectors lie in clusters, as embeddings do. recall: share of the true ten nearest that were found.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import qdrant_edge as edge

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
K, QUERIES, WORKERS, A_DOCUMENT = 10, 200, 2, 100  # hits; queries; of each server; chunks a document
GOAL_AROUND, GOAL_RATE = 2.0, 1.5
TEXT = "Retention of board papers follows the policy of the group: reports are kept for ten years, drafts for two. " * 3


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragd", default="build/ragd")
    parser.add_argument("--tool", default="build/tests/bench/vectors")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--connections", type=int, default=16, help="for the throughput over HTTP")
    parser.add_argument("--json", help="write every run to this file")
    return parser.parse_args()


def clustered(n, dim, rng, centers):
    v = centers[rng.integers(len(centers), size=n)] + 0.7 * rng.standard_normal((n, dim), dtype=numpy.float32)
    v /= numpy.linalg.norm(v, axis=1, keepdims=True)
    return numpy.round(v, 6).astype(numpy.float32)  # as JSON carries them


def chunk(i):
    return {"title": f"Part {i // A_DOCUMENT}", "text": f"Paragraph {i}. {TEXT}"}


class Ragd:
    name = "ragd embedded"

    def __init__(self, tool, tmp, data, queries):
        self.tool, self.dir, self.dim = tool, str(tmp / "ragd"), data.shape[1]
        data.tofile(tmp / "data")
        queries.tofile(tmp / "queries")
        self.queries, self.asked = str(tmp / "queries"), len(queries)
        self.fill_seconds = json.loads(self.call("fill", str(tmp / "data"), len(data)))["seconds"]

    def argv(self, verb, file, n, *more):
        return [self.tool, verb, self.dir, file, str(n), str(self.dim), *map(str, more)]

    def call(self, *args):
        return subprocess.run(self.argv(*args), check=True, capture_output=True, text=True).stdout

    def run(self, workers, seconds):
        argv = self.argv("search", self.queries, self.asked, seconds)
        running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(workers)]
        return [json.loads(p.communicate()[0]) for p in running]


def edge_worker(path, queries, exact, rescore, seconds, gate, out):
    shard = edge.EdgeShard.load(path)
    quantization = edge.QuantizationSearchParams(rescore=True, oversampling=4.0) if rescore else None
    params = edge.SearchParams(exact=exact, quantization=quantization)
    requests = [edge.QueryRequest(limit=K, query=edge.Query.Nearest(q.tolist()), params=params) for q in queries]
    hits = [[p.id for p in shard.query(r)] for r in requests]
    gate.wait()
    took, began, cpu = [], time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        shard.query(requests[len(took) % len(requests)])
        took.append((time.perf_counter() - start) * 1000)
    every, cpu = time.perf_counter() - began, time.process_time() - cpu
    took.sort()
    out.put({"hits": hits, "rate": len(took) / every, "p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100],
             "cpu": cpu * 1000 / len(took)})  # fmt: skip


class Edge:
    """A directory for each worker: a shard belongs to one process. One search thread each, as a worker has."""

    def __init__(self, name, tmp, data, queries, exact, int8):
        self.name, self.queries, self.exact, self.int8 = name, queries, exact, int8
        self.paths = [str(tmp / f"{name}.{i}") for i in range(WORKERS)]
        quantization = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99) if int8 else None
        hnsw = edge.HnswIndexConfig(m=0 if exact else 16, ef_construct=100, full_scan_threshold=10000)
        began = time.perf_counter()
        vectors = edge.EdgeVectorParams(size=data.shape[1], distance=edge.Distance.Dot)
        shard = edge.EdgeShard.create(self.paths[0], edge.EdgeConfig(
            vectors=vectors, hnsw_config=hnsw, quantization_config=quantization, max_search_threads=1))
        for i in range(0, len(data), 1000):
            points = [edge.Point(i + k, v.tolist(), chunk(i + k)) for k, v in enumerate(data[i:i + 1000])]
            shard.update(edge.UpdateOperation.upsert_points(points))
        while shard.optimize():
            pass
        shard.flush()
        shard.close()
        self.fill_seconds = time.perf_counter() - began
        for path in self.paths[1:]:
            shutil.copytree(self.paths[0], path)

    def run(self, workers, seconds):
        context = multiprocessing.get_context("fork")
        gate, out = context.Barrier(workers), context.Queue()
        running = [context.Process(target=edge_worker, args=(
            path, self.queries, self.exact and not self.int8, self.int8, seconds, gate, out))
                   for path in self.paths[:workers]]
        for p in running:
            p.start()
        rows = [out.get() for _ in running]
        for p in running:
            p.join()
        return rows


def measure_engines(servers, rounds, seconds):
    """{name: {"one": rows, "two": rates}}; the order rotates."""
    found = {s.name: {"one": [], "two": []} for s in servers}
    for i in range(rounds):
        for s in servers[i % len(servers):] + servers[:i % len(servers)]:
            found[s.name]["one"] += s.run(1, seconds)
            found[s.name]["two"].append(sum(row["rate"] for row in s.run(WORKERS, seconds)))
    return found


def report_engines(engines, found, truth, args):
    print(f"\nin the process: {args.vectors:,} x {args.dim}, {K} hits; medians of {args.rounds} rounds of {args.seconds} s")
    print(f"{'':20} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8} {'two workers/s':>14} {'recall':>7} {'fill s':>7}")
    for s in engines:
        one, two = found[s.name]["one"], found[s.name]["two"]
        middle = {key: statistics.median(row[key] for row in one) for key in ("p50", "p99", "cpu")}
        recall = statistics.mean(len(set(h) & t) / K for h, t in zip(one[0]["hits"], truth))
        print(f"{s.name:20} {middle['p50']:8.2f} {middle['p99']:8.2f} {middle['cpu']:8.2f} {statistics.median(two):14.0f} "
              f"{recall:7.3f} {s.fill_seconds:7.1f}")  # fmt: skip


# ---- over HTTP


def start_embedder(tmp, queries):
    queries.tofile(tmp / "queries")
    port = free_port()
    return peers.Server([sys.executable, str(HERE / "table_embedder.py"), str(port), str(tmp / "queries"),
                         str(queries.shape[1])], port, tmp / "embedder.log")  # fmt: skip


def documents(data):
    for at in range(0, len(data), A_DOCUMENT):
        yield {"title": chunk(at)["title"], "chunks": [
            {"text": chunk(at + k)["text"], "vector": [round(x, 6) for x in v.tolist()]}
            for k, v in enumerate(data[at:at + A_DOCUMENT])]}  # fmt: skip


def serve_edge(tmp, shards, embedder, bodies):
    """The shards that the engine was measured with, now each in a worker of FastAPI."""
    server = peers.gunicorn(tmp, "vectors_app", WORKERS, {
        "BENCH_SHARDS": ":".join(shards.paths), "BENCH_EMBEDDER": embedder + "/v1", "BENCH_INT8": str(int(shards.int8)),
        "BENCH_EXACT": str(int(shards.exact and not shards.int8))})  # fmt: skip
    return Engine(f"{shards.name} in FastAPI", server, "/search", bodies, shards.fill_seconds)


def serve(tmp, data, queries, shards, servers):
    """The engines over HTTP; what is started goes into `servers`."""
    servers.append(start_embedder(tmp, queries))
    embedder = servers[0].url
    asked = [f"query {i}" for i in range(QUERIES)]
    bodies = write_bodies(tmp / "bodies", asked)
    say("filling ragd")
    config = {"embedding": {"url": embedder + "/v1", "model": "table", "dimensions": data.shape[1]}}
    engines = [serve_ragd(tmp / "served", config, documents(data), len(data), asked, "vector", 10)]
    servers.append(engines[0].server)
    for s in shards:
        engines.append(serve_edge(tmp, s, embedder, bodies))
        servers.append(engines[-1].server)
    return engines


def report_servers(engines, found, same, alone, args):
    """`alone`: p50 of ragd's engine in the process."""
    print(f"\nover HTTP: {args.vectors:,} x {args.dim}, {K} hits with their text, {WORKERS} workers a server, an embedder asked "
          f"for every query; medians of {args.rounds} interleaved rounds of {args.seconds} s\n")
    errors = table(engines, found, same, args)
    peer = next(e.name for e in engines if "int8" in e.name)  # works as ragd does; a graph finds less, with less work
    goals = [("p50 of ragd over HTTP / of its engine", median(found["ragd"]["one"], "p50") / alone, "<=", GOAL_AROUND),
             (f"ragd / {peer}", ratio(found["ragd"]["many"], found[peer]["many"]), ">=", GOAL_RATE)]
    return verdict(goals, errors)


def main():
    args = parse_args()
    rng = numpy.random.default_rng(1)
    centers = rng.standard_normal((1000, args.dim), dtype=numpy.float32)
    data, queries = clustered(args.vectors, args.dim, rng, centers), clustered(QUERIES, args.dim, rng, centers)
    truth = [set(numpy.argsort(-(data @ q), kind="stable")[:K].tolist()) for q in queries]
    servers = []
    with tempfile.TemporaryDirectory(prefix="ragd-bench-") as tmp:
        tmp = pathlib.Path(tmp)
        say("filling the engines")
        engines = [Ragd(args.tool, tmp, data, queries)]
        for name, exact, int8 in (("exact", True, False), ("int8", True, True), ("hnsw", False, False)):
            engines.append(Edge(f"qdrant-edge {name}", tmp, data, queries, exact, int8))
        alone = measure_engines(engines, args.rounds, args.seconds)
        report_engines(engines, alone, truth, args)
        try:
            served = serve(tmp, data, queries, engines[2:], servers)
            same = agreement(served, 50)
            found = measure(served, args)
            missed = report_servers(served, found, same, statistics.median(r["p50"] for r in alone["ragd embedded"]["one"]),
                                    args)  # fmt: skip
        finally:
            for server in servers:
                server.close()
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps({"engines": alone, "servers": found, "same hits": same}, indent=1))
    return bool(missed)


if __name__ == "__main__":
    os.environ["RAGD_BIN"] = os.path.abspath(parse_args().ragd)
    import peers
    from measure import median, ratio
    from ragdtest import free_port
    from searchers import Engine, agreement, measure, say, serve_ragd, table, verdict, write_bodies
    sys.exit(main())
