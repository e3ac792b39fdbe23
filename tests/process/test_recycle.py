"""Recycling: a worker that asks for it is replaced without a request noticing, and never before its replacement serves."""

import json
import os
import signal
import socket
import threading
import time

import openai_server
from load import Load
from ragdtest import Ragd, alive, wait_for
from upgrades import Server, upgrade
from watch import ready


class Watch:
    """Reads the status over and over until the end of the block: `ready` the fewest http workers READY at once, `most`
    the most http processes."""

    def __init__(self, r):
        self.r = r
        self.done = threading.Event()
        self.ready, self.most, self.samples, self.error = 10**6, 0, 0, None

    def run(self):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(30)
                s.connect(str(self.r.control))
                lines = s.makefile("rb")
                while not self.done.wait(0.005):
                    s.sendall(b'{"cmd":"status"}\n')
                    workers = [w for w in json.loads(lines.readline())["workers"] if w["role"] == "http"]
                    self.ready = min(self.ready, sum(w["state"] == "READY" for w in workers))
                    self.most = max(self.most, sum(w["pid"] != 0 for w in workers))
                    self.samples += 1
        except Exception as e:  # told in the test's own thread
            self.error = e

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        self.thread.join()
        assert self.error is None, self.error


def recycled(r, reason, role="http"):
    line = f'ragd_worker_recycled_total{{role="{role}",reason="{reason}"}} '
    return next(int(x[len(line):]) for x in r.get("/metrics").text.splitlines() if x.startswith(line))  # fmt: skip


def asks(r, requests=60):
    for _ in range(requests):
        r.get("/livez")
    return r.wait_log("asks to be replaced")


def test_old_workers_are_replaced_one_after_the_other():
    with Ragd({"server": {"max_lifetime": "2s"}}) as r:
        first = r.workers()
        wait_for(lambda: recycled(r, "lifetime") and recycled(r, "lifetime", "ingest"), r.log)
        wait_for(lambda: not any(alive(p) for p in first), "the first workers to leave")


def test_those_that_always_ask_are_replaced_by_age():
    """By the order of a table, the first two would be replaced over and over, and the last never."""
    config = {"server": {"workers": 3, "max_requests": 1, "watchdog_timeout": "1s", "graceful_timeout": "4s"}}
    with Ragd(config, env={"RAGD_FAULT_BOOT": "delay:500"}) as r:
        first = wait_for(lambda: len(ready(r)) == 3 and ready(r), "all workers")
        with Load(r, rate=100):  # idle connections: a drain takes longer than the next request to be replaced
            wait_for(lambda: recycled(r, "requests") >= 6, r.log, 120)
            assert not set(ready(r)) & set(first), r.log()


def test_a_worker_that_grows_is_replaced():
    """The limit is set while it runs: how large a worker is depends on the build."""
    with Ragd({"server": {"min_uptime": "0s"}}) as r:
        (first,) = ready(r)
        size = wait_for(lambda: max(w["anon_kb"] for w in r.status()["workers"]), "the workers to know their size")
        r.write_config({"server": {"max_rss": f"{size // 1024 + 64}M"}})
        assert r.cli("reload").returncode == 0
        assert ready(r) == [first] and recycled(r, "rss") == 0
        assert r.get("/debug/leak?mb=96").status_code == 200
        wait_for(lambda: recycled(r, "rss") == 1, r.log)
        r.hang_up()
        wait_for(lambda: not alive(first), "the large one to leave")
        (second,) = ready(r)
        assert second != first


