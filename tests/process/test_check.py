"""`ragd check`: what a start would do, tried without leaving a trace."""

import os
import re
import signal
import socket

import pytest

from ragdtest import Ragd, free_port
from systemd import activate, listening

CONFIG, BIND = 78, 5


@pytest.fixture
def ragd():
    """A server that is configured, not started, and gives no reason for a warning."""
    r = Ragd({"debug": {"faults": False}, "ingest": {"workers": 1}})
    if os.geteuid() == 0:
        r.write_config({"server": {"user": "nobody"}})
    yield r
    r.close()


def files(ragd):
    return sorted(p.name for p in ragd.dir.iterdir())


def problems(done):
    return done.stderr.splitlines()


def test_a_good_configuration_leaves_no_trace(ragd):
    ragd.write_config({
        "server": {"bind": [f"127.0.0.1:{ragd.port}", f":{free_port()}", f"unix:{ragd.dir}/http.sock"], "pidfile": f"{ragd.dir}/pid"},
        "log": {"access": f"{ragd.dir}/access.log"},
    })  # fmt: skip
    before = files(ragd)
    done = ragd.cli("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the configuration is good\n")
    assert files(ragd) == before


def test_every_problem_is_one_line(ragd):
    no_program = ragd.dir / "hook"
    no_program.write_text("")
    ragd.write_config({
        "server": {"user": "nemo-x", "chroot": "/nowhere", "bind": ["192.0.2.1:80", f"unix:{ragd.dir}/none/http.sock"]},
        "log": {"access": f"{ragd.dir}/none/access.log"},
        "hooks": {"ready": str(no_program), "worker_died": "/nowhere/hook"},
        "database": {"url": "postgresql://user@host:port/name"},
    })  # fmt: skip
    done = ragd.cli("check")
    assert done.returncode == CONFIG and done.stdout == ""
    lines = problems(done)
    for what in (
        "server.user: there is no user 'nemo-x'",
        "server.chroot: ",
        f"hooks.ready: {no_program} is not an executable file",
        "hooks.worker_died: /nowhere/hook: No such file",
        "log.access: cannot make ",
        "server.bind: cannot listen on 192.0.2.1:80: this machine has no such address",
        f"server.bind: cannot listen on unix:{ragd.dir}/none/http.sock: No such file",
        "database.url: ",
    ):
        assert sum(what in line for line in lines) == 1, (what, lines)
    assert len(lines) == 8
    assert all(re.match(rf"ragd: {ragd.file}:\d+:\d+: ", line) for line in lines), lines


def test_addresses_of_somebody_else_exit_5_and_name_him(ragd):
    path = ragd.dir / "http.sock"
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}"]}})
    with socket.create_server(("127.0.0.1", ragd.port)), socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        done = ragd.cli("check")
        assert done.returncode == BIND
        assert len(problems(done)) == 2
        for address, line in zip((f"127.0.0.1:{ragd.port}", f"unix:{path}"), problems(done), strict=True):
            assert f"cannot listen on {address}: " in line and f"in use by pid {os.getpid()} (" in line
        assert path.exists()


def test_a_file_in_the_place_of_a_socket(ragd):
    path = ragd.dir / "http.sock"
    path.write_text("precious")
    ragd.write_config({"server": {"bind": [f"unix:{path}"]}})
    done = ragd.cli("check")
    assert done.returncode == BIND and "is not a socket" in done.stderr
    assert path.read_text() == "precious"


@pytest.mark.parametrize("known_by", ["pidfile", "control"])
def test_the_addresses_of_the_running_instance_are_free(ragd, known_by):
    more, path = free_port(), ragd.dir / "http.sock"
    if known_by == "pidfile":
        ragd.write_config({"server": {"pidfile": str(ragd.dir / "pid"), "control": None}})
    if os.geteuid() == 0:
        os.chmod(ragd.dir, 0o777)
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}"]}})
    ragd.start()
    done = ragd.cli("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert ragd.get("/livez").status_code == 200 and path.exists()
    # What it does not hold must be free.
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}", f"127.0.0.1:{more}"]}})
    assert ragd.cli("check").returncode == 0
    with socket.create_server(("127.0.0.1", more)):
        done = ragd.cli("check")
        assert done.returncode == BIND and len(problems(done)) == 1
        assert f"127.0.0.1:{more}" in done.stderr and f"pid {os.getpid()}" in done.stderr


def test_of_another_instance_they_are_not(ragd):
    other = Ragd({"server": {"bind": [f"127.0.0.1:{ragd.port}"], "pidfile": None}})
    other.port = ragd.port
    with other:
        done = ragd.cli("check")
        assert done.returncode == BIND and f"in use by pid {other.pid} (" in done.stderr


def test_it_does_not_disturb_a_server(ragd):
    """Nothing that it binds accepts a connection, and what waits in a queue stays there."""
    if os.geteuid() == 0:
        os.chmod(ragd.dir, 0o777)
    ragd.start()
    os.kill(ragd.pid, signal.SIGSTOP)
    for pid in ragd.workers():
        os.kill(pid, signal.SIGSTOP)
    try:
        with ragd.connect() as waiting:
            waiting.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert ragd.cli("check").returncode == 0
            for pid in [ragd.pid, *ragd.workers()]:
                os.kill(pid, signal.SIGCONT)
            assert waiting.recv(12) == b"HTTP/1.1 200"
    finally:
        for pid in [ragd.pid, *ragd.workers()]:
            os.kill(pid, signal.SIGCONT)


def test_the_instance_is_known_to_whom_its_master_starts(ragd):
    """Neither pidfile nor control socket: the check before an upgrade is told who runs, in RAGD_PID."""
    ragd.write_config({"server": {"control": None}})
    if os.geteuid() == 0:
        os.chmod(ragd.dir, 0o777)
    ragd.start()
    assert ragd.cli("check").returncode == BIND
    ragd.env = {"RAGD_PID": str(ragd.pid)}
    assert ragd.cli("check").returncode == 0
    ragd.env = {"RAGD_PID": str(os.getpid())}
    assert ragd.cli("check").returncode == BIND


def test_a_default_that_an_activated_server_does_not_use(ragd):
    """It runs, and not at its default: what it was given takes that place."""
    if os.geteuid() == 0:
        os.chmod(ragd.dir, 0o777)
    ragd.write_config({"server": {"bind": None}})
    with listening(ragd.port) as tcp:
        activate(ragd, {"web": tcp})
        ragd.start()
        ragd.env = {}
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                other.bind(("127.0.0.1", 8000))
            except OSError:
                pass  # taken by somebody else: as good
            else:
                other.listen()
            assert ragd.cli("check").returncode == 0
