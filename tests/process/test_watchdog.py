"""Workers that hang, boots that hang, and a machine or a master that was suspended, which is neither."""

import concurrent.futures
import os
import pathlib
import re
import signal
import time

from load import Load
from ragdtest import Ragd, alive, fetch, in_flight, report, wait_for
from watch import also_as_pid_1, ready

NO_BOOT = 3


def test_a_hung_worker_is_aborted_and_replaced_before_it_is_gone():
    config = {"server": {"watchdog_timeout": "2s", "abort_grace": "200ms", "workers": 1}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        victim = ready(r)[0]
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=30000")
        line = r.wait_log("hangs: its loop has not turned for")
        assert f"pid {victim})" in line
        assert "GET /debug/spin" in r.wait_log("in flight for")
        wait_for(lambda: not alive(victim), "the end of the hung worker")
        assert spin.result() != 200
        wait_for(lambda: ready(r), "the replacement")
        assert r.get("/livez").status_code == 200
        assert "already replaced" in r.wait_log(f"pid {victim}) died")


def test_siblings_serve_while_one_worker_hangs():
    """Requests on other connections do not notice it, nor that it is aborted and replaced."""
    config = {"server": {"watchdog_timeout": "6s", "abort_grace": "200ms", "workers": 4}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        before = ready(r)
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        with Load(r) as load:
            line = r.wait_log("hangs: its loop has not turned for")
            begin = time.monotonic()
            wait_for(lambda: len(ready(r)) == 4 and ready(r) != before, "the replacement")
            report("from the abort of a hung worker to its replacement READY, ms", round(1000 * (time.monotonic() - begin)))
            load.more(100)
        assert load.errors == 0, load
        assert load.latency_ms["max"] < 4500
        report("one of four workers hangs, longest request of the others in ms", load.latency_ms["max"])
        report("hang found with watchdog_timeout 6 s after, seconds", re.search(r"turned for ([\d.]+) s", line)[1])
        assert spin.result() != 200


def test_boot_timeout():
    r = Ragd({"server": {"boot_timeout": "2s"}}, env={"RAGD_FAULT_BOOT": "hang"}, args=["--role", "http"])
    try:
        r.spawn()
        assert r.wait_exit() == NO_BOOT  # three times, then the breaker
        found = [float(s) for s in re.findall(r"is not ready after ([\d.]+) s: killing it", r.log())]
        report("boots that hang, killed with boot_timeout 2 s after, seconds", found)
        assert len(found) == 3 and min(found) >= 2, found
        delays = [int(ms) for ms in re.findall(r"next fork in (\d+) ms", r.log())]
        assert 79 <= delays[0] <= 121 and 158 <= delays[1] <= 242, delays
    finally:
        r.close()


def test_a_turn_of_the_loop_that_takes_long_is_logged():
    """By the worker whose loop it was, with its length; only from server.loop_stall_warn on, which a reload changes."""
    with Ragd({"server": {"loop_stall_warn": "1m"}}) as r:
        (worker,) = ready(r)

        def stalls():
            assert r.get("/debug/spin?ms=300").status_code == 200
            turns = re.findall(rf"warn  \[http:0 {worker}\] a turn of the loop took (\d+) ms\n", r.log())
            return [int(ms) for ms in turns if int(ms) >= 300]

        def counted():
            return int(re.search(r"^ragd_loop_stalls_total.* (\d+)$", r.get("/metrics").text, re.M)[1])

        assert stalls() == [] and counted() == 0
        r.write_config({"server": {"loop_stall_warn": "200ms"}})
        assert r.cli("reload").returncode == 0 and ready(r) == [worker]
        seen = wait_for(stalls, lambda: f"a stall to be logged:\n{r.log()}")
        assert counted() >= len(seen)


def all_beat(r):
    """Every worker beats again: from here on there is nothing that the master could hold against one."""
    return all(w["beat_age_s"] < 1 for w in r.status()["workers"])


@also_as_pid_1
def test_a_stopped_server_kills_nobody_when_it_continues(Server):
    with Server({"server": {"workers": 2, "watchdog_timeout": "3s"}}) as r:
        workers, master = r.workers(), r.pid
        for pid in [master, *workers]:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(9)  # not a wait for something: this is the suspension itself
        for pid in [master, *workers]:  # the master first: it sees workers whose last beat is old
            os.kill(pid, signal.SIGCONT)
        r.wait_log("the master was stopped for")
        wait_for(lambda: all_beat(r), lambda: f"beats: {r.status()}")
        assert r.workers() == workers
        assert "hangs" not in r.log()


def test_a_stopped_master_kills_nobody_when_it_continues():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "3s"}}) as r:
        workers = r.workers()
        os.kill(r.pid, signal.SIGSTOP)
        time.sleep(7)
        assert r.get("/livez").status_code == 200
        os.kill(r.pid, signal.SIGCONT)
        r.wait_log("the master was stopped for")
        wait_for(lambda: all_beat(r), lambda: f"beats: {r.status()}")
        assert r.workers() == workers
        assert "hangs" not in r.log()


def test_a_stopped_worker_counts_as_hung():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "2s", "abort_grace": "200ms"}}) as r:
        victim = ready(r)[0]
        os.kill(victim, signal.SIGSTOP)
        wait_for(lambda: not alive(victim), "the end of the stopped worker")
        wait_for(lambda: len(ready(r)) == 2, "the replacement")


def test_a_master_that_was_stopped_in_the_middle_of_its_work_notices_it():
    """It reads a file that gives nothing for a while; meanwhile the workers cannot beat."""
    r = Ragd({"server": {"watchdog_timeout": "5s"}})
    pressure, fifo, fresh = r.dir / "psi", r.dir / "fifo", r.dir / "fresh"
    r.env = {"RAGD_FAULT_PRESSURE": str(pressure)}
    pressure.write_text("full avg10=0.00 avg60=0.00\n")
    with r:
        before = ready(r)
        os.mkfifo(fifo)
        os.link(fifo, fresh)
        os.replace(fresh, pressure)
        since = len(r.log())
        wait_for(lambda: pathlib.Path(f"/proc/{r.pid}/wchan").read_text() == "wait_for_partner", "the master to read it")
        workers = r.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5.5)  # longer than the watchdog waits: that is what is tested
        fresh.write_text("full avg10=0.00 avg60=0.00\n")
        os.replace(fresh, pressure)
        with open(fifo, "w"):
            pass  # the end of the file, for who reads it
        r.wait_log("the master was stopped for", since=since)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: r.get("/livez").status_code == 200, "an answer")
        assert ready(r) == before and "hangs" not in r.log()


def test_a_worker_that_spins_ends_itself_while_the_master_stands_still():
    """By its own alarm, a second after graceful_timeout. The master, once it goes on, names it and ends as if it had done it."""
    with Ragd({"server": {"graceful_timeout": "5s"}}) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        (spinning,), (other,) = ready(r), ready(r, "ingest")
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        r.send(signal.SIGTERM)
        wait_for(lambda: not alive(other), "the workers to be told")
        os.kill(r.pid, signal.SIGSTOP)
        wait_for(lambda: not alive(spinning), "the alarm")
        os.kill(r.pid, signal.SIGCONT)
        assert r.wait_exit() == 0
        assert spin.result() != 200
        log = r.log()
        assert "the master was stopped for" in log and "signal 14 (ALRM)" in log, log
        assert re.search(r"in flight for \d+\.\d s: GET /debug/spin", log), log
