"""After an upgrade, within server.rollback_window: the way back, by itself and on request."""

import os
import signal
import socket
import threading
import time

import pytest

from load import Load
from ragdtest import alive, fetch, free_port, in_flight, report, wait_for
from upgrades import Manager, Pidfile, Server, reloads, upgrade
from watch import ready, sleeps


def test_a_new_master_that_dies_in_the_window_is_replaced_by_the_old_one():
    r = Server({"server": {"workers": 2, "rollback_window": "60s"}})
    with Manager(r) as manager, r:
        with Load(r) as load, Pidfile(r) as pidfile:
            new = upgrade(r)
            assert (r.dir / "ragd.pid.oldbin").read_text() == f"{r.pid}\n"
            wait_for(lambda: r.workers() == [new], lambda: f"only the new master below the old one: {r.workers()}")
            load.more(100)
            begin = time.monotonic()
            os.kill(new, signal.SIGKILL)
            wait_for(lambda: new not in r.workers() and len(r.workers()) == 3, "the old workers to come back")
            report("workers back after the new master was killed", f"{(time.monotonic() - begin) * 1000:.0f} ms")
            took_back = manager.index(r.pid, f"MAINPID={r.pid}", manager.index(r.pid, f"MAINPID={new}"))
            manager.index(r.pid, "READY=1\n", took_back)
            load.more(300)
        assert load.errors == 0, load
        assert pidfile.wrong == [] and int(r.pidfile.read_text()) == r.pid == r.server()
        assert not (r.dir / "ragd.pid.oldbin").exists()
        status = r.status()
        assert status["phase"] == "IDLE" and "signal 9" in status["upgrades"]["last"]["reason"]
        upgrade(r)


def test_addresses_that_nobody_serves_refuse():
    """A client of one that the new master does not have is not kept waiting until the window ends; a rollback brings it back."""
    r = Server({"server": {"rollback_window": "10m"}})
    with r:
        old, moved = r.url, free_port()
        r.write_config({"server": {"bind": [f"127.0.0.1:{moved}"]}})
        upgrade(r)
        wait_for(lambda: fetch(f"{old}/livez", 2) == "ConnectionRefusedError", r.log)
        assert fetch(f"http://127.0.0.1:{moved}/livez") == 200
        assert r.cli("rollback").returncode == 0
        assert fetch(f"{old}/livez") == 200
        new = upgrade(r)
        wait_for(lambda: fetch(f"{old}/livez", 2) == "ConnectionRefusedError", r.log)
        with socket.create_server(("127.0.0.1", r.port)):  # somebody else finds it free
            done = r.cli("rollback")
            assert done.returncode == 1 and f"cannot listen on 127.0.0.1:{r.port} again: Address already in use" in done.stderr, done
        assert fetch(f"http://127.0.0.1:{moved}/livez") == 200
        os.kill(new, signal.SIGKILL)
        wait_for(lambda: fetch(f"{old}/livez") == 200, r.log)


def test_rollback_on_request():
    r = Server({"server": {"workers": 2, "rollback_window": "60s"}})
    path = r.dir / "http.sock"
    r.write_config({"server": {"bind": [f"127.0.0.1:{r.port}", f"unix:{path}"]}})
    with Manager(r) as manager, r:
        refused = r.cli("rollback")
        assert refused.returncode == 1 and "nothing to roll back" in refused.stderr
        with Load(r, f"unix:{path}") as load:
            new = upgrade(r)
            load.more(100)
            assert r.status()["phase"] == "UPGRADING"
            assert f"`ragd rollback` does so, TERM to pid {r.pid}" in r.cli("reload").stderr  # not now
            os.kill(new, signal.SIGHUP)  # but this one is kept, for whoever stays
            done = r.cli("rollback")
            assert done.returncode == 0, done.stderr + r.log()
            assert r.server() == r.pid == int(r.pidfile.read_text())
            wait_for(lambda: not alive(new), "the new master to end")
            load.more(100)
            r.wait_log("reloaded in")
        assert load.errors == 0, load
        given_back = manager.index(new, f"MAINPID={r.pid}")
        manager.index(r.pid, "READY=1\n", given_back)
        wait_for(lambda: r.status()["phase"] == "IDLE", "the end of the reload")
        assert reloads(r) == 1 and path.exists()
        upgrade(r)


