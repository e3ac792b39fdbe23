"""An upgrade as PID 1: the process stays, and another image runs in it."""

import os
import signal
import time

import pytest

from load import Load
from ragdtest import report, wait_for
from upgrades import Manager, Pidfile, Server1, reloads, upgrade
from watch import needs_namespace, ready

pytestmark = needs_namespace

AS_PID_1 = 'if [ $$ != 1 ]; then exec -a "$0" "$RAGD" "$@"; fi\n'  # good at everything before that


def open_files(pid):
    """What its descriptors are, without the numbers of sockets and pipes."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return sorted(link.split(":[")[0] for link in links)


def test_as_pid_1_the_process_stays():
    with Server1({"server": {"workers": 2}}) as r:
        before = r.pid
        for count in (1, 2):
            workers = r.workers()
            image = r.release()
            with Load(r) as load, Pidfile(r) as pidfile:
                load.more(100)
                begin = time.monotonic()
                assert upgrade(r) == 1
                report("upgrade as PID 1, from the command to its verdict", f"{(time.monotonic() - begin) * 1000:.0f} ms")
                load.more(300)
            assert load.errors == 0, load
            assert pidfile.wrong == [] and pidfile.pids == {1}
            assert r.pid == before and os.readlink(f"/proc/{r.pid}/exe") == image
            wait_for(lambda: len(r.workers()) == 3 and not set(workers) & set(r.workers()), lambda: f"new workers: {r.log()}")
            status = r.status()
            assert status["generation"] == count + 1 and status["phase"] == "IDLE"
            assert status["upgrades"]["ok"] == count and status["upgrades"]["last"]["ok"]
            assert status["uptime_s"] > 0
        # What the image had of descriptors before it has now, and no more.
        names = open_files(r.pid)
        upgrade(r)
        wait_for(lambda: len(r.workers()) == 3, "the old workers to end")
        wait_for(lambda: open_files(r.pid) == names, lambda: f"{names}, not {open_files(r.pid)}")
        assert r.stop() == 0
        assert not r.control.exists() and not r.pidfile.exists()


@pytest.mark.parametrize(
    "script, reason",
    [
        ('exec -a "$0" "$RAGD" "$@" --set server.workers=some', "server.workers"),
        ('RAGD_SERVER_MIN=3 exec -a "$0" "$RAGD" "$@"', "RAGD_SERVER_MIN"),
    ],
    ids=["its options", "its environment"],
)
def test_an_image_that_cannot_go_on_gives_the_process_back(script, reason):
    r = Server1({"server": {"workers": 2}}, env={"LATIN": b"caf\xe9".decode(errors="surrogateescape")})  # no UTF-8
    with Manager(r) as manager, r:
        image = os.readlink(f"/proc/{r.pid}/exe")
        workers, good = r.workers(), r.file.read_text()
        r.release(AS_PID_1 + script)
        with Load(r) as load, Pidfile(r) as pidfile:
            done = r.cli("upgrade")
            assert done.returncode == 1 and reason in done.stderr, r.log()
            load.more(200)
        assert load.errors == 0, load
        assert pidfile.wrong == [] and pidfile.pids == {1}
        assert "the old one comes back" in r.log()
        assert os.readlink(f"/proc/{r.pid}/exe") == image
        assert sorted(ready(r) + ready(r, "ingest")) == workers == r.workers()
        manager.index(r.pid, "READY=1\nSTATUS=upgrade failed: ")
        status = r.status()
        assert status["phase"] == "IDLE" and status["generation"] == 1 and status["config"] == str(r.file)
        assert status["upgrades"]["failed"] == 1
        assert r.cli("diff").stdout == "no difference\n" and good == r.file.read_text()
        victim = ready(r)[0]
        os.kill(victim, signal.SIGKILL)  # what the old image has adopted it also watches
        wait_for(lambda: len(ready(r)) == 2 and victim not in ready(r), "another worker")
        r.release(f'env -0 >{r.dir}/environ; exec -a "$0" "$RAGD" "$@"')
        upgrade(r)
        assert b"LATIN=caf\xe9\0" in (r.dir / "environ").read_bytes()
        assert r.stop() == 0


def test_an_old_image_comes_back_with_the_settings_it_had():
    """The file was written for the new release: the old one would not understand it."""
    with Server1({"server": {"workers": 2}, "limits": {"json_depth": 17}}) as r:
        workers = r.workers()
        spoil = f"echo 'future: {{key: 1}}' >> {r.file}\n"
        r.release(AS_PID_1 + spoil + 'exec -a "$0" "$RAGD" "$@"')
        done = r.cli("upgrade")
        assert done.returncode == 1 and "future" in done.stderr, done
        assert r.workers() == workers and len(ready(r)) == 2
        victim = ready(r)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(ready(r)) == 2 and victim not in ready(r), "another worker, with the settings of the old image")
        assert r.get("/readyz").status_code == 200


def test_workers_of_the_new_image_that_do_not_boot_leave_the_old_ones():
    with Server1({"server": {"workers": 2, "boot_timeout": "20s"}}) as r:
        workers = r.workers()
        image = os.readlink(f"/proc/{r.pid}/exe")
        r.release(AS_PID_1 + 'RAGD_FAULT_BOOT=exit:3 exec -a "$0" "$RAGD" "$@"')
        with Load(r) as load:
            done = r.cli("upgrade")
            assert done.returncode == 1 and "did not become ready" in done.stderr, done
            load.more(100)
        assert load.errors == 0, load
        assert r.workers() == workers and len(ready(r)) == 2
        assert os.readlink(f"/proc/{r.pid}/exe") != image
        r.release('unset RAGD_FAULT_BOOT; exec -a "$0" "$RAGD" "$@"')
        upgrade(r)


def test_a_hook_that_still_runs_keeps_its_deadline():
    r = Server1()
    pids, script = r.dir / "pids", r.dir / "slow.sh"
    script.write_text(f"#!/bin/sh\nsleep 600 & echo $$ >{pids}; wait\n")
    script.chmod(0o755)
    r.write_config({"hooks": {"ready": str(script), "timeout": "10s"}})
    with r:
        wait_for(lambda: pids.exists() and pids.read_text(), "the hook")
        assert upgrade(r) == 1
        since = r.log().index("workers go on as generation")
        assert f"hooks.ready (pid {pids.read_text().strip()})" in r.wait_log("has not ended within hooks.timeout", since=since)
        assert "signal 9 (KILL)" in r.wait_log("hooks.ready (pid", since=r.log().index("has not ended within"))


def test_as_pid_1_no_rollback_is_promised():
    with Server1({"server": {"rollback_window": "60s"}}) as r:
        done = r.cli("upgrade")
        assert (done.returncode, done.stdout) == (0, "upgraded: the server is pid 1\n")
        done = r.cli("rollback")
        assert done.returncode == 1 and "nothing to roll back" in done.stderr


def spoil_layout(pid):
    """Makes the scoreboard that of another release."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if "ragd-scoreboard" in os.readlink(f"/proc/{pid}/fd/{fd}"):
            with open(f"/proc/{pid}/fd/{fd}", "r+b") as f:
                f.seek(16)
                f.write(b"another!")
            return
    raise AssertionError("no scoreboard")


