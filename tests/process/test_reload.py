"""Reload by HUP: a new generation takes over without a lost request, or nothing changes at all."""

import concurrent.futures
import os
import signal
import socket
import threading
import time

import pytest

from ragdtest import Ragd, alive, fetch, free_port, in_flight, wait_for


class Load:
    """Requests without a pause, on new connections, until the end of the block; every failure is kept."""

    def __init__(self, url):
        self.url = url
        self.done = threading.Event()
        self.failures = []
        self.count = 0

    def run(self):
        while not self.done.is_set():
            status = fetch(f"{self.url}/livez", 30)
            if status != 200:
                self.failures.append(status)
            self.count += 1

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        self.thread.join()


def hup(r):
    """Sends HUP and waits for the outcome: its line in the log."""
    since = len(r.log())
    r.send(signal.SIGHUP)

    def outcome():
        lines = [line for line in r.log()[since:].splitlines() if "reloaded in" in line or "reload failed" in line]
        return lines and lines[0]

    return wait_for(outcome, lambda: f"the outcome of a reload:\n{r.log()}")


def pids(r, role="http"):
    return [w["pid"] for w in r.status()["workers"] if w["role"] == role and w["state"] == "READY"]


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_new_workers_take_over_without_a_lost_request():
    with Ragd({"server": {"workers": 2}}) as r:
        before = pids(r) + pids(r, "ingest")
        with Load(r.url) as load:
            wait_for(lambda: load.count > 5, "some load")
            assert "generation 2" in hup(r)
            wait_for(lambda: not any(alive(p) for p in before), "the old workers to leave")
            seen = load.count
            wait_for(lambda: load.count > seen + 5, "load on the new workers")
        assert load.failures == []
        status = r.status()
        assert status["generation"] == 2
        assert {w["generation"] for w in status["workers"]} == {2}
        assert len(pids(r)) == 2 and not set(pids(r)) & set(before)


def test_reload_of_ingest_workers_alone():
    r = Ragd(args=["--role", "ingest"])
    try:
        r.spawn()
        r.wait_log("ready after")
        before = r.workers()
        assert "1 ingest workers" in hup(r)
        wait_for(lambda: pids(r, "ingest") and pids(r, "ingest") != before, "the new worker")
        assert r.stop() == 0
    finally:
        r.close()


def test_worker_counts_are_applied():
    with Ragd({"server": {"workers": 4}, "ingest": {"workers": 1}}) as r:
        for count, ingest in ((2, 2), (6, 1)):
            r.write_config({"server": {"workers": count}, "ingest": {"workers": ingest}})
            assert "reloaded" in hup(r)
            wait_for(lambda: len(r.workers()) == count + ingest, lambda: r.log())
            assert len(pids(r)) == count and len(pids(r, "ingest")) == ingest


def test_bad_configuration_changes_nothing():
    with Ragd() as r:
        before = r.workers()
        good = r.file.read_text()
        with Load(r.url) as load:
            r.file.write_text(good.replace("workers: 1", "workers: several", 1))
            line = hup(r)
            assert "reload failed" in line and f"{r.file}:3:" in line
        assert load.failures == []
        assert r.workers() == before
        assert f"{r.file}:3:" in r.status()["reloads"]["last_error"]
        r.file.write_text(good)
        assert "reloaded" in hup(r)
        assert r.status()["reloads"] == {"ok": 1, "failed": 1, "last_error": ""}


def test_occupied_port_changes_nothing():
    with Ragd() as r, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        before, fds = r.workers(), descriptors(r.pid)
        taken = holder.getsockname()[1]
        r.write_config({"server": {"bind": [f"127.0.0.1:{r.port}", f"127.0.0.1:{free_port()}", f"127.0.0.1:{taken}"]}})
        with Load(r.url) as load:
            line = hup(r)
        assert f"pid {os.getpid()} (" in line and f"127.0.0.1:{taken}" in line
        assert load.failures == []
        assert r.workers() == before
        assert descriptors(r.pid) == fds