def test_mapped_files_do_not_make_a_worker_large():
    """Those of the vector index are in the RSS of every worker that searches, and soon in that of its replacement."""
    chunks, dimension = 384, 16384
    with (
        openai_server.running(dimension=dimension) as model,
        Ragd({"embedding": {"model": "test", "url": model.url}, "server": {"min_uptime": "0s"}}) as r,
    ):
        c = r.post("/api/v1/collections", json={"name": "c"}).json()["id"]
        vector = [int(100 * x) for x in openai_server.embed("kettle", dimension)]
        for n in range(chunks // 16):
            body = {"chunks": [{"text": f"chunk {n} {i}", "vector": vector} for i in range(16)]}
            assert r.post(f"/api/v1/collections/{c}/documents", json=body).status_code == 202
        wait_for(lambda: r.get(f"/api/v1/collections/{c}").json()["counts"]["chunks"] == chunks, r.log, every=0.1)
        (before,) = ready(r)

        def worker():
            return next(w for w in r.status()["workers"] if w["role"] == "http")

        def search():
            body = {"query": "kettle", "mode": "vector", "collections": [c], "top_k": 100}
            return r.post("/api/v1/search", json=body).json()["hits"]

        mapped_kb = chunks * dimension // 1024  # a byte for each number is looked at
        wait_for(lambda: search() and worker()["rss_kb"] - worker()["anon_kb"] > mapped_kb, worker)
        seen = {}  # anon_kb by what tells one measuring from the next; the memory of the uploads goes back bit by bit

        def measured(times):
            assert r.get("/livez").status_code == 200
            w = worker()
            seen[w["cpu_ms"]] = w["anon_kb"]
            return len(seen) >= times and max(list(seen.values())[-times:]) - min(list(seen.values())[-times:]) < 1024 and w

        w = wait_for(lambda: measured(3), lambda: f"the worker to be as large as it stays: {seen}")
        limit = (w["anon_kb"] + w["rss_kb"]) // 2
        r.write_config({"server": {"max_rss": f"{limit}K"}})
        assert r.cli("reload").returncode == 0
        seen.clear()
        wait_for(lambda: measured(4), "it to have asked itself whether it is too large")
        now = worker()
        assert now["recycle"] == "none" and now["rss_kb"] > limit > now["anon_kb"] and ready(r) == [before], now


def test_a_worker_that_is_too_large_from_the_start_is_not_replaced_without_end():
    with Ragd({"server": {"max_rss": "1M", "min_uptime": "1h", "watchdog_timeout": "4s"}}) as r:
        before = ready(r) + ready(r, "ingest")
        wait_for(lambda: all(w["anon_kb"] > 1024 for w in r.status()["workers"]), "the workers to have measured themselves")
        time.sleep(2)  # several beats, after each of which they might ask
        assert ready(r) + ready(r, "ingest") == before


def test_the_old_worker_stays_while_its_replacement_cannot_boot():
    r = Ragd({"server": {"max_requests": 20}})
    fault = r.dir / "fault"
    r.env["RAGD_FAULT_BOOT"] = f"@{fault}"
    with r:
        before = ready(r)
        r.write_config({"server": {"boot_timeout": "300ms"}})  # only of those that hang: who is there stays
        assert r.cli("reload").returncode == 0 and ready(r) == before
        fault.write_text("hang")
        for _ in range(30):
            assert r.get("/livez").status_code == 200
        for _ in range(2):
            since = len(r.log())
            r.wait_log("is not ready after", since=since)
            assert ready(r) == before and r.get("/livez").status_code == 200
        fault.unlink()
        r.write_config({"server": {"boot_timeout": "5s"}})  # so long one that hangs already has, too
        assert r.cli("reload").returncode == 0
        wait_for(lambda: ready(r) and ready(r) != before and not alive(before[0]), lambda: r.log())


def test_a_worker_that_dies_while_it_is_being_replaced():
    with Ragd({"server": {"max_requests": 20}}, env={"RAGD_FAULT_BOOT": "delay:1000"}) as r:
        victim = ready(r)[0]
        asks(r, 30)
        os.kill(victim, signal.SIGKILL)
        assert "already replaced" in r.wait_log(f"pid {victim}) died")
        wait_for(lambda: len(ready(r)) == 1, "the replacement")
        assert len(r.workers()) == 2


def test_a_reload_replaces_also_those_that_asked():
    with Ragd({"server": {"workers": 2, "max_requests": 20}}, env={"RAGD_FAULT_BOOT": "delay:500"}) as r:
        before = r.workers()
        asks(r)
        r.send(signal.SIGHUP)
        r.wait_log("reloaded in")
        wait_for(lambda: not any(alive(p) for p in before), "the old workers to leave")
        wait_for(lambda: len(ready(r)) == 2 and len(r.workers()) == 3, lambda: r.log())


def test_fewer_workers_while_one_is_being_replaced():
    with Ragd({"server": {"workers": 2, "max_requests": 20}}, env={"RAGD_FAULT_BOOT": "delay:1000"}) as r:
        asks(r)
        r.send(signal.SIGTTOU)
        r.wait_log("1 http workers from now on")
        wait_for(lambda: len(r.workers()) == 2 and len(ready(r)) == 1, lambda: r.log())
        assert r.get("/livez").status_code == 200
        assert "died" not in r.log()


def test_a_stop_while_one_is_being_replaced():
    with Ragd({"server": {"max_requests": 20}}, env={"RAGD_FAULT_BOOT": "delay:1000"}) as r:
        asks(r)
        assert r.stop() == 0


def test_parking_while_one_is_being_replaced():
    with Ragd({"server": {"max_requests": 20}}, env={"RAGD_FAULT_BOOT": "delay:500"}) as r:
        asks(r)
        r.send(signal.SIGWINCH)
        wait_for(lambda: not r.workers(), "the workers to leave")
        r.send(signal.SIGTTIN)
        wait_for(lambda: len(ready(r)) == 1 and len(r.workers()) == 2, lambda: r.log())


def test_a_rollback_window_does_not_keep_workers_from_it():
    with Server({"server": {"rollback_window": "60s", "max_requests": 20}}) as r:
        upgrade(r)
        old = ready(r)
        for _ in range(30):
            assert r.get("/livez").status_code == 200
        wait_for(lambda: len(ready(r)) == 1 and ready(r) != old, "another worker")
        assert r.status()["phase"] == "UPGRADING"
