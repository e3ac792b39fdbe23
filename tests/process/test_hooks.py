"""Hooks: programs that the master runs when something happens."""

import os
import pathlib
import pwd
import signal

import pytest

from ragdtest import BIN, Ragd, alive, fetch, wait_for

CONFIG = 78
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def ragd():
    """A server that is configured and not started."""
    r = Ragd({})
    yield r
    r.close()


def hook(ragd, name, body):
    """An executable shell script."""
    path = ragd.dir / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def telling(ragd, name):
    """A hook that writes its environment into a file, one for each run, and the glob of these files."""
    return hook(ragd, name, f"env >{ragd.dir}/{name}.$$.new && mv {ragd.dir}/{name}.$$.new {ragd.dir}/{name}.$$.env"), f"{name}.*.env"


def told(ragd, glob, count=1):
    """The environments that were written, once there are so many."""
    paths = wait_for(lambda: len(p := list(ragd.dir.glob(glob))) >= count and p, lambda: f"{count} of {glob}:\n{ragd.log()}")
    return [dict(line.split("=", 1) for line in p.read_text().splitlines()) for p in sorted(paths, key=lambda p: p.stat().st_mtime)]


def test_ready_gets_an_environment_of_its_own(ragd):
    script, files = telling(ragd, "ready")
    ragd.env = {"DATABASE_URL": f"sqlite:{ragd.dir}/ragd.db", "RAGD_LOG_LEVEL": "debug", "SECRET": "x", "TZ": "UTC"}
    ragd.write_config({"hooks": {"ready": script}, "database": {"url": None}})
    ragd.start()
    (env,) = told(ragd, files)
    assert env["RAGD_EVENT"] == "ready" and env["RAGD_REASON"] == "started"
    assert env["RAGD_PID"] == str(ragd.pid) and env["RAGD_GENERATION"] == "1"
    assert env["TZ"] == "UTC" and env["PATH"] == os.environ["PATH"]
    assert not {"DATABASE_URL", "RAGD_LOG_LEVEL", "SECRET", "RAGD_WORKER_PID"} & set(env)


def test_a_hook_is_free_of_the_master(ragd):
    """Its own process group, no descriptor and no signal setting of the master; what it prints is in the log."""
    out = ragd.dir / "out"
    script = hook(ragd, "look", f"""
        fds=$(ls -l /proc/$$/fd)
        echo "$fds" >{out}.new
        while read -r line; do echo "$line"; done </proc/$$/status >>{out}.new # a shell that forks blocks signals
        echo group $(ps -o pgid= -p $$) of $$ >>{out}.new
        cat >>{out}.new
        echo 'printed by the hook'
        mv {out}.new {out}""")  # fmt: skip
    ragd.write_config({"hooks": {"ready": script}})
    ragd.start()
    wait_for(out.exists, "the output")
    text = out.read_text()
    links = {line.split()[-3]: line.split()[-1] for line in text.splitlines() if " -> " in line}
    assert links.pop("0") == "/dev/null"
    assert links.pop("1") == links.pop("2") == str(ragd.log_file)
    own = [n for n, target in links.items() if target == script or target.startswith("pipe:")]  # the shell's
    assert set(links) == set(own), links
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~(1 << 31 | 1 << 32) == 0
    group = text.split("group ")[1].split()
    assert group[0] == group[2]
    ragd.wait_log("printed by the hook")


def test_deaths_are_told(ragd):
    script, files = telling(ragd, "died")
    ragd.write_config({"server": {"workers": 2}, "hooks": {"worker_died": script}})
    ragd.start()
    victim = next(w for w in ragd.status()["workers"] if w["role"] == "http")
    os.kill(victim["pid"], signal.SIGKILL)
    (env,) = told(ragd, files)
    assert env["RAGD_EVENT"] == "worker_died" and env["RAGD_REASON"] == "signal 9 (KILL)"
    assert env["RAGD_WORKER_PID"] == str(victim["pid"]) and env["RAGD_WORKER_SLOT"] == str(victim["slot"])
    assert env["RAGD_ROLE"] == "http" and env["RAGD_REQUESTS"] == "0"
    ragd.wait_ready()
    before = len(ragd.log())
    ragd.stop()
    assert "hooks." not in ragd.log()[before:]  # whoever was asked to end did not die
    assert len(list(ragd.dir.glob(files))) == 1


def test_hangs_are_told_once(ragd):
    died, died_files = telling(ragd, "died")
    hung, hung_files = telling(ragd, "hung")
    ragd.write_config({"server": {"watchdog_timeout": "4s"}, "hooks": {"worker_died": died, "worker_hung": hung}})
    ragd.start()
    fetch(f"{ragd.url}/debug/spin?ms=60000")
    (env,) = told(ragd, hung_files)
    assert env["RAGD_EVENT"] == "worker_hung" and "has not turned" in env["RAGD_REASON"]
    assert env["RAGD_REQUESTS"] == "1"
    ragd.wait_log("already replaced")
    assert not list(ragd.dir.glob(died_files))


