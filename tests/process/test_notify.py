"""What systemd is told, by a socket that plays its part; and the unit files that it reads."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from ragdtest import BIN, ROOT, Ragd, in_flight, wait_for
from watch import ready


class Manager:
    """Runs one server and keeps what it says. `said` is a list of {name: value}, oldest first."""

    def __init__(self, config=None, env=None):
        self.r = Ragd(config)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.r.dir / "notify"))
        self.socket.setblocking(False)
        self.r.env = {"NOTIFY_SOCKET": str(self.r.dir / "notify"), **(env or {})}
        self.said = []

    def listen(self):
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return self.said
            self.said.append(dict(line.split("=", 1) for line in text.split("\n")))

    def wait(self, name, value=None, since=0):
        """The first message behind `since` that has this assignment; value: a regular expression."""

        def found():
            for message in self.listen()[since:]:
                if name in message and (value is None or re.search(value, message[name])):
                    return message
            return None

        return wait_for(found, lambda: f"{name}={value} in {self.said[since:]}; log:\n{self.r.log()}")

    def count(self, name):
        return sum(name in message for message in self.listen())

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.r.close()
        self.socket.close()


def test_start_reload_and_stop():
    with Manager() as manager:
        r = manager.r.start()
        assert manager.wait("READY", "1")["STATUS"] == "1 http and 1 ingest workers"
        assert all("READY" in m or "STATUS" in m or "EXTEND_TIMEOUT_USEC" in m for m in manager.said)
        assert manager.wait("STATUS", "^starting: 0 of 1 http and 0 of 1 ingest workers are ready$")
        since, before = len(manager.listen()), time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert r.cli("reload").returncode == 0
        begin = manager.wait("RELOADING", "1", since)
        assert before <= int(begin["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.wait("STATUS", "^reloading: generation 2$", since)
        assert manager.wait("READY", "1", since)["STATUS"] == "1 http and 1 ingest workers"
        since = len(manager.listen())
        r.write_config({"server": {"graceful_timeout": "soon"}})
        assert r.cli_bare("reload", "--set", f"server.control={r.control}").returncode == 1
        manager.wait("RELOADING", "1", since)
        assert manager.wait("READY", "1", since)["STATUS"].startswith("reload failed: configuration: ")
        since = len(manager.listen())
        assert r.stop() == 0
        assert manager.wait("STOPPING", "1", since)["STATUS"].startswith("stopping: ")
        assert "READY" not in "".join("".join(m) for m in manager.said[since:])


@pytest.mark.parametrize("min_ready, needed", [(2, 2), ("auto", 3), (100, 3)])
def test_ready_is_said_when_enough_workers_are(min_ready, needed):
    """Each worker finds out at its boot whether it may become ready."""
    with Manager({"server": {"workers": 3, "min_ready": min_ready, "boot_timeout": "1h"}}) as manager:
        fault = manager.r.dir / "fault"
        manager.r.env["RAGD_FAULT_BOOT"] = f"@{fault}"
        fault.write_text("hang")
        manager.r.spawn()
        workers = wait_for(lambda: len(manager.r.workers()) == 4 and manager.r.workers(), "the workers")
        wait_for(lambda: manager.r.log().count("RAGD_FAULT_BOOT=hang") == 4, manager.r.log)
        fault.unlink()
        for n, pid in enumerate([workers[3], *workers[:3]]):  # the ingest worker, then one http worker after the other
            assert manager.count("READY") == (n > needed)
            since = len(manager.listen())
            os.kill(pid, signal.SIGKILL)
            if n < needed:
                manager.wait("STATUS", f"{n} of 3 http and 1 of 1 ingest", since)
            elif n == needed:
                assert manager.wait("READY", "1", since)["STATUS"] == "3 http and 1 ingest workers"


def test_time_is_asked_for_while_it_is_needed():
    config = {"server": {"graceful_timeout": "1h"}}
    with Manager(config, {"RAGD_FAULT_BOOT": "delay:1500"}) as manager:
        manager.r.start()
        manager.wait("READY")
        assert manager.count("EXTEND_TIMEOUT_USEC") >= 2
        with manager.r.connect() as s:
            s.sendall(b"GET /debug/sleep?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: in_flight(manager.r) == 1, "the request in flight")
            manager.listen()
            before = manager.count("EXTEND_TIMEOUT_USEC")
            time.sleep(1.5)  # nothing is under way
            assert manager.count("EXTEND_TIMEOUT_USEC") == before
            manager.r.send(signal.SIGTERM)
            wait_for(lambda: manager.count("EXTEND_TIMEOUT_USEC") >= before + 3, "more time to be asked for")
            assert all(int(m.get("EXTEND_TIMEOUT_USEC", 10**7)) >= 10**6 for m in manager.said)
            manager.r.send(signal.SIGINT)
            assert manager.r.wait_exit() == 0


@pytest.mark.parametrize("whose", ["unset", "ours", "another's"])
def test_watchdog_is_answered_only_by_the_one_who_is_meant(whose):
    env = {"WATCHDOG_USEC": "400000"}
    with Manager(env=env) as manager:
        if whose == "another's":
            env["WATCHDOG_PID"] = str(os.getpid())
        manager.r.env.update(env)
        if whose == "ours":  # exec keeps the pid
            manager.r.prefix = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$0" "$@"']
        manager.r.start()
        manager.wait("READY")
        if whose == "another's":
            time.sleep(1)  # more than two intervals
            assert manager.count("WATCHDOG") == 0
        else:
            wait_for(lambda: manager.count("WATCHDOG") >= 4, "answers to the watchdog")


def test_watchdog_is_not_answered_while_nobody_serves():
    with Manager({"server": {"boot_timeout": "1h"}}, {"WATCHDOG_USEC": "400000"}) as manager:
        r, fault = manager.r, manager.r.dir / "fault"
        r.env["RAGD_FAULT_BOOT"] = f"@{fault}"
        r.start()
        wait_for(lambda: manager.count("WATCHDOG") >= 2, "answers to the watchdog")
        wait_for(lambda: ready(r) and ready(r, "ingest"), "both workers")
        fault.write_text("hang")
        for pid in r.workers():
            os.kill(pid, signal.SIGKILL)
        manager.wait("STATUS", "^degraded; ")
        time.sleep(0.8)  # the intervals of grace, and more
        before = manager.count("WATCHDOG")
        time.sleep(1)
        assert manager.count("WATCHDOG") == before
        fault.unlink()
        hung = r.workers()
        for pid in hung:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: manager.count("WATCHDOG") >= before + 2, "answers again")
        assert manager.said[-1].get("STATUS", "1 http").startswith("1 http")


def test_a_parked_server_is_healthy_and_says_what_it_is():
    with Manager(env={"WATCHDOG_USEC": "400000"}) as manager:
        manager.r.start()
        manager.wait("READY")
        manager.r.send(signal.SIGWINCH)
        manager.wait("STATUS", "^parked$")
        before = manager.count("WATCHDOG")
        wait_for(lambda: manager.count("WATCHDOG") >= before + 5, "answers to the watchdog")
        since = len(manager.listen())
        manager.r.send(signal.SIGTTIN)
        manager.wait("STATUS", "^1 http and 1 ingest workers$", since)


def test_nothing_of_weight_is_lost_while_the_queue_is_full():
    """Nobody reads while the server starts and reloads: the kernel keeps few datagrams for a socket."""
    with Manager() as manager:
        r = manager.r
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler.sendto(b"STATUS=filler", r.env["NOTIFY_SOCKET"])
        r.start()
        wait_for(lambda: "ready after" in r.log(), "the start")
        assert r.cli("reload").returncode == 0
        begin = manager.wait("RELOADING", "1")
        since = manager.said.index(begin)
        assert any("READY" in message for message in manager.said[:since])
        manager.wait("READY", "1", since)


# -- the unit files


def installed_units(directory):
    """What `make install` would put into place, with this build as the program."""
    units = []
    for name in ("ragd.service", "ragd.socket"):
        text = (ROOT / "deploy" / name).read_text().replace("/usr/bin/ragd", BIN)
        (directory / name).write_text(text)
        units.append(str(directory / name))
    return units


def unit_value(name):
    return re.search(rf"^{name}=(.*)$", (ROOT / "deploy" / "ragd.service").read_text(), re.M)[1]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_with_the_units(tmp_path):
    done = subprocess.run(["systemd-analyze", "verify", *installed_units(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "ragd" in line] == []


def test_the_unit_waits_longer_than_a_stop_may_take():
    with Ragd() as r:
        takes = float(re.search(r"a stop takes at most (\d+\.\d) s", r.log())[1])
    assert float(unit_value("TimeoutStopSec")) > takes


def test_the_unit_does_not_restart_what_cannot_start():
    r = Ragd({"server": {"workers": "several"}})
    try:
        r.spawn()
        assert str(r.wait_exit()) in unit_value("RestartPreventExitStatus").split()
    finally:
        r.close()


def test_install_puts_the_units_in_place(tmp_path):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    build = pathlib.Path(BIN).resolve().parent
    command = ["make", "-s", "-o", "all", "install", f"BUILD={build}", f"DESTDIR={tmp_path}", "PREFIX=/opt/ragd"]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=60)
    unit = (tmp_path / "opt/ragd/lib/systemd/system/ragd.service").read_text()
    assert "ExecStart=/opt/ragd/bin/ragd serve " in unit and "/usr/bin/ragd" not in unit
    assert (tmp_path / "opt/ragd/lib/systemd/system/ragd.socket").exists()
    assert os.access(tmp_path / "opt/ragd/bin/ragd", os.X_OK)
