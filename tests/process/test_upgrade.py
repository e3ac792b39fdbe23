"""USR2: another binary takes over without a lost request, or nothing changes at all."""

import contextlib
import os
import signal
import socket
import sqlite3
import threading
import time

import pytest

from load import Load
from ragdtest import alive, children_of, fetch, free_port, report, wait_for
from systemd import activate, listening
from upgrades import Manager, Pidfile, Server, Server1, reloads, stop_all, upgrade
from watch import needs_namespace


# -- it goes well


def test_a_new_binary_takes_over_without_a_lost_request():
    r = Server()
    path = r.dir / "http.sock"
    r.write_config({"server": {"workers": 2, "bind": [f"127.0.0.1:{r.port}", f"unix:{path}"]}})
    with Manager(r) as manager, r:
        old = r.pid
        before = manager.index(old, "READY=1")
        r.release()
        with Load(r, f"unix:{path}") as load, Pidfile(r) as pidfile:
            load.more(300)
            begin = time.monotonic()
            new = upgrade(r)
            report("upgrade, from the command to its verdict", f"{(time.monotonic() - begin) * 1000:.0f} ms")
            assert r.wait_exit() == 0  # the old one
            load.more(300)
        assert load.errors == 0, load
        assert pidfile.wrong == [] and pidfile.pids == {old, new}
        assert int(r.pidfile.read_text()) == new and not (r.dir / "ragd.pid.oldbin").exists()
        handed_over = manager.index(old, f"MAINPID={new}", before)
        assert manager.index(new, "READY=1") > handed_over
        assert not any(text.startswith("STOPPING") for _, text in manager.messages())
        status = r.status()
        assert status["phase"] == "IDLE" and len(status["listeners"]) == 2
        assert status["upgrades"]["ok"] == 1 and status["upgrades"]["last"]["ok"]
        wait_for(lambda: len(r.processes()) == 1 + 3, lambda: f"one master and three workers: {r.processes()}")
        new = upgrade(r)  # and again, from the new one
        wait_for(lambda: len(r.processes()) == 1 + 3, lambda: f"one master and three workers: {r.processes()}")
        with Load(f"unix:{path}", f"127.0.0.1:{r.port}") as load:
            load.more(100)
        assert load.errors == 0, load
        stop_all(r)
        assert not path.exists()


def test_the_old_one_leaves_when_systemd_has_room_for_its_last_word():
    r = Server()
    with Manager(r) as manager, r, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        old = r.pid
        manager.index(old, "READY=1")
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"STATUS=filler", manager.path)
        new = upgrade(r)
        wait_for(lambda: children_of(old) == [new], lambda: f"the old workers to end: {r.processes()}")
        assert alive(old)
        manager.index(old, f"MAINPID={new}")
        assert r.wait_exit() == 0
        stop_all(r)


def test_a_request_in_flight_is_answered_by_the_old_one():
    with Server() as r:
        slow = []
        thread = threading.Thread(target=lambda: slow.append(fetch(f"{r.url}/debug/sleep?ms=4000")))
        thread.start()
        wait_for(lambda: sum(w["in_flight"] for w in r.status()["workers"]) == 1, "the request in flight")
        upgrade(r)
        thread.join()
        assert slow == [200]
        assert r.wait_exit() == 0


def test_what_a_reload_refuses_is_changed_by_an_upgrade():
    with Server() as r:
        port, path = free_port(), r.dir / "gone.sock"
        r.write_config({"server": {"bind": [f"127.0.0.1:{r.port}", f"unix:{path}"]}})
        assert r.cli("reload").returncode == 0 and path.exists()
        old_url, old_control, old_pidfile = r.url, r.control, r.pidfile
        r.control, r.pidfile = r.dir / "new.ctl", r.dir / "new.pid"
        r.write_config({"server": {"bind": [f"127.0.0.1:{port}"], "max_workers": 3, "pidfile": str(r.pidfile),
                                   "control": str(r.control)}})  # fmt: skip
        where = ["--set", f"server.control={old_control}"]
        refused = r.cli_bare("reload", *where)
        assert refused.returncode == 1 and "ragd upgrade" in refused.stderr
        assert r.cli_bare("upgrade", *where).returncode == 0
        assert r.wait_exit() == 0
        assert fetch(f"http://127.0.0.1:{port}/livez") == 200
        assert fetch(f"{old_url}/livez", 5) == "ConnectionRefusedError"
        assert not path.exists() and not old_control.exists() and not old_pidfile.exists()
        assert int(r.pidfile.read_text()) == r.server()
        stop_all(r)