def test_a_failed_reload_is_told_and_hooks_are_changed_without_new_workers(ragd):
    ragd.start()
    workers = ragd.workers()
    script, files = telling(ragd, "reload")
    ragd.write_config({"hooks": {"reload_failed": script}})
    assert ragd.cli("reload").returncode == 0
    assert ragd.workers() == workers
    ragd.write_config({"server": {"umask": "027"}})
    assert ragd.cli("reload").returncode == 1
    (env,) = told(ragd, files)
    assert env["RAGD_EVENT"] == "reload_failed"
    assert "server.umask cannot be changed by a reload" in env["RAGD_REASON"]


def test_each_master_of_an_upgrade_is_ready_once(ragd):
    script, files = telling(ragd, "ready")
    ragd.write_config({"hooks": {"ready": script}})
    ragd.start()
    told(ragd, files)
    done = ragd.cli("upgrade")
    assert done.returncode == 0, done.stderr + ragd.log()
    new = ragd.status()["pid"]
    assert [env["RAGD_PID"] for env in told(ragd, files, 2)] == [str(ragd.pid), str(new)]


def test_a_hook_can_ask_the_server(ragd):
    """What it is told stands in variables that begin with RAGD_: the command must not take them for settings."""
    out = ragd.dir / "out"
    ragd.write_config({"hooks": {"ready": hook(ragd, "ask", f"{BIN} status --json -c {ragd.file} >{out}.new && mv {out}.new {out}")}})
    ragd.start()
    wait_for(out.exists, ragd.log)
    assert f'"pid":{ragd.pid}' in out.read_text().replace(" ", "")


def test_one_that_takes_too_long_is_killed_with_all_that_it_started(ragd):
    pids = ragd.dir / "pids"
    script = hook(ragd, "slow", f"sleep 600 & echo $$ $! >{pids}.new; mv {pids}.new {pids}; wait")
    ragd.write_config({"hooks": {"ready": script, "timeout": "3s"}})
    ragd.start()
    wait_for(pids.exists, "the pids")
    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()), "both to be killed")
    assert "has not ended within hooks.timeout" in ragd.log()
    assert "signal 9 (KILL)" in ragd.wait_log("ended: ")


def test_at_most_four_run_and_the_rest_is_counted(ragd):
    pids = ragd.dir / "pids"
    ragd.write_config({
        "server": {"workers": 6},
        "hooks": {"worker_died": hook(ragd, "died", f"echo $$ >>{pids}; exec sleep 600"), "timeout": "10m"},
    })  # fmt: skip
    ragd.start()
    wait_for(lambda: sum(w["state"] == "READY" for w in ragd.status()["workers"]) == 7, "all to be ready")
    for pid in ragd.workers():
        os.kill(pid, signal.SIGKILL)
    ragd.wait_log("hooks.worker_died is not run: 4 hooks are running; 3 were left out so far")
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 4, "four pids")
    ragd.wait_ready()
    running = [int(pid) for pid in pids.read_text().split()]
    assert all(alive(pid) for pid in running)
    ragd.stop()
    wait_for(lambda: not any(alive(pid) for pid in running), "them to end with the server")


def test_hooks_end_with_a_master_that_was_killed(ragd):
    pids = ragd.dir / "pids"
    ragd.write_config({"hooks": {"ready": hook(ragd, "slow", f"echo $$ >{pids}; exec sleep 600")}})
    ragd.start()
    pid = int(wait_for(lambda: pids.exists() and pids.read_text(), "the pid"))
    os.kill(ragd.pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid), "the hook to end")


@pytest.mark.parametrize("what", ["missing", "not executable", "a folder", "relative"])
def test_what_cannot_be_run_is_refused(ragd, what):
    path = ragd.dir / "hook"
    if what == "not executable":
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
    elif what == "a folder":
        path.mkdir()
    ragd.start()
    ragd.write_config({"hooks": {"ready": "hook" if what == "relative" else str(path)}})
    done = ragd.cli("reload")
    assert done.returncode == 1 and "hooks.ready: " in done.stderr
    ragd.stop()
    assert ragd.spawn().wait_exit() == CONFIG


def test_a_hook_that_cannot_start_is_reported(ragd):
    """An interpreter that is not there is seen only by the attempt."""
    path = pathlib.Path(hook(ragd, "bad", ""))
    path.write_text("#!/no/such/shell\n")
    ragd.write_config({"hooks": {"ready": str(path)}})
    ragd.start()
    ragd.wait_log(f"cannot run {path}: No such file")
    ragd.wait_log("ended: exit 127")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_hooks_are_the_user_of_the_workers(ragd):
    out = ragd.dir / "out"
    os.chown(ragd.dir, NOBODY.pw_uid, NOBODY.pw_gid)
    ragd.write_config({
        "server": {"user": "nobody"},
        "hooks": {"ready": hook(ragd, "who", f"cat /proc/self/status >{out}.new; mv {out}.new {out}")},
    })  # fmt: skip
    ragd.start()
    wait_for(out.exists, ragd.log)
    status = dict(line.split(":\t") for line in out.read_text().splitlines())
    assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4
    assert status["NoNewPrivs"] == "0" and int(status["CapPrm"], 16) == 0