def logged(r, log, word):
    """A request that bears this word is in this file, once it was answered."""
    assert r.get(f"/livez?{word}").status_code == 200
    wait_for(lambda: word in log.read_text(), r.log)
    r.hang_up()  # it is not to hold up who drains


def test_a_rotation_of_logs_reaches_both_masters():
    r = Server({"server": {"rollback_window": "60s"}})
    log, first, second = (r.dir / f"access.{end}" for end in ("log", "1", "2"))
    r.write_config({"log": {"access": str(log)}})
    with r:
        r.release('RAGD_FAULT_BOOT=delay:1500 exec -a "$0" "$RAGD" "$@"')
        r.send(signal.SIGUSR2)
        wait_for(lambda: len(r.processes()) >= 6, "the new workers to boot")
        log.rename(first)
        r.send(signal.SIGUSR1)  # to the one whose pid is in the pidfile
        r.wait_log("this is the server now")
        logged(r, log, "upgraded")
        log.rename(second)
        os.kill(r.server(), signal.SIGUSR1)
        wait_for(lambda: r.log().count("logs reopened") >= 4, r.log)
        assert r.cli("rollback").returncode == 0
        logged(r, log, "back")
        assert "back" not in second.read_text() and "upgraded" not in first.read_text()


def test_a_rollback_that_fails_changes_nothing():
    r = Server({"server": {"rollback_window": "60s", "boot_timeout": "5s"}})
    fault = r.dir / "fault"
    r.env["RAGD_FAULT_BOOT"] = f"@{fault}"
    with r:
        wait_for(lambda: ready(r) and ready(r, "ingest"), "all workers")
        r.release('RAGD_FAULT_BOOT= exec -a "$0" "$RAGD" "$@"')
        with Load(r) as load:
            new = upgrade(r)
            fault.write_text("hang")  # for those whom the old one starts again
            done = r.cli("rollback")
            assert done.returncode == 1 and "did not become ready" in done.stderr
            load.more(100)
        assert load.errors == 0, load
        assert r.server() == new == int(r.pidfile.read_text())
        assert r.status()["phase"] == "UPGRADING" and r.proc.poll() is None
        wait_for(lambda: r.workers() == [new], lambda: f"the old workers to end: {r.workers()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_in_the_window_ends_both(number):
    with Server({"server": {"rollback_window": "60s"}}) as r:
        new = upgrade(r)
        os.kill(new, number)
        assert r.wait_exit() == 0
        wait_for(lambda: not r.processes(), lambda: f"{r.processes()} to end")
        assert not r.pidfile.exists() and not r.control.exists()


def test_stopping_the_old_one_ends_the_window():
    with Server({"server": {"rollback_window": "60s"}}) as r:
        new = upgrade(r)
        os.kill(new, signal.SIGHUP)
        r.wait_log("the reload follows it")
        assert r.stop() == 0
        r.wait_log("reloaded in")
        wait_for(lambda: r.status()["phase"] == "IDLE", "the window to end")
        assert r.server() == new and r.cli("rollback").returncode == 1
        assert reloads(r) == 1


@pytest.mark.parametrize("who", ["old", "new"])
def test_a_master_that_leaves_sleeps_while_its_workers_drain(who):
    """The other one ends their conversation meanwhile, which is no reason to wake up all the time."""
    with Server({"server": {"rollback_window": "60s" if who == "new" else "0s"}}) as r:
        leaving = upgrade(r) if who == "new" else r.pid
        answers = []
        request = threading.Thread(target=lambda: answers.append(fetch(r.url + "/debug/sleep?ms=12000")))
        request.start()
        wait_for(lambda: in_flight(r) == 1, "the request")
        if who == "new":
            assert r.cli("rollback").returncode == 0
        else:
            upgrade(r)
        r.wait_log("leaving: another master is the server")
        assert sleeps(leaving)
        request.join()
        assert answers == [200]


def test_what_was_parked_before_the_upgrade_serves_after_the_rollback():
    with Server({"server": {"rollback_window": "60s"}}) as r:
        r.send(signal.SIGWINCH)
        r.wait_log("parked: all workers leave")
        upgrade(r)
        assert fetch(r.url + "/livez") == 200
        done = r.cli("rollback")
        assert done.returncode == 0, done.stderr + r.log()
        assert r.server() == r.pid and not r.status()["parked"]
        assert fetch(r.url + "/livez") == 200
