"""What the process tests look at, and the two ways in which they run a server: as usual, and as PID 1."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import pytest

from ragdtest import DEADLINE, Ragd, children_of, stat_of, wait_for

OUTCOMES = ("reloaded in", "reload failed")


def hup(r, timeout=DEADLINE):
    """Sends HUP and waits for the outcome: its line in the log."""
    since = len(r.log())
    r.send(signal.SIGHUP)

    def outcome():
        lines = [line for line in r.log()[since:].splitlines() if any(text in line for text in OUTCOMES)]
        return lines and lines[0]

    return wait_for(outcome, lambda: f"the outcome of a reload:\n{r.log()}", timeout)


def ready(r, role="http"):
    """Pids of the READY workers of a role. An old one that spins does not know yet that it is to leave: not counted."""
    status = r.status()
    pids = []
    for w in status["workers"]:
        if w["role"] == role and w["state"] == "READY" and w["generation"] == status["generation"]:
            with contextlib.suppress(ProcessLookupError):
                pids.append(r.outer(w["pid"]))
    return pids


class Background:
    """Calls run(*args) for each element of `work`, each in a thread of its own, until the end of the block: run() looks at
    `done`, or waits for it."""

    def __init__(self, work):
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=args) for args in work]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        for thread in self.threads:
            thread.join()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def no_new_descriptors(pid, before):
    """Fewer will do: the connection of a client is closed a moment after he has gone, and may be counted in `before`."""
    wait_for(lambda: descriptors(pid) <= before, lambda: f"at most {before} descriptors, not {descriptors(pid)}")


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def zombies(pid):
    """Children that have ended and were not collected."""
    found = []
    for entry in os.listdir("/proc"):
        stat = stat_of(int(entry)) if entry.isdigit() else None
        if stat and stat == ("Z", pid):
            found.append(int(entry))
    return found


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sleeps(pid, samples=100):
    """True when the process is found asleep most of the time: one that spins never is, however loaded the machine is."""
    states = []
    for _ in range(samples):
        states.append(stat_of(pid)[0])
        time.sleep(0.01)
    return states.count("S") > samples / 2


def status_field(pid, name):
    """A number of /proc/PID/status: "VmRSS" in KB, "voluntary_ctxt_switches"."""
    return int(re.search(rf"^{name}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def queue_length(port):
    """Connections that wait for accept(): the receive queue of the listening socket."""
    for line in open("/proc/net/tcp"):
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return int(fields[4].split(":")[1], 16)
    return 0


def queued(r, count):
    """Connections with a request each that nobody has accepted: the one worker's loop must be blocked."""
    sockets = [r.connect() for _ in range(count)]
    for s in sockets:
        s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert queue_length(r.port) == count
    return sockets


class Pid1(Ragd):
    """ragd as PID 1 of a PID namespace, as in a container. Pids here are those outside of it."""

    PREFIX = ("unshare", "-pf", "--kill-child", "--mount-proc")

    def __init__(self, *args, script='exec "$@"', **kw):
        super().__init__(*args, **kw)
        self.prefix = [*self.PREFIX, "sh", "-c", script, "sh"]

    @property
    def pid(self):
        return wait_for(lambda: children_of(self.proc.pid), "the process in the namespace")[0]

    def send(self, number):
        os.kill(self.pid, number)

    def workers(self):
        return [worker for first in children_of(self.proc.pid) for worker in children_of(first)]

    def outer(self, pid):
        for one in self.workers():
            try:
                text = pathlib.Path(f"/proc/{one}/status").read_text()
            except OSError:
                continue
            if int(re.search(r"^NSpid:.*\s(\d+)$", text, re.M)[1]) == pid:
                return one
        raise ProcessLookupError(f"process {pid} of the server has just ended")


def may(*command):
    return subprocess.run(command, capture_output=True).returncode == 0


needs_namespace = pytest.mark.skipif(not may(*Pid1.PREFIX, "true"), reason="no right to make a PID namespace")
needs_mounts = pytest.mark.skipif(not may("unshare", "-m", "true"), reason="no right to make a mount namespace")
# For tests of what must hold in a container as well: `Server` is the class to run.
also_as_pid_1 = pytest.mark.parametrize("Server", [Ragd, pytest.param(Pid1, marks=needs_namespace)], ids=["", "pid1"])
