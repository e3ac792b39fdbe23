"""Keeping workers alive: deaths, hangs, boots that fail, scaling, orphans, a master that was stopped itself."""

import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

from ragdtest import BIN, Ragd, alive, fetch, in_flight, wait_for

NO_BOOT = 3


def ready(r, role="http"):
    return [w["pid"] for w in r.status()["workers"] if w["role"] == role and w["state"] == "READY"]


@pytest.mark.parametrize("role", ["http", "ingest"])
def test_a_killed_worker_is_replaced(role):
    with Ragd() as r:
        victim = ready(r, role)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: ready(r, role) and ready(r, role)[0] != victim, "the replacement", 5)
        line = r.wait_log(f"({role}, pid {victim}) died")
        assert "signal 9 (KILL)" in line and "0 requests in flight" in line and "next fork in" in line
        worker = next(w for w in r.status()["workers"] if w["role"] == role)
        assert worker["restarts"] == 1
        assert r.get("/livez").status_code == 200


def test_requests_that_died_with_a_worker_are_named():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=30000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        os.kill(ready(r)[0], signal.SIGKILL)
        assert slow.result() != 200
        assert "1 requests in flight" in r.wait_log("died")
        assert re.search(r"in flight for \d+\.\d s: GET /debug/sleep", r.wait_log("in flight for"))


def test_a_healthy_worker_is_replaced_at_once():
    with Ragd({"server": {"min_uptime": "1ms"}}) as r:
        for _ in range(5):  # five deaths in a row, and no delay grows
            victim = ready(r)[0]
            os.kill(victim, signal.SIGKILL)
            assert "next fork in 0 ms" in r.wait_log(f"pid {victim}) died")
            wait_for(lambda: ready(r) and ready(r)[0] != victim, "the replacement", 5)


def test_young_deaths_are_delayed_more_and_more():
    with Ragd() as r:
        delays = []
        for _ in range(4):
            victim = ready(r)[0]
            os.kill(victim, signal.SIGKILL)
            delays.append(int(re.search(r"next fork in (\d+) ms", r.wait_log(f"pid {victim}) died")).group(1)))
            wait_for(lambda: ready(r) and ready(r)[0] != victim, "the replacement", 10)
        for delay, nominal in zip(delays, [100, 200, 400, 800]):
            assert nominal * 0.79 <= delay <= nominal * 1.21, delays
        assert r.proc.poll() is None


def test_a_crash_in_a_handler_is_survived():
    with Ragd({"server": {"workers": 2}}) as r:
        assert fetch(f"{r.url}/debug/crash?signal=11") != 200
        assert "signal 11 (SEGV)" in r.wait_log("died")
        assert fetch(f"{r.url}/livez") == 200  # by the sibling
        wait_for(lambda: len(ready(r)) == 2, "the replacement", 10)


