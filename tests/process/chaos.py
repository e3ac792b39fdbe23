#!/usr/bin/python3
"""About every second something happens to a server under load: workers are killed, told to leave, suspended; the master
reloads, scales, is suspended, is upgraded. No request may fail but those that a killed worker held, and in the end
everything is as configured.

usage: chaos.py [--seconds 600] [--seed N] [--pid1] [--postgres]      `make chaos`; RAGD_BIN names the binary"""

import argparse
import contextlib
import os
import pathlib
import random
import signal
import sys
import threading
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent)]

from load import Load  # noqa: E402
from ragdtest import Postgres, Ragd, report, wait_for  # noqa: E402
from soak import show  # noqa: E402
from watch import Pid1, zombies  # noqa: E402

WORKERS = {"http": 4, "ingest": 1}
WATCHDOG_S = 3
CONFIG = {
    "server": {"workers": WORKERS["http"], "max_workers": 8, "graceful_timeout": "4s", "min_uptime": "1s",
               "watchdog_timeout": f"{WATCHDOG_S}s", "abort_grace": "500ms"},
    "ingest": {"workers": WORKERS["ingest"]},
}  # fmt: skip
SLACK = 4  # connections that a worker may have taken between the look at it and its end


class Upgraded(Ragd):
    """A server whose master is another process after each upgrade: the pidfile knows which."""

    @property
    def pid(self):
        pidfile = self.dir / "ragd.pid"
        return int(pidfile.read_text()) if pidfile.exists() else self.proc.pid


class Chaos:
    def __init__(self, r, rng):
        self.r, self.rng = r, rng
        self.forgiven = 0  # requests that may have failed, as their workers were killed
        self.kills = []  # wall-clock times
        self.happened = {}
        self.later = []  # timers that wake what was suspended

    def pick(self):
        """Some READY worker, as `ragd status` has it."""
        found = [w for w in self.r.status()["workers"] if w["state"] == "READY"]
        return self.rng.choice(found) if found else None

    def signal(self, number):
        """The worker that got it, and its pid here; or twice None."""
        worker = self.pick()
        try:
            pid = self.r.outer(worker["pid"]) if worker else None
        except ProcessLookupError:
            return None, None
        if worker:
            self.send(pid, number)
        return worker, pid

    def send(self, pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has left meanwhile

    def forgive(self, worker):
        if worker:
            self.forgiven += worker["connections"] + SLACK
            self.kills.append(time.time())

    def kill(self):
        self.forgive(self.signal(signal.SIGKILL)[0])

    def terminate(self):
        self.signal(signal.SIGTERM)

    def suspend(self, seconds):
        """A worker that is suspended for long is taken for one that hangs, and replaced."""
        worker, pid = self.signal(signal.SIGSTOP)
        if worker is None:
            return
        if seconds > WATCHDOG_S / 2:
            self.forgive(worker)
            self.kills[-1] += WATCHDOG_S  # about when it is aborted
        self.wake_later(pid, seconds)

    def suspend_master(self):
        pid = self.r.pid
        self.send(pid, signal.SIGSTOP)
        self.wake_later(pid, self.rng.uniform(0.1, 1.5))

    def wake_later(self, pid, seconds):
        timer = threading.Timer(seconds, self.send, (pid, signal.SIGCONT))
        timer.start()
        self.later.append(timer)

    def hup(self):
        self.r.send(signal.SIGHUP)

    def scale(self):
        self.r.cli("scale", str(self.rng.randint(1, 6)), timeout=60)  # refused while a reload is under way

    # name: (how often, what)
    ACTIONS = {
        "KILL a worker": (3, kill),
        "TERM a worker": (3, terminate),
        "STOP a worker for a moment": (2, lambda self: self.suspend(self.rng.uniform(0.1, 1))),
        "STOP a worker until it counts as hung": (1, lambda self: self.suspend(WATCHDOG_S + 3)),
        "STOP the master for a moment": (1, suspend_master),
        "HUP": (4, hup),
        "TTIN": (2, lambda self: self.r.send(signal.SIGTTIN)),
        "TTOU": (2, lambda self: self.r.send(signal.SIGTTOU)),
        "ragd scale": (2, scale),
        "USR2": (2, lambda self: self.r.send(signal.SIGUSR2)),
    }

    def step(self):
        names = list(self.ACTIONS)
        name = self.rng.choices(names, [self.ACTIONS[n][0] for n in names])[0]
        self.ACTIONS[name][1](self)
        self.happened[name] = self.happened.get(name, 0) + 1
        return name

    def settle(self):
        """Until nothing is under way any more; then a last reload, which brings back what is configured."""
        for timer in self.later:
            timer.join()
        wait_for(lambda: self.r.status()["phase"] == "IDLE", lambda: f"the phase IDLE:\n{self.r.log()[-3000:]}", 60)
        done = self.r.cli("reload", timeout=60)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: as_configured(self.r), lambda: f"the configured workers: {self.r.status()}", 60)


