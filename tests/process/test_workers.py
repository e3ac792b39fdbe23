"""Keeping workers alive: deaths, boots that fail, scaling, parking, orphans."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

from load import Load
from ragdtest import BIN, Ragd, alive, fetch, free_port, in_flight, report, wait_for
from watch import also_as_pid_1, hup, ready

NO_BOOT = 3


@also_as_pid_1
@pytest.mark.parametrize("role", ["http", "ingest"])
def test_a_killed_worker_is_replaced(Server, role):
    with Server() as r:
        victim = wait_for(lambda: ready(r, role), "the worker")[0]
        wait_for(lambda: in_flight(r) == 0, "the end of the probe")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: ready(r, role) not in ([], [victim]), "the replacement")
        line = r.wait_log(" died: ")
        assert f"({role}, pid " in line
        assert "signal 9 (KILL)" in line and "0 requests in flight" in line and "next fork in" in line
        worker = next(w for w in r.status()["workers"] if w["role"] == role)
        assert worker["restarts"] == 1
        assert r.get("/livez").status_code == 200


def test_whoever_starts_it_may_ignore_its_children():
    """That is inherited, and then the kernel tells nobody of their deaths."""
    r = Ragd()
    r.prefix = ["env", "--ignore-signal=CHLD"]
    with r:
        for role in ("http", "ingest"):
            victim = ready(r, role)[0]
            os.kill(victim, signal.SIGKILL)
            r.wait_log(f"pid {victim}) died: signal 9 (KILL)")
            wait_for(lambda: ready(r, role) not in ([], [victim]), "the replacement")
        assert r.stop() == 0
        ingest = [*r.prefix, BIN, "ingest", "-c", str(r.file), "--json", "--jobs", "2", __file__]
        done = subprocess.run(ingest, capture_output=True, text=True, env=r.environ())
        assert done.returncode == 0 and json.loads(done.stdout)["ready"] == 1, done


def test_requests_that_died_with_a_worker_are_named():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=30000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        os.kill(ready(r)[0], signal.SIGKILL)
        assert slow.result() != 200
        assert "1 requests in flight" in r.wait_log("died")
        assert re.search(r"in flight for \d+\.\d s: GET /debug/sleep", r.wait_log("in flight for"))


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_worker_that_crashes_while_it_drains_is_told_like_any_other(number):
    """It was asked to end, but not like this."""
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=30000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        victim = ready(r)[0]
        assert "reloaded in" in hup(r)
        wait_for(lambda: len(r.workers()) == 3, "the others to leave")
        workers = set(r.workers()) - {victim}
        os.kill(victim, number)
        assert slow.result() != 200
        line = r.wait_log(f"pid {victim}) died")
        assert f"signal {number}" in line and "1 requests in flight; it was leaving" in line
        assert re.search(r"in flight for \d+\.\d s: GET /debug/sleep", r.wait_log("in flight for"))
        assert 'ragd_worker_deaths_total{role="http",reason="signal"} 1' in r.get("/metrics").text
        wait_for(lambda: set(r.workers()) == workers, "nobody in its place")


def test_a_healthy_worker_is_replaced_at_once():
    with Ragd({"server": {"min_uptime": "1ms"}}) as r:
        slowest = 0.0
        for _ in range(5):  # five deaths in a row, and no delay grows
            victim = ready(r)[0]
            begin = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            assert "next fork in 0 ms" in r.wait_log(f"pid {victim}) died")
            wait_for(lambda: ready(r) not in ([], [victim]), "the replacement")
            slowest = max(slowest, time.monotonic() - begin)
        report("from KILL of a healthy worker to its replacement READY, ms", round(1000 * slowest))


def test_the_siblings_serve_while_a_worker_is_replaced():
    """Only what the killed one held is lost, and each client learns of it at once."""
    with Ragd({"server": {"workers": 4, "min_uptime": "1ms"}}) as r, Load(r) as load:
        for _ in range(5):
            load.more(20)
            victim = ready(r)[0]
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(ready(r)) == 4 and victim not in ready(r), "the replacement")
        load.stop()
        assert load.timeout == load.refused == load.other == 0, load
        assert load.errors <= 5 * 32, load  # at most every connection there is
        report("workers killed under load, five times: failed requests, and such on kept connections",
               f"{load.errors}, {load.stale}")  # fmt: skip


def test_young_deaths_are_delayed_more_and_more():
    with Ragd({"server": {"min_uptime": "1h"}}) as r:
        delays = []
        for _ in range(4):
            victim = ready(r)[0]
            os.kill(victim, signal.SIGKILL)
            delays.append(int(re.search(r"next fork in (\d+) ms", r.wait_log(f"pid {victim}) died")).group(1)))
            wait_for(lambda: ready(r) not in ([], [victim]), "the replacement")
        for delay, nominal in zip(delays, [100, 200, 400, 800]):
            assert nominal * 0.79 <= delay <= nominal * 1.21, delays
        assert r.proc.poll() is None


def test_a_crash_in_a_handler_is_survived():
    with Ragd({"server": {"workers": 2}}) as r:
        assert fetch(f"{r.url}/debug/crash?signal=11") != 200
        assert "signal 11 (SEGV)" in r.wait_log("died")
        assert fetch(f"{r.url}/livez") == 200  # by the sibling
        wait_for(lambda: len(ready(r)) == 2, "the replacement")


@also_as_pid_1
def test_workers_that_never_boot_end_the_server(Server):
    r = Server({"server": {"workers": 2}}, env={"RAGD_FAULT_BOOT": "exit:3"})
    try:
        r.spawn()
        assert r.wait_exit() == NO_BOOT
        log = r.log()
        assert 9 <= len(re.findall(r"died: exit 3", log)) <= 12  # three slots, three times each
        assert "no worker has ever become ready" in log
    finally:
        r.close()


@pytest.mark.parametrize("code", [0, 2, 3, 78])
def test_no_exit_code_makes_a_worker_stay_away(code):
    r = Ragd()
    fault = r.dir / "fault"
    r.env = {"RAGD_FAULT_BOOT": f"@{fault}"}
    with r:
        fault.write_text(f"exit:{code}")
        os.kill(ready(r)[0], signal.SIGKILL)
        wait_for(lambda: r.log().count(f"died: exit {code},") >= 3, r.log)
        fault.unlink()
        wait_for(lambda: ready(r), "a worker that boots")
        assert r.get("/livez").status_code == 200


def test_once_ready_crashes_never_end_the_server():
    with Ragd({"ingest": {"workers": 1}}) as r:
        killed = []
        for _ in range(4):
            wait_for(lambda: set(ready(r)) - set(killed), "a worker")
            killed = r.workers()
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not any(alive(pid) for pid in killed), "them to be gone")
        wait_for(lambda: ready(r) and ready(r, "ingest"), "both workers")
        assert "degraded: no " in r.log()
        wait_for(lambda: "not degraded any more" in r.log().rpartition("degraded: no ")[2], r.log)


def memory_cgroup():
    """A path where memory cgroups can be made here, and the name of the limit; or None."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        probe = pathlib.Path(root, f"ragd-test-{os.getpid()}")
        try:
            probe.mkdir()
            found = (probe / limit).exists()
            probe.rmdir()
            if found:
                return probe, limit
        except OSError:
            continue
    return None


