#!/usr/bin/python3
"""ragd beside its peers on the same work, in one interleaved run; README.md in this folder explains it.

usage: bench.py --ragd build/ragd [--rounds 5] [--seconds 2] [--connections 64] [--only abcd] [--documents 100000]
                [--json FILE]
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ragd", default="build/ragd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk or pgbench")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="of every server")
    parser.add_argument("--only", default="abcd", help="which workloads")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--json", help="write every run to this file")
    return parser.parse_args()


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args, tmp):
        self.args, self.tmp = args, tmp
        self.open = []  # to be closed, newest first
        self.runs = {}  # (work, name): one row a round
        self.other = {}  # single figures

    def start(self):
        args, tmp = self.args, self.tmp
        say("starting PostgreSQL and ragd")
        self.cluster = peers.postgres()
        self.open.append(self.cluster.close)
        self.cluster.create()
        self.database = "bench"
        self.cluster.execute(f"CREATE DATABASE {self.database}")
        dsn = self.cluster.url(self.database)
        self.ragd = peers.ragd(args.workers, dsn)
        self.open.append(self.ragd.close)
        self.ragd.start()
        say(f"loading {args.documents} documents through the import")
        self.load = peers.Load(self.ragd, self.cluster, self.database, tmp, args.documents)
        self.other["import, documents/s"] = args.documents / self.load.import_seconds
        for statement in sql.PEER_TABLES:
            self.cluster.execute(statement.format(collection=self.load.collection), self.database)
        say("starting the peers")
        self.floor, self.nginx = peers.floor(tmp, args.workers), peers.nginx(tmp, args.workers)
        self.fastapi = peers.fastapi(tmp, args.workers, dsn)
        self.open += [self.floor.close, self.nginx.close, self.fastapi.close]
        for name, server in (("ragd", self.ragd), ("fastapi", self.fastapi), ("nginx", self.nginx)):
            # Now, while their heaps are fresh: later the memory of ended requests would hide what a connection takes.
            self.other[f"{name} bytes per idle connection"] = self.idle_connection(server)
        for name, script in sql.pgbench_scripts(self.load).items():
            (tmp / name).write_text(script)

    def close(self):
        for close in reversed(self.open):
            close()

    # -- one run each

    def http(self, server, work, seconds=None):
        args = self.args
        script = {"a": None, "b": "targets.lua", "c": "targets.lua", "d": "create.lua"}[work]
        cpu = {"server": server.pid, "postgres": self.cluster.proc.pid}
        return Wrk(server.url + ("/health" if work == "a" else ""), args.connections, seconds or args.seconds,
                   script and str(HERE / script), {} if work == "a" else self.load.environ(work),
                   cpu if work != "a" else {"server": server.pid})

    def contenders(self, work):
        """(name, function that makes one run) for a workload."""
        servers = {"ragd": self.ragd, "fastapi": self.fastapi}
        if work == "a":
            servers.update({"nginx": self.nginx, "epoll floor": self.floor})
        runs = [(name, lambda s=s: self.http(s, work).result()) for name, s in servers.items()]
        clients = min(self.args.connections, 64)
        for name, script, n, each in sql.PGBENCH.get(work, []):
            runs.append((name, lambda f=script, n=n, each=each: pgbench(
                self.cluster, self.database, str(self.tmp / f), min(n, clients), self.args.seconds, each)))
        return runs

    # -- all runs

    def rounds(self):
        works = [w for w in "abcd" if w in self.args.only]
        for work in works:
            for server in (self.ragd, self.fastapi):
                self.http(server, work, 1).result()  # warm
        for number in range(self.args.rounds):
            say(f"round {number + 1} of {self.args.rounds}")
            for work in works:
                runs = self.contenders(work)
                shift = number % len(runs)
                for name, run in runs[shift:] + runs[:shift]:
                    if work == "d":
                        self.load.clean()
                    self.runs.setdefault((work, name), []).append(run())
        if "d" in works:
            self.load.clean()

    def idle_connection(self, server, count=1000):
        """Private bytes that one idle connection costs."""
        before = memory(server.pid)["Private"]
        request = b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n"
        held = []
        try:
            for _ in range(count):
                s = socket.create_connection(("127.0.0.1", server.port), 10)
                held.append(s)
                s.sendall(request)
                assert s.recv(65536).startswith(b"HTTP/1.1 200")
            return (memory(server.pid)["Private"] - before) / count
        finally:
            for s in held:
                s.close()

    def share(self):
        """The busier worker's share of the connections, in the middle of a run."""
        shares = []
        for _ in range(3):
            run = self.http(self.ragd, "b", 2)
            time.sleep(1)
            counts = connections_of(self.ragd.pid, self.ragd.port).values()
            shares.append(max(counts) / sum(counts))
            run.result()
        return statistics.median(shares)

    def lanes(self):
        """Lookups with two clients running a slow query beside them, in terms of lookups without."""
        ratios = []
        slow = sql.slow_query(self.ragd, self.cluster, self.database)
        for _ in range(self.args.rounds):
            without = self.http(self.ragd, "b").result()
            others = Wrk(slow.url, 2, self.args.seconds + 1)  # wrk, because its own processor time hardly counts
            beside = self.http(self.ragd, "b").result()
            assert not others.result()["errors"]
            ratios.append(beside["rate"] / without["rate"])
        self.other["slow query alone, ms"] = slow.milliseconds
        return statistics.median(ratios)

    def start_time(self):
        """From exec to the first answer, on SQLite, milliseconds."""
        times = []
        for _ in range(5):
            server = Ragd({"server": {"workers": self.args.workers}})
            try:
                began = time.monotonic()
                server.spawn()
                while True:
                    try:
                        with socket.create_connection(("127.0.0.1", server.port), 5) as s:
                            s.sendall(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                            if s.recv(4096).startswith(b"HTTP/1.1 200"):
                                break
                    except OSError:
                        time.sleep(0.0005)
                times.append((time.monotonic() - began) * 1e3)
            finally:
                server.close()
        return statistics.median(times)

    def memory_after_requests(self):
        """PSS of a server on the embedded default after 10,000 requests."""
        with Ragd({"server": {"workers": self.args.workers}}) as server:
            collection = server.post("/api/v1/collections", json={"name": "memory"}).json()["id"]
            for _ in range(10_000):
                assert server.get(f"/api/v1/collections/{collection}").status_code == 200
            return memory(server.pid)["Pss"] / 1e6

    def crowd(self, count=2000):
        """p99 of /health in milliseconds, and the server's memory, beside `count` idle connections and as many whose
        heads arrive byte by byte."""
        idle, slow = [], []
        end = threading.Event()

        def dribble():
            while not end.wait(0.5):
                for s in slow:
                    s.send(b"x")

        try:
            for _ in range(count):
                idle.append(socket.create_connection(("127.0.0.1", self.ragd.port), 10))
                slow.append(socket.create_connection(("127.0.0.1", self.ragd.port), 10))
                slow[-1].sendall(b"GET /health HTTP/1.1\r\nHost: bench\r\nX-Slow: ")
            thread = threading.Thread(target=dribble)
            thread.start()
            row = Wrk(self.ragd.url + "/health", 16, self.args.seconds, None, {}, {"server": self.ragd.pid}).result()
            used = memory(self.ragd.pid)["Pss"] / 1e6
            end.set()
            thread.join()
        finally:
            for s in idle + slow:
                s.close()
        self.other["/health p99 beside 4,000 idle and slow connections, ms"] = row["p99"]
        self.other["PSS with 4,000 idle and slow connections, MB"] = used

    def single_figures(self):
        say("memory, connections, lanes, start")
        for name, server in (("ragd", self.ragd), ("fastapi", self.fastapi), ("nginx", self.nginx)):
            used = memory(server.pid)
            self.other[f"{name} RSS, MB"], self.other[f"{name} PSS, MB"] = used["Rss"] / 1e6, used["Pss"] / 1e6
        if "b" in self.args.only:
            self.other["busier worker's share"] = self.share()
            self.other["lookups beside slow queries"] = self.lanes()
        self.crowd()
        self.other["start to first answer, ms"] = self.start_time()
        self.other["PSS after 10,000 requests, MB"] = self.memory_after_requests()


def main():
    args = parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, max(16384, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="ragd-bench-"))
    tmp.chmod(0o755)
    bench = Bench(args, tmp)
    began = time.monotonic()
    try:
        bench.start()
        bench.rounds()
        bench.single_figures()
        if args.json:
            rows = [{"work": w, "name": n, "runs": r} for (w, n), r in bench.runs.items()]
            pathlib.Path(args.json).write_text(json.dumps({"runs": rows, "figures": bench.other}, indent=1))
        missed = report(args, bench.runs, bench.other)
        say(f"took {time.monotonic() - began:.0f} s")
        return 1 if missed else 0
    finally:
        bench.close()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    os.environ["RAGD_BIN"] = os.path.abspath(parse_args().ragd)
    import peers
    import sql
    from measure import Wrk, connections_of, memory, pgbench
    from ragdtest import Ragd
    from report import report
    sys.exit(main())