def as_configured(r):
    status = r.status()
    roles = [w["role"] for w in status["workers"] if w["state"] == "READY" and w["generation"] == status["generation"]]
    try:
        pids = sorted(r.outer(w["pid"]) for w in status["workers"])
    except ProcessLookupError:
        return False
    return all(roles.count(role) == n for role, n in WORKERS.items()) and len(pids) == len(roles) and pids == r.workers()


def chaos(seconds, seed, Server=Upgraded, url=None, say=lambda line: None):
    """`url` names a database on PostgreSQL; else it is SQLite."""
    r = Server(CONFIG)
    pidfile = r.dir / "ragd.pid"
    r.write_config({"server": {"pidfile": str(pidfile)}})
    if url:
        r.write_config({"database": {"url": url, "auto_migrate": True}})
    with contextlib.ExitStack() as stack:
        stack.enter_context(r)
        collection = r.post("/api/v1/collections", json={"name": "chaos"}).json()["id"]
        fast = stack.enter_context(Load(r))
        slow = stack.enter_context(Load(r, path="/debug/sleep?ms=300", rate=20, connections=16))
        stored = stack.enter_context(Load(r, path=f"/api/v1/collections/{collection}", rate=50, connections=8))
        loads = (fast, slow, stored)
        c = Chaos(r, random.Random(seed))
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            say(f"{time.monotonic() - begin:6.1f} s: {c.step()}")
            time.sleep(c.rng.uniform(0.5, 1.5))  # the pace at which things happen
        c.settle()
        for load in loads:
            load.stop()
        name = f"chaos of {seconds} s, {Server.__name__}, {'PostgreSQL' if url else 'SQLite'}"
        failed = sum(load.errors for load in loads)
        report(f"{name}, what happened", c.happened)
        report(f"{name}, requests, failed, forgiven, stale",
               f"{sum(x.requests for x in loads)}, {failed}, {c.forgiven}, {sum(x.stale for x in loads)}")  # fmt: skip
        report(f"{name}, longest request in ms", fast.latency_ms["max"])
        for load in loads:
            assert load.refused == load.timeout == load.other == 0, load
            assert set(load.status) <= {"200"}, load
            strays = [f for f in load.failures if not any(-1 < f["at"] - kill < WATCHDOG_S + 3 for kill in c.kills)]
            assert not strays, (strays, c.kills, r.log()[-3000:])
        assert failed <= c.forgiven, loads
        status = r.status()
        assert pidfile.read_text() == f"{status['pid']}\n" and status["upgrades"]["failed"] == 0, status
        outside = {r.proc.pid} if r.prefix else set()  # unshare
        assert set(r.processes()) - outside == {r.pid, *r.workers()}, "one master, and its workers"
        assert zombies(r.pid) == []
        assert r.cli("stop", timeout=60).returncode == 0
        wait_for(lambda: not r.processes(), lambda: f"{r.processes()} to end")
        assert not pidfile.exists()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--pid1", action="store_true", help="as PID 1 of a namespace")
    parser.add_argument("--postgres", action="store_true", help="on a private PostgreSQL instead of SQLite")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with Postgres() if args.postgres else contextlib.nullcontext() as postgres:
        url = postgres and postgres.new_database()
        chaos(args.seconds, args.seed, Pid1 if args.pid1 else Upgraded, url, say=lambda line: print(line, flush=True))
    show()


if __name__ == "__main__":
    main()