def test_the_binary_is_found_as_the_shell_found_it():
    r = Server()
    r.env = {"PATH": f"{r.dir}:{os.environ['PATH']}"}
    r.bin = "ragd"
    with r:
        r.bin = str(r.dir / "ragd")
        r.release("exit 1")
        assert r.cli("upgrade").returncode == 1
        r.release()
        upgrade(r)


def test_sockets_that_systemd_passed_are_passed_on():
    r = Server({"server": {"bind": None, "rollback_window": "60s"}})
    path = r.dir / "activated.sock"
    with listening(r.port) as tcp, listening(path) as unix:
        activate(r, {"tcp": tcp, "unix": unix})
        with r:
            with Load(f"unix:{path}", r) as load:
                upgrade(r)
                load.more(100)
                assert r.cli("rollback").returncode == 0
                upgrade(r)
                assert r.stop() == 0  # the old one leaves
                load.more(100)
            assert load.errors == 0, load
            assert r.status()["listeners"] == [f"127.0.0.1:{r.port}", f"unix:{path}"]
            stop_all(r)
            assert path.exists()


def test_the_log_file_goes_on():
    r = Server()
    log = r.dir / "ragd.log"
    r.write_config({"log": {"file": str(log)}})
    with r:
        new = upgrade(r)
        assert r.wait_exit() == 0
        wait_for(lambda: f"[master {new}] this is the server now" in log.read_text(), log.read_text)
        assert f"[master {r.pid}] stopped" in log.read_text()
        os.rename(log, r.dir / "ragd.log.1")
        assert r.cli("reopen").returncode == 0
        wait_for(log.exists, "the new file")


# -- it goes wrong

REFUSES = 'case "$1" in check) exec -a "$0" "$RAGD" "$@" ;; esac\n'  # good at checking, until it is to serve

BROKEN = {
    "exits at once": ("echo this is no good >&2; exit 1", "this is no good"),
    "exits instead of serving": (REFUSES + "exit 1", "exit 1"),
    "hangs while it checks": ("exec sleep 60", "server.check_timeout"),
    "hangs": (REFUSES + "exec sleep 60", "server.upgrade_timeout"),
    "hangs and cannot be asked to end": (REFUSES + "trap '' QUIT; while :; do sleep 0.1; done", "server.upgrade_timeout"),
    "boots no worker": ('RAGD_FAULT_BOOT=exit:3 exec -a "$0" "$RAGD" "$@"', "worker could not boot: exit 3"),
    "boots no http worker": ('RAGD_FAULT_ROLE=http RAGD_FAULT_BOOT=exit:4 exec -a "$0" "$RAGD" "$@"', "an http worker could not boot: exit 4"),
    "boots for ever": ('RAGD_FAULT_BOOT=hang exec -a "$0" "$RAGD" "$@"', "server.upgrade_timeout"),
    "finds the configuration bad": ('exec -a "$0" "$RAGD" "$@" --set server.workers=some', "server.workers"),
    "serves with another configuration": (REFUSES + 'exec -a "$0" "$RAGD" "$@" --set server.workers=some', "server.workers"),
}


def still_serves(r, workers, load):
    assert load.errors == 0, load
    assert r.proc.poll() is None and r.workers() == workers
    assert int(r.pidfile.read_text()) == r.server() and r.server() in (1, r.pid)
    assert r.status()["phase"] == "IDLE"


