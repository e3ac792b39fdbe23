"""The control socket and `ragd status`."""

import contextlib
import json
import os
import signal
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor

from ragdtest import Ragd, fetch, wait_for
from watch import cpu_seconds, descriptors, hup, needs_mounts, no_new_descriptors, threads


def ask(r, line):
    """The answer to one line; None when the connection is cut instead."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(str(r.control))
        data = b""
        try:
            s.sendall(line)
            while not data.endswith(b"\n"):
                chunk = s.recv(65536)
                if not chunk:
                    return None
                data += chunk
        except ConnectionError:
            return None
        return json.loads(data)


def test_status_shows_every_worker():
    with Ragd({"server": {"workers": 2}}) as r:
        for _ in range(3):
            assert r.get("/livez").status_code == 200
        wait_for(lambda: {w["state"] for w in r.status()["workers"]} == {"READY"}, "all workers")
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
        for line in (b"hello\n", b"{}\n", b"[]\n", b'{"cmd":7}\n', b'{"cmd":"dance"}\n', b"[" * 3000 + b"\n", b"\xff\n", b"\n",
                     b'{"cmd":"status\\u0000"}\n', b'{"cmd":"scale","to":"many"}\n', b'{"cmd":null}\n'):  # fmt: skip
            assert ask(r, line)["ok"] is False
        assert ask(r, b"x" * 5000) is None  # longer than a line may be
        assert ask(r, b"x" * 1000000) is None
        assert ask(r, b'{"cmd":"status"}\n')["ok"] is True
        assert r.get("/livez").status_code == 200


def test_a_line_may_come_in_pieces():
    with Ragd() as r, socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(str(r.control))
        for byte in b'{"cmd":"sta':
            s.sendall(bytes([byte]))
        assert ask(r, b'{"cmd":"status"}\n')["ok"] is True  # nobody waits for the rest of it
        s.sendall(b'tus"}\n')
        assert json.loads(s.makefile("rb").readline())["pid"] == r.pid


def test_many_connections_and_those_who_leave_early():
    with Ragd() as r:
        before = descriptors(r.pid)
        held = [socket.socket(socket.AF_UNIX) for _ in range(100)]  # more than it keeps
        try:
            for i, s in enumerate(held):
                s.setblocking(False)
                try:
                    s.connect(str(r.control))
                    s.send([b"", b'{"cmd":"re', b'{"cmd":"reload"}\n', b'{"cmd":"fibers"}\n', b'{"cmd":"status"}\n' * 50][i % 5])
                except OSError:
                    pass  # its queue is full, or this one was sent away
        finally:
            for s in held:
                s.close()
        wait_for(lambda: r.cli("status").returncode == 0, "an answer")
        wait_for(lambda: r.status()["phase"] == "IDLE", r.log)
        no_new_descriptors(r.pid, before)
        assert r.get("/livez").status_code == 200


def test_one_client_too_many_is_told_so():
    """Also `ragd stop`, which would else take the end of its connection for the end of the server."""
    with Ragd() as r, contextlib.ExitStack() as held:
        for _ in range(32):
            held.enter_context(socket.socket(socket.AF_UNIX)).connect(str(r.control))
        for command in ("status", "stop"):
            done = r.cli(command)
            assert done.returncode == 1 and "too many commands wait" in done.stderr, done
        held.close()
        wait_for(lambda: r.cli("status").returncode == 0, "an answer")
        assert r.cli("stop").returncode == 0 and r.wait_exit() == 0


def test_a_stop_that_was_not_answered_is_no_stop():
    """Whoever listens there cuts the connection and goes on: as a server that becomes another image as PID 1."""
    r = Ragd()
    with socket.socket(socket.AF_UNIX) as s, ThreadPoolExecutor(1) as pool:
        s.bind(str(r.control))
        s.listen()
        stop = pool.submit(r.cli, "stop")
        s.accept()[0].close()
        assert stop.result().returncode == 1 and "gave no answer" in stop.result().stderr
    r.close()


def test_clients_that_no_descriptor_is_left_for_cost_nothing():
    r = Ragd()
    r.prefix = ["prlimit", "--nofile=22:22"]
    with r, contextlib.ExitStack() as held:
        for _ in range(22 - descriptors(r.pid) + 4):
            s = held.enter_context(socket.socket(socket.AF_UNIX))
            s.connect(str(r.control))
        wait_for(lambda: descriptors(r.pid) == 22, "all descriptors to be taken")
        before = cpu_seconds(r.pid)
        time.sleep(2)  # nothing happens meanwhile: that is the point
        assert cpu_seconds(r.pid) - before < 0.2
        held.close()
        wait_for(lambda: r.cli("status").returncode == 0, "an answer")


def test_a_reader_that_reads_nothing_holds_up_nobody():
    with Ragd() as r, socket.socket(socket.AF_UNIX) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(str(r.control))
        for _ in range(200):
            s.sendall(b'{"cmd":"status"}\n')
            assert ask(r, b'{"cmd":"status"}\n')["ok"] is True
        # What has been asked is answered one by one, as it is read.
        lines = s.makefile("rb")
        assert all(json.loads(lines.readline())["ok"] for _ in range(200))


def test_whoever_leaves_while_he_waits_leaves_nothing_behind():
    r = Ragd({"server": {"workers": 2}}, env={"RAGD_FAULT_BOOT": "delay:1000"})
    with r:
        for command in (b'{"cmd":"reload"}\n', b'{"cmd":"fibers"}\n', b'{"cmd":"reopen"}\n'):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(r.control))
                s.sendall(command)
                wait_for(lambda: command != b'{"cmd":"reload"}\n' or r.status()["phase"] == "RELOADING", r.log)
        wait_for(lambda: r.status()["phase"] == "IDLE", r.log)
        assert r.status()["generation"] == 2 and r.cli("reload").returncode == 0


def test_reloads_through_the_socket_leak_nothing():
    with Ragd({"log": {"level": "warn"}}) as r:
        before = descriptors(r.pid)
        for i in range(12):
            assert r.cli("reload").stdout == f"reloaded: generation {i + 2}\n"
        no_new_descriptors(r.pid, before)
        assert threads(r.pid) == 1


def test_a_command_at_the_wrong_time_says_so():
    with Ragd(env={"RAGD_FAULT_BOOT": "delay:1500"}) as r, socket.socket(socket.AF_UNIX) as s:
        s.connect(str(r.control))
        s.sendall(b'{"cmd":"reload"}\n')
        wait_for(lambda: r.status()["phase"] == "RELOADING", r.log)
        done = r.cli("scale", "2")
        assert done.returncode == 1 and done.stderr == "ragd: scale: a reload is under way: try again when it has ended\n"


def test_several_commands_on_one_connection():
    with Ragd() as r, socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(r.control))
        s.sendall(b'{"cmd":"status"}\n{"cmd":"status"}\n')
        lines = s.makefile("rb")
        assert [json.loads(lines.readline())["ok"] for _ in range(2)] == [True, True]


def test_a_command_waits_for_the_outcome_of_the_one_before():
    with Ragd() as r, socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(str(r.control))
        s.sendall(b'{"cmd":"reload"}\n{"cmd":"status"}\n')
        lines = s.makefile("rb")
        assert json.loads(lines.readline()) == {"ok": True, "generation": 2}
        assert json.loads(lines.readline())["generation"] == 2


def test_an_unknown_command_is_told_which_there_are():
    with Ragd() as r:
        error = ask(r, b'{"cmd":"dance"}\n')["error"]
        assert "dance" in error and "status" in error and "reload" in error and "stop" in error


def workers_of(r, role):
    return [w for w in r.status()["workers"] if w["role"] == role and w["state"] == "READY"]


def test_scale_sets_the_number_of_workers():
    with Ragd({"server": {"max_workers": 4}}) as r:
        done = r.cli("scale", "3")
        assert done.returncode == 0 and done.stdout.startswith("3 http workers"), done.stderr
        wait_for(lambda: len(workers_of(r, "http")) == 3, r.log)
        assert r.cli("scale", "-1").returncode == 0
        wait_for(lambda: len(workers_of(r, "http")) == 2, r.log)
        assert r.cli("scale", "--role", "ingest", "+1").returncode == 0
        wait_for(lambda: len(workers_of(r, "ingest")) == 2, r.log)
        assert r.cli("reload").returncode == 0
        wait_for(lambda: len(workers_of(r, "http")) == len(workers_of(r, "ingest")) == 1, r.log)


def test_scale_refuses_what_cannot_be():
    with Ragd({"server": {"max_workers": 4}}, args=["--role", "http"]) as r:
        before = r.workers()
        for words, said in [
            (["5"], "1 to 4"), (["0"], "1 to 4"), (["-1"], "1 to 4"), (["--role", "ingest", "1"], "--role"),
            (["--role", "cook", "1"], "http or ingest"),
        ]:  # fmt: skip
            done = r.cli("scale", *words)
            assert done.returncode == 1 and said in done.stderr, done.stderr
        for words in [[], ["many"], ["1", "2"], ["++1"], ["1.5"]]:
            done = r.cli("scale", *words)
            assert done.returncode == 2 and "--help" in done.stderr, done.stderr
        for line in (b'{"cmd":"scale"}\n', b'{"cmd":"scale","to":1,"by":1}\n', b'{"cmd":"scale","by":9223372036854775807}\n'):
            assert ask(r, line)["ok"] is False
        assert r.status()["target"] == {"http": 1, "ingest": 0} and r.workers() == before


def test_reopen_returns_when_every_worker_writes_to_the_new_file():
    with Ragd({"server": {"workers": 2}, "log": {"access": "access.log"}}) as r:
        old, new = r.dir / "access.log.1", r.dir / "access.log"
        new.rename(old)
        assert r.cli("reopen").returncode == 0
        size = old.stat().st_size
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: fetch(f"{r.url}/livez"), range(40))) == {200}
        wait_for(lambda: new.read_text().count("GET /livez") == 40, r.log)
        assert old.stat().st_size == size


def test_reopen_tells_why_the_logs_stay():
    r = Ragd({"log": {"access": "logs/access.log"}})
    (r.dir / "logs").mkdir()
    with r:
        (r.dir / "logs").rename(r.dir / "old")
        done = r.cli("reopen")
        assert done.returncode == 1 and "logs/access.log" in done.stderr and "stay as they are" in done.stderr
        assert r.get("/livez").status_code == 200
        wait_for(lambda: "GET /livez" in (r.dir / "old/access.log").read_text(), "the old file to be written to")


def test_diff_says_what_a_reload_would_do():
    with Ragd({"database": {"url": None}}, env={"DATABASE_URL": ""}) as r:
        assert r.cli("diff").stdout == "no difference\n"
        r.write_config({"server": {"workers": 2, "max_workers": 9}, "ingest": {"lease": "16s"},
                        "log": {"level": "debug"}, "database": {"url": "postgresql://me:letmein@db/rag"}})  # fmt: skip
        done = r.cli("diff")
        assert done.stdout.splitlines() == [
            "server.workers: 1 -> 2 (pushed to the workers)",
            "server.max_workers: 64 -> 9 (needs an upgrade or a restart)",
            "database.url: sqlite:data/ragd.db -> postgresql://me:***@db/rag (new workers)",
            "ingest.lease: 15s -> 16s (new workers)",
            "log.level: info -> debug (pushed to the workers)",
        ], done.stdout
        assert [c["key"] for c in json.loads(r.cli("diff", "--json").stdout)][0] == "server.workers"
        assert r.status()["generation"] == 1


def test_a_broken_file_is_told_and_the_server_found_all_the_same():
    with Ragd() as r:
        workers = r.workers()
        good = r.file.read_text()
        r.file.write_text(good + "http:\n  header_timeout: soon\n")
        line = len(good.splitlines()) + 2
        for command in ("status", "scale", "diff", "reload"):
            done = r.cli(command, *(["1"] if command == "scale" else []))
            assert f"warning: {r.file}:{line}:19: " in done.stderr
            assert done.returncode == (0 if command in ("status", "scale") else 1), done.stderr
            assert (f"would fail: {r.file}:{line}:19: " in done.stderr) == (command == "diff")
            assert (f"everything stays as it was: configuration: {r.file}:{line}:19: " in done.stderr) == (command == "reload")
        assert r.workers() == workers
        r.file.write_text(good.replace("server:\n", "server:\n  wurkers: 3\n") + "log: [\n")
        assert r.cli("status").returncode == 0
        assert f"{r.file}:" in r.cli("reload").stderr and r.workers() == workers
        r.file.write_text("server: {\n")  # nothing can be read of this one
        done = r.cli("status")
        assert done.returncode == 1 and "--set server.control=PATH" in done.stderr
        assert r.cli("status", "--set", f"server.control={r.control}").returncode == 0
        assert r.cli("stop", "--set", f"server.control={r.control}").returncode == 0
        assert r.wait_exit() == 0


def test_an_unwritable_path_is_one_warning():
    with Ragd({"server": {"control": "/nonexistent/ragd.ctl"}}) as r:
        assert r.get("/livez").status_code == 200
        assert r.log().count("no control socket") == 1


@needs_mounts
def test_a_read_only_root_is_one_warning():
    """As in a container that is hardened: only the data's directory can be written to."""
    r = Ragd({"database": {"url": "sqlite:/mnt/ragd.db"}})
    script = f'for d in / {r.dir}; do mount --bind $d $d; mount -o remount,bind,ro $d; done; mount -t tmpfs none /mnt; exec "$@"'
    r.prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
    with r:
        assert r.get("/livez").status_code == 200
        assert r.log().count("no control socket") == 1
        assert "reloaded" in hup(r)
        assert r.stop() == 0