@pytest.mark.skipif(not memory_cgroup(), reason="no right to make a memory cgroup")
def test_death_for_want_of_memory_is_named():
    path, limit = memory_cgroup()
    path.mkdir()
    try:
        (path / limit).write_text(str(300 << 20))
        r = Ragd()
        r.prefix = ["sh", "-c", f'echo $$ >{path}/cgroup.procs; exec "$@"', "sh"]
        with r:
            victim = ready(r)[0]
            assert fetch(f"{r.url}/debug/leak?mb=600") != 200
            line = r.wait_log("OOM-killed by cgroup limit 300M, RSS ")
            assert f"pid {victim})" in line and line.endswith(" 1 requests")
            assert "signal 9 (KILL)" in r.wait_log(f"pid {victim}) died")
            wait_for(lambda: ready(r) not in ([], [victim]), "the replacement")
    finally:
        wait_for(lambda: not (path / "cgroup.procs").read_text(), "the cgroup to be empty")
        path.rmdir()


# -- what `ps` shows


def title(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def test_titles_say_who_does_what():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        http, ingest = ready(r)[0], wait_for(lambda: ready(r, "ingest"), "the ingest worker")[0]
        assert title(r.pid) == f"ragd: master [{r.file}], generation 1"
        wait_for(lambda: re.fullmatch(r"ragd: http \d+, generation 1, READY, 0 in flight", title(http)), lambda: title(http))
        wait_for(lambda: re.fullmatch(r"ragd: ingest \d+, generation 1, READY, 0 jobs", title(ingest)), lambda: title(ingest))
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=8000")
        wait_for(lambda: title(http).endswith("READY, 1 in flight"), lambda: title(http))
        assert r.cli("reload").returncode == 0
        wait_for(lambda: title(http).endswith("generation 1, DRAINING, 1 in flight"), lambda: title(http))
        wait_for(lambda: title(r.pid) == f"ragd: master [{r.file}], generation 2", lambda: title(r.pid))
        r.send(signal.SIGWINCH)
        wait_for(lambda: title(r.pid).endswith(", parked"), lambda: title(r.pid))
        assert slow.result() == 200


def test_the_environment_can_be_read_under_the_title():
    r = Ragd({"database": {"url": None}})
    r.prefix = ["env", "-i", f"DATABASE_URL=sqlite:{r.dir}/other.db"]
    with r:
        assert all(title(pid).startswith("ragd: ") for pid in [r.pid, *r.workers()])
        assert b"DATABASE_URL" not in pathlib.Path(f"/proc/{r.pid}/environ").read_bytes()
        assert "reloaded in" in hup(r)
        assert f"database {r.dir}/other.db" in r.log() and not (r.dir / "data").exists()


# -- scaling


def test_ttin_and_ttou_change_the_number_until_the_next_reload():
    with Ragd({"server": {"workers": 1, "max_workers": 3}}) as r:
        r.send(signal.SIGTTOU)
        r.wait_log("stays at 1")
        for count in (2, 3):
            r.send(signal.SIGTTIN)
            wait_for(lambda: len(ready(r)) == count, f"{count} workers")
        r.send(signal.SIGTTIN)
        r.wait_log("stays at 3")
        youngest = max(ready(r))
        r.send(signal.SIGTTOU)
        wait_for(lambda: len(ready(r)) == 2 and not alive(youngest), "the youngest to leave")
        r.send(signal.SIGHUP)
        r.wait_log("reloaded in")
        r.wait_log("are those of the configuration again")
        wait_for(lambda: len(ready(r)) == 1, "the configured number")


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGHUP])
def test_a_parked_server_keeps_its_sockets_and_its_queue(number):
    with Ragd({"server": {"workers": 2}}) as r, concurrent.futures.ThreadPoolExecutor(2) as pool:
        before = r.workers()
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=2000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        r.send(signal.SIGWINCH)
        r.wait_log("parked: all workers leave")
        wait_for(lambda: not r.workers(), lambda: f"the workers to leave:\n{r.log()}")
        assert slow.result() == 200 and not any(alive(p) for p in before)
        queued = pool.submit(fetch, f"{r.url}/livez")
        with pytest.raises(concurrent.futures.TimeoutError):
            queued.result(0.5)  # connected, and nobody answers
        r.send(number)
        assert queued.result() == 200
        wait_for(lambda: len(ready(r)) == 2 and len(ready(r, "ingest")) == 1, "the workers to come back")
        assert r.proc.poll() is None