def test_a_hung_worker_is_aborted_and_replaced_before_it_is_gone():
    config = {"server": {"watchdog_timeout": "600ms", "abort_grace": "200ms", "workers": 1}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        victim = ready(r)[0]
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=30000")
        line = r.wait_log("hangs: its loop has not turned for")
        assert f"pid {victim})" in line
        assert "GET /debug/spin" in r.wait_log("in flight for")
        wait_for(lambda: not alive(victim), "the end of the hung worker", 10)
        assert spin.result() != 200
        wait_for(lambda: ready(r), "the replacement", 10)
        assert r.get("/livez").status_code == 200
        assert "already replaced" in r.wait_log(f"pid {victim}) died")


def test_siblings_serve_while_one_worker_hangs():
    with Ragd({"server": {"workers": 2}}) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=2000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        for _ in range(20):
            assert fetch(f"{r.url}/livez") == 200
        assert not spin.done()
        assert spin.result() == 200
        assert "hangs" not in r.log()


def test_boot_timeout():
    r = Ragd({"server": {"boot_timeout": "300ms"}}, env={"RAGD_FAULT_BOOT": "hang"}, args=["--role", "http"])
    try:
        r.spawn()
        assert r.wait_exit() == NO_BOOT  # three times, then the breaker
        assert len(re.findall(r"is not ready after 0\.[3-9] s: killing it", r.log())) == 3
    finally:
        r.close()


def test_workers_that_never_boot_end_the_server():
    r = Ragd({"server": {"workers": 2}}, env={"RAGD_FAULT_BOOT": "exit:3"})
    try:
        r.spawn()
        assert r.wait_exit() == NO_BOOT
        log = r.log()
        assert 9 <= len(re.findall(r"died: exit 3", log)) <= 12  # three slots, three times each
        assert "no worker has ever become ready" in log
    finally:
        r.close()


def test_once_ready_crashes_never_end_the_server():
    with Ragd({"ingest": {"workers": 1}}) as r:
        for _ in range(4):
            wait_for(lambda: ready(r), "a worker", 20)
            for pid in r.workers():
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: ready(r) and ready(r, "ingest"), "both workers", 20)
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
            assert "the limit of its cgroup is reached" in r.wait_log("for want of memory")
            assert "signal 9 (KILL)" in r.wait_log(f"pid {victim}) died")
            wait_for(lambda: ready(r) and ready(r)[0] != victim, "the replacement", 10)
    finally:
        wait_for(lambda: not (path / "cgroup.procs").read_text(), "the cgroup to be empty")
        path.rmdir()


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
        wait_for(lambda: len(ready(r)) == 1, "the configured number")


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
        wait_for(lambda: ready(r) and ready(r)[0] != victim, "the replacement", 10)
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
    config = {"server": {"graceful_timeout": "1s", "fast_timeout": "500ms", "workers": 1}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        workers = r.workers()
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        r.send(signal.SIGKILL)
        r.wait_exit()
        wait_for(lambda: not any(alive(p) for p in workers), "the workers to leave", 15)
        assert spin.result() != 200
        r.start()


# -- a machine that was suspended


def test_a_stopped_server_kills_nobody_when_it_continues():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "500ms"}}) as r:
        workers = r.workers()
        everybody = [*workers, r.pid]
        for pid in [r.pid, *workers]:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)  # not a wait for something: this is the suspension itself
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        r.wait_log("the master was stopped for")
        time.sleep(1)  # two watchdog periods in which nothing may happen
        assert r.workers() == workers
        assert "hangs" not in r.log()


def test_a_stopped_master_kills_nobody_when_it_continues():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "500ms"}}) as r:
        workers = r.workers()
        os.kill(r.pid, signal.SIGSTOP)
        time.sleep(2)
        assert r.get("/livez").status_code == 200
        os.kill(r.pid, signal.SIGCONT)
        r.wait_log("the master was stopped for")
        time.sleep(1)
        assert r.workers() == workers
        assert "hangs" not in r.log()


def test_a_stopped_worker_counts_as_hung():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "500ms", "abort_grace": "200ms"}}) as r:
        victim = ready(r)[0]
        os.kill(victim, signal.SIGSTOP)
        wait_for(lambda: not alive(victim), "the end of the stopped worker", 10)
        wait_for(lambda: len(ready(r)) == 2, "the replacement", 10)


# -- PID 1


def unshare():
    return subprocess.run(["unshare", "-pf", "--mount-proc", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not unshare(), reason="no right to make a PID namespace")
def test_as_pid_1_it_reaps_strangers_and_stops_on_term():
    r = Ragd({"log": {"level": "debug"}})
    try:
        # The shell makes an orphan that ends after it, and then becomes ragd.
        script = '(sh -c "sleep 0.3; exit 4" &) ; exec "$@"'
        r.prefix = ["unshare", "-pf", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"]
        r.spawn()
        r.wait_ready()
        assert ", pid 1," in r.log()
        r.wait_log("which is none of ours")
        master = r.workers()[0]  # the only child of unshare
        workers = len(r.status()["workers"])
        os.kill(master, signal.SIGTERM)
        assert r.wait_exit() == 0
        assert workers == 2 and " died" not in r.log()
    finally:
        r.close()


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
        wait_for(lambda: private_memory(worker) < peak / 2, lambda: f"{private_memory(worker)} to be half of {peak}", 10)