@pytest.mark.parametrize("fault", ["exit:3", "hang"])
def test_workers_that_cannot_boot_change_nothing(fault):
    """The fault acts only where debug.faults is on: that is what the reload changes."""
    config = {"server": {"workers": 2, "boot_timeout": "500ms"}, "debug": {"faults": False}}
    with Ragd(config, env={"RAGD_FAULT_BOOT": fault}) as r:
        before = r.workers()
        r.write_config({"debug": {"faults": True}})
        with Load(r.url) as load:
            line = hup(r)
        assert "reload failed" in line and "did not become ready" in line
        assert load.failures == []
        wait_for(lambda: r.workers() == before, lambda: f"{before} to be all workers, not {r.workers()}")
        assert r.status()["generation"] == 1
        r.write_config({"debug": {"faults": False}})
        assert "reloaded" in hup(r)


def test_a_slow_boot_is_not_felt():
    """Old workers stay until new ones are ready: no request waits for a boot of one second."""
    with Ragd({"server": {"workers": 2}, "debug": {"faults": False}}, env={"RAGD_FAULT_BOOT": "delay:1000"}) as r:
        r.write_config({"debug": {"faults": True}})
        since = len(r.log())
        r.send(signal.SIGHUP)
        worst = 0.0
        while "reloaded in" not in r.log()[since:]:
            begin = time.monotonic()
            assert fetch(f"{r.url}/livez") == 200
            worst = max(worst, time.monotonic() - begin)
        assert worst < 0.9


def test_moving_to_another_port():
    with Ragd() as r:
        old_url, new_port = r.url, free_port()
        r.write_config({"server": {"bind": [f"127.0.0.1:{new_port}"]}})
        assert "reloaded" in hup(r)
        r.port = new_port
        assert fetch(f"{r.url}/livez") == 200
        wait_for(lambda: fetch(f"{old_url}/livez", 5) == "ConnectionRefusedError", "the old port to be closed")


def test_a_move_that_overlaps_is_refused_with_the_remedy():
    with Ragd() as r:
        r.write_config({"server": {"bind": [f"0.0.0.0:{r.port}"]}})
        assert "restart instead" in hup(r)
        assert r.get("/livez").status_code == 200


def test_what_only_a_restart_can_change_is_refused_by_name():
    with Ragd() as r:
        r.write_config({"server": {"pidfile": str(r.dir / "ragd.pid")}})
        assert "server.pidfile" in hup(r)


def test_a_request_in_flight_survives_the_exchange():
    with Ragd() as r:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=1500")
            wait_for(lambda: in_flight(r) == 1, "the request in flight")
            assert "reloaded" in hup(r)
            assert slow.result() == 200


def test_many_hups_end_in_one_generation():
    with Ragd({"server": {"workers": 2}}) as r:
        with Load(r.url) as load:
            for _ in range(25):
                r.send(signal.SIGHUP)
            wait_for(lambda: r.status()["reloads"]["ok"] >= 1 and r.status()["phase"] == "IDLE", r.log)
            wait_for(lambda: len(r.workers()) == 3, "the old workers to leave")
        assert load.failures == []
        status = r.status()
        assert {w["generation"] for w in status["workers"]} == {status["generation"]}
        assert status["generation"] == 1 + status["reloads"]["ok"]


def test_reloads_leak_no_descriptors():
    with Ragd() as r:
        hup(r)
        wait_for(lambda: len(r.workers()) == 2, "the old workers to leave")
        fds = descriptors(r.pid)
        for _ in range(20):
            assert "reloaded" in hup(r)
        wait_for(lambda: len(r.workers()) == 2, "the old workers to leave")
        wait_for(lambda: descriptors(r.pid) == fds, lambda: f"{fds} descriptors, not {descriptors(r.pid)}")


def test_stop_during_a_reload():
    with Ragd({"debug": {"faults": False}}, env={"RAGD_FAULT_BOOT": "hang"}) as r:
        r.write_config({"debug": {"faults": True}})
        r.send(signal.SIGHUP)
        wait_for(lambda: r.status()["phase"] == "RELOADING", "the reload")
        assert r.stop(timeout=15) == 0
        assert "the reload is abandoned" in r.log()


def test_reload_command_returns_the_verdict():
    with Ragd() as r:
        good = r.cli("reload")
        assert (good.returncode, good.stdout) == (0, "reloaded: generation 2\n")
        r.write_config({"server": {"graceful_timeout": "soon"}})
        # The command itself needs a readable configuration, so it gets the path of the socket alone.
        bad = r.cli_bare("reload", "--set", f"server.control={r.control}")
        assert bad.returncode == 1
        assert "everything stays as it was" in bad.stderr and "graceful_timeout" in bad.stderr