def test_fewer_workers_are_those_that_serve():
    """The one that hangs in its boot is the elder."""
    r = Ragd({"server": {"boot_timeout": "1h"}})
    fault = r.dir / "fault"
    r.env = {"RAGD_FAULT_BOOT": f"@{fault}"}
    with r:
        wait_for(lambda: ready(r) and ready(r, "ingest"), "both workers")
        fault.write_text("hang")
        os.kill(ready(r)[0], signal.SIGKILL)
        r.wait_log("RAGD_FAULT_BOOT=hang")
        fault.unlink()
        assert r.cli("scale", "2").returncode == 0
        serving = wait_for(lambda: ready(r), "the younger one")
        assert r.cli("scale", "1").returncode == 0
        wait_for(lambda: len(r.workers()) == 2, "the elder to leave")
        assert ready(r) == serving and r.get("/livez").status_code == 200


def test_a_parked_server_stops():
    with Ragd() as r:
        r.send(signal.SIGWINCH)
        wait_for(lambda: not r.workers(), "the workers to leave")
        assert r.stop() == 0


def test_a_parked_server_still_answers_probes():
    admin = f"127.0.0.1:{free_port()}"
    with Ragd({"server": {"admin_bind": [admin]}}) as r:
        wait_for(lambda: fetch(f"http://{admin}/readyz") == 200, "the status process")
        r.send(signal.SIGWINCH)
        wait_for(lambda: len(r.workers()) == 1, "all workers to leave but the status process")
        assert fetch(f"http://{admin}/readyz") == 503 and fetch(f"http://{admin}/livez") == 200
        r.send(signal.SIGTTIN)
        wait_for(lambda: fetch(f"http://{admin}/readyz") == 200, "the workers to come back")


