"""The whole server is suspended while a time runs: SIGSTOP to all, as in a frozen cgroup. Nobody has used that time.

Each suspension is longer than the time, and nearly all of it. The master goes on first, and alone for a moment: whatever it
holds against the others, it does to them before they can go on."""

import concurrent.futures
import contextlib
import datetime
import os
import re
import signal
import time

from ragdtest import Ragd, alive, fetch, in_flight, wait_for
from test_hooks import hook
from upgrades import Server as Upgradable
from upgrades import stop_all, upgrade
from watch import OUTCOMES, also_as_pid_1, ready

LIMIT = 5  # seconds: the time that a test is about
LONGER = LIMIT + 0.5
DELAY = f"delay:{1000 * LONGER:.0f}"  # of a boot, over when the suspension is


def signal_all(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def suspend(r, seconds=LONGER, meanwhile=None):
    """Stops all processes, and lets them go on after `seconds`. From when to when, as time.time()."""
    master, since = r.pid, len(r.log())
    stopped = {master}
    signal_all(stopped, signal.SIGSTOP)
    while more := set(r.processes()) - stopped:  # again: one may just have forked
        signal_all(more, signal.SIGSTOP)
        stopped |= more
    begin = time.time()
    if meanwhile:
        meanwhile()
    time.sleep(seconds)  # not a wait for something: this is the suspension itself
    end = time.time()
    os.kill(master, signal.SIGCONT)
    r.wait_log("the master was stopped for", since=since)
    signal_all(r.processes(), signal.SIGCONT)
    return begin, end


def stamp(line):
    """When a line of the log was written, as time.time()."""
    return datetime.datetime.fromisoformat(line.split()[0]).timestamp()


@also_as_pid_1
def test_a_drain(Server):
    """Its requests have the time that was left. What a client sends meanwhile is read before his time is looked at."""
    longer = LIMIT + 2.5  # than graceful_timeout, than the time of a worker that ends itself, than the master waits for the last
    config = {
        "server": {"graceful_timeout": f"{LIMIT}s", "fast_timeout": "100ms"},
        "http": {"body_timeout": f"{LIMIT}s", "body_min_rate": 0},
    }
    head = b"POST /api/v1/collections HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    with Server(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool, r.connect() as s:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms={1000 * longer:.0f}")
        s.sendall(head + b"{")
        wait_for(lambda: in_flight(r) == 2, "both requests in flight")
        workers = r.workers()
        r.send(signal.SIGTERM)
        wait_for(lambda: fetch(f"{r.url}/livez", 1) == "ConnectionRefusedError", "the drain")
        suspend(r, longer, meanwhile=lambda: s.sendall(b'"name":"late"}'))
        assert slow.result() == 200, r.log()
        assert s.makefile("rb").readline() == b"HTTP/1.1 201 Created\r\n", r.log()
        assert r.wait_exit() == 0
        assert not any(alive(pid) for pid in workers), r.log()
        for sign in ("has not drained in time", "cancelled", "ALRM", "leaving without them"):
            assert sign not in r.log()


@also_as_pid_1
def test_a_boot(Server):
    r = Server({"server": {"boot_timeout": f"{LIMIT}s"}}, args=["--role", "http"], env={"RAGD_FAULT_BOOT": DELAY})
    try:
        r.spawn()
        r.wait_log("RAGD_FAULT_BOOT")
        suspend(r)
        r.wait_ready()
        assert "is not ready after" not in r.log()
    finally:
        r.close()


def test_a_reload():
    r = Ragd({"server": {"workers": 2, "surge": 1, "boot_timeout": f"{LIMIT}s"}}, args=["--role", "http"])
    fault = r.dir / "fault"
    r.env = {"RAGD_FAULT_BOOT": f"@{fault}"}
    with r:
        wait_for(lambda: len(ready(r)) == 2, "both workers")
        fault.write_text("delay:1000")
        since = len(r.log())
        r.send(signal.SIGHUP)
        wait_for(lambda: r.log().count("RAGD_FAULT_BOOT=delay") == 2, "the second new worker")
        suspend(r)
        wait_for(lambda: any(text in r.log()[since:] for text in OUTCOMES), "the outcome of the reload")
        assert "reloaded in" in r.log()[since:], r.log()


def test_an_upgrade():
    r = Upgradable()
    r.write_config({"server": {"upgrade_timeout": f"{LIMIT}s"}})
    with r:
        r.release(f'RAGD_FAULT_BOOT={DELAY} exec -a "$0" "$RAGD" "$@"')
        r.send(signal.SIGUSR2)
        r.wait_log("RAGD_FAULT_BOOT")
        suspend(r)
        wait_for(lambda: r.proc.poll() is not None or "upgrade failed" in r.log(), lambda: f"the outcome:\n{r.log()}")
        assert "upgrade failed" not in r.log()
        assert r.wait_exit() == 0 and r.server() != r.pid
        stop_all(r)


def test_a_rollback_window():
    r = Upgradable({"server": {"rollback_window": f"{LIMIT}s"}})
    with r:
        upgrade(r)
        suspend(r)
        assert r.cli("rollback").returncode == 0, r.log()
        assert r.server() == r.pid
        stop_all(r)


def test_a_hook():
    r = Ragd({"hooks": {"timeout": f"{LIMIT}s"}})
    begun, go, done = r.dir / "begun", r.dir / "go", r.dir / "done"
    r.write_config({"hooks": {"ready": hook(r, "wait", f"touch {begun}; until [ -e {go} ]; do sleep 0.1; done; touch {done}")}})
    with r:
        wait_for(begun.exists, "the hook")
        suspend(r)
        go.touch()
        wait_for(lambda: done.exists() or "hooks.timeout" in r.log(), "the end of the hook")
        assert done.exists() and "hooks.timeout" not in r.log()


def test_a_pause_before_the_next_fork():
    """What is left of it then is kept: whoever failed fails no faster."""
    r = Ragd({"server": {"min_uptime": "1h"}}, args=["--role", "http"])
    fault = r.dir / "fault"
    r.env = {"RAGD_FAULT_BOOT": f"@{fault}"}

    def deaths():
        return [line for line in r.log().splitlines() if "next fork in" in line]

    with r:
        fault.write_text("exit:3")
        os.kill(ready(r)[0], signal.SIGKILL)
        last = wait_for(lambda: len(deaths()) == 5 and deaths()[4], r.log)
        begin, end = suspend(r, 2.5)  # longer than the pause
        left = int(re.search(r"next fork in (\d+) ms", last)[1]) / 1000 - (begin - stamp(last))
        following = wait_for(lambda: len(deaths()) == 6 and deaths()[5], r.log)
        assert stamp(following) - end > left - 0.3  # of each suspension, up to a tick of 250 ms passes unseen
