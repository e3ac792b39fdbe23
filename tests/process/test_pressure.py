"""Want of memory: requests are refused while it lasts, and the server says that it is not ready.

The kernel's file is replaced by one of the test's."""

import ctypes
import os
import struct

import pytest

from ragdtest import Ragd, wait_for

IN_CLOSE_NOWRITE, IN_ONESHOT = 0x10, 0x80000000


@pytest.fixture
def ragd():
    """A running server that believes what set_pressure() writes."""
    r = Ragd({"server": {"workers": 2, "memory_pressure": 30}})
    r.env = {"RAGD_FAULT_PRESSURE": str(r.dir / "psi")}
    set_pressure(r, 0)
    try:
        yield r.start()
    finally:
        r.close()


def set_pressure(r, full, some=100):
    """As the kernel writes it: everybody stood still for `full` percent of 10 s, somebody for `some`."""
    new = r.dir / "psi.new"
    new.write_text("".join(f"{kind} avg10={share:.2f} avg60=0.00 avg300=0.00 total=1\n" for kind, share in (("some", some), ("full", full))))
    os.replace(new, r.dir / "psi")


def metric(r, name):
    lines = [line for line in r.get("/metrics").text.splitlines() if line.startswith(f"ragd_{name} ")]
    return float(lines[0].split()[1])


def works(r):
    return r.get("/api/v1/collections").status_code


def test_a_reload_is_no_request(ragd):
    """It may be the one that makes room."""
    set_pressure(ragd, 90)
    ragd.wait_log("short of memory: nobody could run for 90%")
    ragd.write_config({"server": {"workers": 1, "limit_core": "none"}})
    assert ragd.cli("reload").returncode == 0
    wait_for(lambda: len(ragd.workers()) == 2, "the others to leave")
    assert ragd.get("/readyz").json() == {"status": "not_ready", "reason": "short of memory"}
    set_pressure(ragd, 0)
    wait_for(lambda: ragd.get("/readyz").status_code == 200, "the end of it")


def test_requests_are_refused_until_it_is_over(ragd):
    assert works(ragd) == 200
    set_pressure(ragd, 29.99)
    ragd_looks(ragd)
    assert works(ragd) == 200
    set_pressure(ragd, 30)
    ragd.wait_log("short of memory: nobody could run for 30% of the last 10 s (server.memory_pressure is 30)")
    for _ in range(4):
        answer = ragd.get("/api/v1/collections")
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert answer.json()["code"] == "overloaded" and "short of memory" in answer.json()["detail"]
    ready = ragd.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"status": "not_ready", "reason": "short of memory"}
    assert ragd.get("/livez").status_code == 200
    assert metric(ragd, "shedding") == 1 and metric(ragd, "sheddings_total") == 1
    assert metric(ragd, "requests_shed_total") == 4
    assert ragd.log().lower().count("short of memory") == 1  # one line for the change, none for each request

    # It lasts until half of the limit is reached.
    set_pressure(ragd, 15)
    ragd_looks(ragd)
    assert works(ragd) == 503
    set_pressure(ragd, 14)
    ragd.wait_log("the want of memory is over")
    assert works(ragd) == 200 and ragd.get("/readyz").status_code == 200
    assert metric(ragd, "shedding") == 0 and metric(ragd, "sheddings_total") == 1


def ragd_looks(r):
    """Returns when the master has read the file, and has decided: it has read it again."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0
    try:
        assert libc.inotify_add_watch(fd, os.fsencode(r.dir / "psi"), ctypes.c_uint32(IN_CLOSE_NOWRITE | IN_ONESHOT)) >= 0
        read_event(fd)
        assert libc.inotify_add_watch(fd, os.fsencode(r.dir / "psi"), ctypes.c_uint32(IN_CLOSE_NOWRITE | IN_ONESHOT)) >= 0
        read_event(fd)
    finally:
        os.close(fd)


def read_event(fd):
    def closed():
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return False
        return any(mask & IN_CLOSE_NOWRITE for _, mask, _, _ in struct.iter_unpack("iIII", data))

    wait_for(closed, "the master to look")


def test_a_reload_changes_the_limit_for_running_workers(ragd):
    workers = ragd.workers()
    set_pressure(ragd, 50)
    ragd.wait_log("short of memory")
    ragd.write_config({"server": {"memory_pressure": 0}})
    assert ragd.cli("reload").returncode == 0
    ragd.wait_log("the want of memory is over")
    assert works(ragd) == 200
    assert ragd.workers() == workers


def test_a_kernel_that_does_not_tell(ragd):
    """No file, no protection: it is said once, and a state that was on does not stay on."""
    set_pressure(ragd, 50)
    ragd.wait_log("short of memory")
    (ragd.dir / "psi").unlink()
    ragd.wait_log("server.memory_pressure has no effect")
    ragd.wait_log("the want of memory is over")
    assert works(ragd) == 200


def test_the_fault_needs_faults():
    """The first tick of the master looks already, so that a server that is READY has been told."""
    r = Ragd({"debug": {"faults": False}, "server": {"memory_pressure": 30}})
    r.env = {"RAGD_FAULT_PRESSURE": str(r.dir / "psi")}
    try:
        set_pressure(r, 100)
        r.start()
        assert works(r) == 200 and "short of memory" not in r.log()
        r.stop()
        r.write_config({"debug": {"faults": True}})
        r.start("/livez")
        assert works(r) == 503
    finally:
        r.close()
