"""The control socket and `ragd status`."""

import json
import os
import signal
import socket
import stat

from ragdtest import Ragd, wait_for


def ask(r, line):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(r.control))
        s.sendall(line)
        data = b""
        while not data.endswith(b"\n"):
            chunk = s.recv(65536)
            if not chunk:
                return None
            data += chunk
        return json.loads(data)


def test_status_shows_every_worker():
    with Ragd({"server": {"workers": 2}}) as r:
        for _ in range(3):
            assert r.get("/livez").status_code == 200
        status = r.status()
        assert status["phase"] == "IDLE" and status["pid"] == r.pid and status["generation"] == 1
        assert status["listeners"] == [f"127.0.0.1:{r.port}"]
        assert status["config"] == str(r.file)
        assert sorted(w["pid"] for w in status["workers"]) == r.workers()
        assert sum(w["requests"] for w in status["workers"]) >= 3
        table = r.cli("status").stdout
        for worker in status["workers"]:
            assert str(worker["pid"]) in table and worker["state"] in table
        wait_for(lambda: all(w["rss_kb"] > 0 for w in r.status()["workers"]), "the workers to measure themselves")


def test_status_without_a_server_exits_1():
    r = Ragd()
    try:
        done = r.cli("status")
        assert done.returncode == 1
        assert str(r.control) in done.stderr
    finally:
        r.close()


def test_status_does_not_wait_for_a_master_that_is_stopped():
    with Ragd() as r:
        os.kill(r.pid, signal.SIGSTOP)
        try:
            done = r.cli("status", timeout=60)
        finally:
            os.kill(r.pid, signal.SIGCONT)
        assert done.returncode == 1 and "no answer" in done.stderr


def test_the_socket_is_the_owners_alone():
    with Ragd() as r:
        assert stat.S_IMODE(os.stat(r.control).st_mode) == 0o600
        assert r.stop() == 0
        assert not r.control.exists()


def test_garbage_is_answered_or_cut_off_and_hurts_nobody():
    with Ragd() as r:
        for line in (b"hello\n", b"{}\n", b"[]\n", b'{"cmd":7}\n', b'{"cmd":"dance"}\n', b"[" * 3000 + b"\n", b"\xff\n"):
            assert ask(r, line)["ok"] is False
        assert ask(r, b"x" * 5000) is None  # longer than a line may be
        assert ask(r, b'{"cmd":"status"}\n')["ok"] is True
        held = [socket.socket(socket.AF_UNIX) for _ in range(40)]  # more than it keeps
        try:
            for s in held:
                s.connect(str(r.control))
        finally:
            for s in held:
                s.close()
        wait_for(lambda: r.cli("status").returncode == 0, "an answer")
        assert r.get("/livez").status_code == 200


def test_several_commands_on_one_connection():
    with Ragd() as r, socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(r.control))
        s.sendall(b'{"cmd":"status"}\n{"cmd":"status"}\n')
        lines = s.makefile("rb")
        assert [json.loads(lines.readline())["ok"] for _ in range(2)] == [True, True]


def test_an_unwritable_path_is_one_warning():
    with Ragd({"server": {"control": "/nonexistent/ragd.ctl"}}) as r:
        assert r.get("/livez").status_code == 200
        assert r.log().count("no control socket") == 1


def test_the_runtime_directory_of_systemd_is_used():
    r = Ragd({"server": {"control": None}})
    r.env = {"RUNTIME_DIRECTORY": str(r.dir)}
    with r:
        assert (r.dir / "ragd.ctl").exists()
        assert r.status()["pid"] == r.pid


def test_systemd_is_told_about_start_reload_and_stop():
    r = Ragd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        manager.bind(str(r.dir / "notify"))
        r.env = {"NOTIFY_SOCKET": str(r.dir / "notify")}
        with r:
            assert manager.recv(4096).startswith(b"READY=1\n")
            assert r.cli("reload").returncode == 0
            assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).startswith(b"READY=1\n")
            r.write_config({"server": {"graceful_timeout": "soon"}})
            assert r.cli_bare("reload", "--set", f"server.control={r.control}").returncode == 1
            assert manager.recv(4096).startswith(b"RELOADING=1\n")
            assert manager.recv(4096).startswith(b"READY=1\nSTATUS=reload failed: ")
            r.write_config({"server": {"graceful_timeout": "5s"}})
            assert r.stop() == 0
            assert manager.recv(4096) == b"STOPPING=1"