def test_the_runtime_directory_of_systemd_is_used():
    r = Ragd({"server": {"control": None}})
    r.env = {"RUNTIME_DIRECTORY": str(r.dir)}
    with r:
        assert (r.dir / "ragd.ctl").exists()
        assert r.status()["pid"] == r.pid


def test_a_reload_makes_the_socket_again():
    with Ragd() as r:
        before = descriptors(r.pid)
        r.control.unlink()
        assert "No such file" in r.cli("status").stderr
        hup(r)
        assert r.cli("status").returncode == 0
        # Where somebody else listens now, it is his; what is no socket stays, too.
        with socket.socket(socket.AF_UNIX) as other:
            r.control.unlink()
            other.bind(str(r.control))
            other.listen()
            hup(r)
            r.wait_log("control socket: cannot listen on")
            assert other.accept()
        r.control.unlink()
        r.control.write_text("precious")
        hup(r)
        assert r.control.read_text() == "precious"
        r.control.unlink()
        hup(r)
        assert r.cli("status").returncode == 0
        no_new_descriptors(r.pid, before)


def test_a_reload_makes_a_socket_that_could_not_be_made_before():
    r = Ragd()
    r.control = r.dir / "run" / "ragd.ctl"
    r.write_config({"server": {"control": str(r.control)}})
    with r:
        r.wait_log("no control socket")
        r.control.parent.mkdir()
        hup(r)
        assert r.cli("status").returncode == 0