@pytest.mark.parametrize("script, reason", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("Kind", [Server, pytest.param(Server1, marks=needs_namespace)], ids=["", "pid1"])
def test_a_binary_that_is_broken_changes_nothing(Kind, script, reason):
    r = Kind({"server": {"workers": 2, "fast_timeout": "200ms"}})
    with Manager(r) as manager, r:
        key = reason.removeprefix("server.") if reason.endswith("_timeout") else None
        if key:
            r.write_config({"server": {key: "2s"}})
            assert r.cli("reload").returncode == 0
        workers, processes = r.workers(), len(r.processes())
        r.release(script)
        with Load(r) as load, Pidfile(r) as pidfile:
            done = r.cli("upgrade")
            assert done.returncode == 1 and reason in done.stderr, done
            manager.index(r.pid, "READY=1\nSTATUS=upgrade failed: ")
            load.more(100)
        assert pidfile.wrong == [] and pidfile.pids == {r.server()}
        wait_for(lambda: len(r.processes()) == processes, lambda: f"the new one to end: {r.processes()}")
        still_serves(r, workers, load)
        assert reason in r.status()["upgrades"]["last"]["reason"]
        if key:
            r.write_config({"server": {key: "30s"}})
            assert r.cli("reload").returncode == 0
        r.release()
        upgrade(r)


def test_a_binary_that_is_not_executable_changes_nothing():
    with Server() as r:
        workers = r.workers()
        r.release("exit 0", mode=0o644)
        with Load(r) as load:
            done = r.cli("upgrade")
        assert done.returncode == 1 and "cannot execute" in done.stderr and "Permission denied" in done.stderr
        still_serves(r, workers, load)
        r.release()
        upgrade(r)


def test_a_database_that_would_have_to_be_migrated_is_left_alone():
    with Server() as r:
        with contextlib.closing(sqlite3.connect(r.dir / "ragd.db")) as db:
            db.execute("DELETE FROM schema_migrations")
            db.commit()
            done = r.cli("upgrade")
            assert done.returncode == 1
            assert "older than this release" in r.log()
            assert db.execute("SELECT count(*) FROM schema_migrations").fetchone() == (0,)
        assert fetch(f"{r.url}/livez") == 200


def test_the_old_one_dies_before_the_new_one_is_ready():
    with Server() as r:
        r.release('RAGD_FAULT_BOOT=delay:3000 exec -a "$0" "$RAGD" "$@"')
        r.send(signal.SIGUSR2)
        r.wait_log("the new master is pid")
        wait_for(lambda: len(r.processes()) >= 6, "the new workers to boot")
        r.proc.kill()
        r.wait_exit()
        r.wait_log("the old master is gone without a word")
        wait_for(lambda: r.cli("status").returncode == 0, "the control socket")
        new = r.server()
        assert new != r.pid and int(r.pidfile.read_text()) == new
        wait_for(lambda: r.status()["phase"] == "IDLE" and len(r.processes()) == 1 + 2, lambda: str(r.processes()))
        assert fetch(f"{r.url}/livez") == 200
        stop_all(r)


# -- several things at once


def test_one_upgrade_at_a_time_and_one_reload_after_it():
    with Server() as r:
        r.release('RAGD_FAULT_BOOT=delay:2000 exec -a "$0" "$RAGD" "$@"')
        with Load(r) as load:
            r.send(signal.SIGUSR2)
            r.wait_log("upgrading to")
            r.send(signal.SIGUSR2)
            r.wait_log("this one is ignored")
            for _ in range(3):
                r.send(signal.SIGHUP)
                time.sleep(0.02)  # apart, so that they are three
            assert r.wait_exit() == 0
            r.wait_log("reloaded in")
            load.more(100)
        assert load.errors == 0, load
        assert r.log().count("the new master is pid") == 1
        wait_for(lambda: r.status()["phase"] == "IDLE", "the end of all reloads")
        assert reloads(r) == 1 and r.status()["generation"] == 2


def test_an_upgrade_waits_for_the_reload_before_it():
    with Server({"debug": {"faults": False}}, env={"RAGD_FAULT_BOOT": "delay:1500"}) as r:
        r.write_config({"debug": {"faults": True}})
        r.send(signal.SIGHUP)
        wait_for(lambda: r.status()["phase"] == "RELOADING", "the reload")
        done = r.cli("upgrade")
        assert done.returncode == 0, done.stderr
        log = r.log()
        assert log.index("the upgrade follows it") < log.index("reloaded in") < log.index("upgrading to")


def test_a_stop_ends_the_new_one_too():
    with Server() as r:
        r.release('RAGD_FAULT_BOOT=hang exec -a "$0" "$RAGD" "$@"')
        r.send(signal.SIGUSR2)
        wait_for(lambda: len(r.processes()) >= 6, "the new workers to boot")
        assert r.stop() == 0
        wait_for(lambda: not r.processes(), lambda: f"{r.processes()} to end")
        assert not r.pidfile.exists() and not r.control.exists()


def test_a_name_in_the_environment_that_means_nothing_is_refused():
    r = Server(env={"RAGD_UPGRADE_FD": "0"})
    try:
        r.spawn()
        assert r.wait_exit() == 7 and "only a server that is being upgraded" in r.log()
    finally:
        r.close()