def test_a_terminal_that_changes_its_size_parks_nobody():
    master, slave = os.openpty()
    try:
        r = Ragd()
        r.stdin = slave
        with r:
            r.send(signal.SIGWINCH)
            r.wait_log("signal WINCH is ignored: stdin is a terminal")
            assert len(r.workers()) == 2
    finally:
        os.close(master)
        os.close(slave)


# -- signals that go astray


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU])
def test_workers_ignore_signals_meant_for_the_master(number):
    with Ragd() as r:
        workers = r.workers()
        for pid in workers:
            os.kill(pid, number)
        assert r.get("/livez").status_code == 200
        assert r.workers() == workers


def test_a_worker_that_is_told_to_leave_by_hand_is_replaced():
    with Ragd() as r:
        victim = ready(r)[0]
        os.kill(victim, signal.SIGTERM)
        wait_for(lambda: ready(r) not in ([], [victim]), "the replacement")
        assert "exit 0" in r.wait_log(f"pid {victim}) died")


# -- the end of the master


def can_bind(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
            return True
        except OSError:
            return False


def test_no_worker_outlives_the_master():
    with Ragd({"server": {"workers": 2}}) as r:
        workers = r.workers()
        r.send(signal.SIGKILL)
        r.wait_exit()
        wait_for(lambda: not any(alive(p) for p in workers), "the workers to leave")
        wait_for(lambda: can_bind(r.port), "the port")
        r.start()


def test_a_spinning_worker_does_not_outlive_the_master_for_long():
    """It has graceful_timeout and a second more: nothing that a loop would have to do, fast_timeout, comes on top."""
    config = {"server": {"graceful_timeout": "3s", "fast_timeout": "1m", "workers": 1}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        workers = r.workers()
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        r.send(signal.SIGKILL)
        r.wait_exit()
        begin = time.monotonic()
        wait_for(lambda: not any(alive(p) for p in workers), "the workers to leave")
        report("end of a worker that spins after kill -9 of its master, graceful_timeout 3 s, seconds",
               round(time.monotonic() - begin, 2))  # fmt: skip
        assert spin.result() != 200
        r.spawn()  # once, and it binds
        r.wait_ready()


def private_memory(pid):
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def test_memory_of_a_burst_of_uploads_is_given_back():
    sanitizer = "quarantine_size_mb=0:thread_local_quarantine_size_kb=0:allocator_release_to_os_interval_ms=0"
    env = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":" + sanitizer}
    with Ragd({"ingest": {"workers": 1}}, args=["--role", "http"], env=env) as r:
        path = r.post("/api/v1/collections", json={"name": "c"}).headers["location"] + "/documents"
        worker, burst = ready(r)[0], []
        for i in range(300):
            part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{i}"\r\n\r\n' + f"{i} " * 15000
            body = part.encode() + b"\r\n--b--"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            burst.append(r.connect())
            burst[-1].sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body[:-1])
        wait_for(lambda: in_flight(r) == 300, "all uploads to be in hand")
        peak = wait_for(lambda: private_memory(worker) > (30 << 20) and private_memory(worker), "their memory to be taken")
        for sock in burst:
            sock.sendall(b"-")
        for sock in burst:
            assert sock.recv(100).startswith(b"HTTP/1.1 202")
            sock.close()
        wait_for(lambda: private_memory(worker) < peak / 2, lambda: f"{private_memory(worker)} to be half of {peak}")
