"""As PID 1, where every orphan becomes a child of the master. `also_as_pid_1` marks further tests, in the other files."""

import signal
import time

from ragdtest import children_of, report, stat_of, wait_for
from watch import Pid1, needs_namespace, zombies


@needs_namespace
def test_orphans_are_collected_and_have_no_effect():
    """A hundred strangers end, with codes that mean something when workers end with them."""
    end = "while [ ! -e end ]; do sleep 0.1; done; exit $0"
    script = f"for i in $(seq 50); do for code in 3 4; do (sh -c '{end}' $code &); done; done; exec \"$@\""
    with Pid1({"server": {"workers": 2}, "log": {"level": "debug"}}, script=script) as r:
        assert ", pid 1," in r.log()
        assert len(children_of(r.pid)) == 100 + 3
        (r.dir / "end").touch()
        wait_for(lambda: len(children_of(r.pid)) == 3, "the strangers to end")
        begin = time.monotonic()
        wait_for(lambda: not zombies(r.pid), "them to be collected")
        report("collection of 100 orphans, ms", round(1000 * (time.monotonic() - begin)))
        assert r.log().count("which is none of ours") == 100
        assert " died" not in r.log() and len(r.status()["workers"]) == 3
        assert r.get("/livez").status_code == 200
        assert r.stop() == 0


@needs_namespace
def test_a_stop_from_outside_finds_nobody_by_a_pid_of_the_inside():
    """The pidfile says 1, which is somebody else where the command runs."""
    with Pid1() as r:
        assert r.stop() == 0
        r.write_config({"server": {"pidfile": str(r.dir / "ragd.pid"), "control": "/nonexistent/ragd.ctl"}})
        r.start()
        assert (r.dir / "ragd.pid").read_text() == "1\n"
        done = r.cli("stop")
        assert done.returncode == 1 and "cannot be seen from here as pid 1" in done.stderr
        assert r.get("/livez").status_code == 200


@needs_namespace
def test_the_exit_code_is_that_of_the_namespace():
    with Pid1() as r:
        workers = r.workers()
        assert r.stop(signal.SIGQUIT) == 0
        assert [p for p in workers if stat_of(p)] == []