def test_a_release_with_another_scoreboard_begins_a_fresh_one():
    with Server1({"server": {"workers": 2, "watchdog_timeout": "4s"}}) as r:
        spoil_layout(r.pid)
        r.release(AS_PID_1 + 'RAGD_FAULT_BOOT=delay:6000 exec -a "$0" "$RAGD" "$@"')
        with Load(r) as load:
            assert upgrade(r) == 1
            load.more(100)
        assert load.errors == 0, load
        assert "counters begin anew" in r.log() and "hangs" not in r.log()
        wait_for(lambda: len(r.workers()) == 3, "the old workers to end")
        assert len(ready(r)) == 2


def test_as_pid_1_a_reload_that_came_meanwhile_follows():
    with Server1() as r:
        r.release('RAGD_FAULT_BOOT=delay:500 exec -a "$0" "$RAGD" "$@"')
        r.send(signal.SIGUSR2)
        r.wait_log("tries the new binary")
        r.send(signal.SIGHUP)
        r.send(signal.SIGUSR2)
        r.wait_log("this one is ignored")
        r.wait_log("in this process")
        wait_for(lambda: reloads(r) == 2 and r.status()["phase"] == "IDLE", r.log)
        assert r.log().count("tries the new binary") == 1 and r.status()["upgrades"]["ok"] == 1


def test_as_pid_1_a_stop_during_the_trial_ends_all():
    with Server1() as r:
        r.release('RAGD_FAULT_BOOT=hang exec -a "$0" "$RAGD" "$@"')
        r.send(signal.SIGUSR2)
        r.wait_log("tries the new binary")
        assert r.stop() == 0
        assert not r.pidfile.exists() and not r.control.exists()
