"""Vector search over 100,000 x 384: the embedded index beside Qdrant's engine (qdrant-edge-py), on the same vectors and
in turns, so that both meet the same machine.

usage: vectors.py --tool build/tests/bench/vectors [--rounds 3] [--seconds 3] [--vectors 100000] [--dim 384]

Runs in build/venv, which has the engine and numpy (deploy/install-pypi.sh). `exact` compares everything, as ragd does;
`hnsw` is its graph with default settings; `int8` is exact over quantised vectors with rescoring, the same method as
ragd's. Vectors lie in clusters, as embeddings do. recall: share of the true ten nearest that were found.
"""
import argparse
import json
import multiprocessing
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import qdrant_edge as edge

K, QUERIES, WORKERS = 10, 200, 2


def clustered(n, dim, rng, centers):
    v = centers[rng.integers(len(centers), size=n)] + 0.7 * rng.standard_normal((n, dim), dtype=numpy.float32)
    return (v / numpy.linalg.norm(v, axis=1, keepdims=True)).astype(numpy.float32)


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
            points = [edge.Point(id=i + k, vector=v.tolist()) for k, v in enumerate(data[i:i + 1000])]
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


def measure(servers, rounds, seconds):
    """{name: {"one": rows, "two": rates}}; the order rotates."""
    found = {s.name: {"one": [], "two": []} for s in servers}
    for i in range(rounds):
        for s in servers[i % len(servers):] + servers[:i % len(servers)]:
            found[s.name]["one"] += s.run(1, seconds)
            found[s.name]["two"].append(sum(row["rate"] for row in s.run(WORKERS, seconds)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    args = parser.parse_args()
    rng = numpy.random.default_rng(1)
    centers = rng.standard_normal((1000, args.dim), dtype=numpy.float32)
    data, queries = clustered(args.vectors, args.dim, rng, centers), clustered(QUERIES, args.dim, rng, centers)
    truth = [set(numpy.argsort(-(data @ q), kind="stable")[:K].tolist()) for q in queries]
    with tempfile.TemporaryDirectory(prefix="ragd-bench-") as tmp:
        tmp = pathlib.Path(tmp)
        print("filling", file=sys.stderr)
        servers = [Ragd(args.tool, tmp, data, queries)]
        for name, exact, int8 in (("exact", True, False), ("int8", True, True), ("hnsw", False, False)):
            servers.append(Edge(f"qdrant-edge {name}", tmp, data, queries, exact, int8))
        found = measure(servers, args.rounds, args.seconds)
    print(f"\nvector search, {args.vectors:,} x {args.dim}, {K} hits; median of {args.rounds} rounds")
    print(f"{'':20} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8} {'two workers/s':>14} {'recall':>7} {'fill s':>7}")
    for s in servers:
        one, two = found[s.name]["one"], found[s.name]["two"]
        middle = {key: statistics.median(row[key] for row in one) for key in ("p50", "p99", "cpu")}
        recall = statistics.mean(len(set(h) & t) / K for h, t in zip(one[0]["hits"], truth))
        print(f"{s.name:20} {middle['p50']:8.2f} {middle['p99']:8.2f} {middle['cpu']:8.2f} {statistics.median(two):14.0f} "
              f"{recall:7.3f} {s.fill_seconds:7.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
