"""What operators see: `ragd status` as a table, as JSON, live, and the fibers of the workers."""

import fcntl
import http.client
import json
import os
import pathlib
import pty
import random
import re
import signal
import socket
import struct
import subprocess
import termios
import time

import httpx
import pytest
from ragdtest import BIN, Ragd, alive, fetch, free_port, report, wait_for


def row(table, slot):
    return next(line for line in table.splitlines() if re.match(rf" *{slot} ", line))


def test_the_table_tells_workers_reloads_and_deaths():
    with Ragd({"server": {"workers": 2, "min_uptime": "0s"}}) as r:
        table = r.cli("status").stdout
        assert f"pid {r.pid}, IDLE, ready, up " in table and f"listening on: 127.0.0.1:{r.port}\n" in table
        assert "reloads: none so far" in table and "upgrades: none so far" in table
        assert row(table, 0).split()[:5:2] == ["0", str(r.workers()[0]), "1"] and row(table, 0).endswith("  -")
        os.kill(r.workers()[0], signal.SIGKILL)
        wait_for(lambda: r.status()["workers"][0]["restarts"] == 1, r.log)
        worker = r.status()["workers"][0]
        assert worker["last_death"]["reason"] == "signal" and worker["last_death"]["how"] == "signal 9 (KILL)"
        assert 0 <= worker["last_death"]["age_s"] < 60
        assert "signal: signal 9 (KILL), " in row(r.cli("status").stdout, 0)
        r.write_config({"server": {"graceful_timeout": "soon"}})
        assert r.cli("reload").returncode == 1
        last = r.status()["reloads"]["last"]
        assert last["ok"] is False and last["stage"] == "configuration" and last["took_ms"] >= 0
        assert re.match(rf"{re.escape(str(r.file))}:\d+:\d+: server.graceful_timeout", last["reason"])
        table = r.cli("status").stdout
        assert "reloads: 0 ok, 1 failed; the last one, " in table and f"configuration: {last['reason']}\n" in table


def test_the_fingerprint_says_which_settings_are_live():
    with Ragd() as r:
        first = r.status()["config_sha256"]
        assert re.fullmatch("[0-9a-f]{64}", first)
        r.file.write_text("# nothing but a comment\n" + r.file.read_text())
        assert r.cli("reload").returncode == 0 and r.status()["config_sha256"] == first
        assert first in r.cli("check").stdout
        r.write_config({"ingest": {"lease": "16s"}})
        assert r.cli("check").stdout != "" and first not in r.cli("check").stdout
        assert r.status()["config_sha256"] == first  # not reloaded yet
        assert r.cli("reload").returncode == 0 and r.status()["config_sha256"] != first


def test_rates_and_latencies_are_recent():
    with Ragd() as r:
        for _ in range(3):
            assert r.get("/debug/sleep?ms=60").status_code == 200
        worker = wait_for(lambda: next((w for w in r.status()["workers"] if (w["p99_ms"] or 0) >= 100), None), r.status)
        assert worker["role"] == "http" and worker["requests_per_s"] > 0
        assert worker["p50_ms"] <= worker["p99_ms"] and worker["uptime_s"] > 0


def test_fibers_tell_what_they_wait_for():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "1h"}}) as r:
        with subprocess.Popen(["curl", "-s", "-H", "X-Request-Id: the-sleeper", f"{r.url}/debug/sleep?ms=3600000"]) as client:
            wait_for(lambda: sum(w["in_flight"] for w in r.status()["workers"]) == 1, r.log)
            text = r.cli("status", "--fibers").stdout
            assert re.search(r"the-sleeper.*waits for sleep", text) and text.count("worker ") == 3, text
            stuck = r.workers()[2]
            os.kill(stuck, signal.SIGSTOP)
            try:
                began = time.monotonic()
                answer = json.loads(r.cli("status", "--fibers", "--json").stdout)
                assert time.monotonic() - began >= 3
                assert [w["pid"] for w in answer["workers"] if w["fibers"] is None] == [stuck]
                text = r.cli("status", "--fibers").stdout
                assert f"pid {stuck}):\ndoes not answer\n" in text and "the-sleeper" in text
                assert r.status()["ok"] is True  # the master waits for nobody
            finally:
                os.kill(stuck, signal.SIGCONT)
            wait_for(lambda: "does not answer" not in r.cli("status", "--fibers").stdout, "it to answer again")
            client.kill()


def watcher(r, *args, **kw):
    return subprocess.Popen([BIN, "status", "-c", str(r.file), *args], cwd=r.dir, env=r.environ(), text=True, **kw)


def test_watching_into_a_pipe_prints_snapshots_until_the_server_ends():
    with Ragd() as r:
        with watcher(r, "--watch", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as w:
            seen = [w.stdout.readline()]
            while sum(line.startswith("ragd ") for line in seen) < 3:
                seen.append(w.stdout.readline())
                assert seen[-1]
            assert "\033" not in "".join(seen)
            assert r.stop() == 0
            out, err = w.communicate(timeout=30)
            assert w.returncode == 1 and "the server has ended" in err


def test_watching_as_json_prints_an_object_a_line():
    with Ragd() as r, watcher(r, "--watch", "--json", stdout=subprocess.PIPE) as w:
        assert [json.loads(w.stdout.readline())["pid"] for _ in range(2)] == [r.pid] * 2
        w.terminate()


def test_watching_on_a_terminal_gives_it_back_on_ctrl_c():
    with Ragd() as r:
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        with watcher(r, "--watch=1", stdout=its, stderr=its) as w:
            os.close(its)
            text = ""
            while text.count("\033[H\033[2J") < 2:
                text += os.read(mine, 65536).decode()
            assert text.startswith("\033[?25l") and f"pid {r.pid}" in text
            w.send_signal(signal.SIGINT)
            assert w.wait(30) == -signal.SIGINT
            rest = text
            try:
                while chunk := os.read(mine, 65536):
                    rest += chunk.decode()
            except OSError:
                pass  # nobody holds the other end any more
            assert rest.rindex("\033[?25h") > rest.rindex("\033[H\033[2J")
        os.close(mine)


@pytest.mark.parametrize("words", [["--watch=0"], ["--watch=soon"], ["--watches"], ["--all"], ["now"], ["--watch="]])
def test_wrong_usage_is_one_line(words):
    r = Ragd()
    try:
        done = r.cli("status", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--help" in done.stderr
    finally:
        r.close()


# -- the status process: server.admin_bind


@pytest.fixture
def admin():
    """A server whose status process listens on r.admin; further settings may be written before it is started."""
    r = Ragd({"server": {"workers": 2}})
    r.admin = f"127.0.0.1:{free_port()}"
    r.write_config({"server": {"admin_bind": [r.admin]}})
    try:
        yield r
    finally:
        r.close()


def ask(r, path, method="GET", body=None):
    """On a connection of its own, as probes do."""
    connection = http.client.HTTPConnection(r.admin, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
    finally:
        connection.close()


def of_role(r, role, state="READY"):
    return [w for w in r.status()["workers"] if w["role"] == role and w["state"] == state]


def test_the_status_process_serves_four_things(admin):
    with admin as r:
        assert ask(r, "/livez").json()["status"] == "ok"
        assert ask(r, "/readyz").json() == {"status": "ready"}
        status = ask(r, "/status.json").json()
        assert status["pid"] == r.pid and status["listeners"] == [f"127.0.0.1:{r.port}"]
        assert status["admin_listeners"] == [r.admin] and status["target"] == {"http": 2, "ingest": 1}
        assert sorted(w["role"] for w in status["workers"]) == ["http", "http", "ingest", "status"]
        assert status.keys() == r.status().keys()
        here, there = (set(re.findall("^# TYPE .*$", t, re.M)) for t in (ask(r, "/metrics").text, r.get("/metrics").text))
        asked = {"# TYPE ragd_jobs gauge", "# TYPE ragd_webhook_deliveries gauge"}  # of the database
        assert there - here == asked and not here - there
        assert f'config_sha256="{status["config_sha256"]}"' in ask(r, "/metrics").text
        for path in ("/", "/health", "/api/v1/collections", "/debug/spin", "/openapi.json"):
            assert ask(r, path).status_code == 404
        refused = ask(r, "/status.json", "POST", b"x" * 100000)
        assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"
        assert ask(r, "/metrics", "HEAD").text == ""
        assert r.get("/status.json").status_code == 404  # nothing of it where everybody is served
        assert f"status on: {r.admin}\n" in r.cli("status").stdout


def test_it_answers_while_every_worker_is_stuck(admin):
    admin.write_config({"server": {"watchdog_timeout": "1h"}})
    with admin as r:
        stuck = [w["pid"] for role in ("http", "ingest") for w in of_role(r, role)]
        assert len(stuck) == 3
        for pid in stuck:
            os.kill(pid, signal.SIGSTOP)
        try:
            for path in ("/livez", "/readyz", "/metrics", "/status.json"):
                began = time.monotonic()
                assert ask(r, path).status_code == 200
                report(f"{path} of the status process while all workers are stopped, ms", round((time.monotonic() - began) * 1000, 1))
            wait_for(lambda: min(w["beat_age_s"] for w in ask(r, "/status.json").json()["workers"] if w["pid"] in stuck) > 1,
                     "their beats to grow old")
        finally:
            for pid in stuck:
                os.kill(pid, signal.SIGCONT)


def test_readiness_follows_the_http_workers(admin):
    """Spinning workers are found by the watchdog, and what comes after them does not boot."""
    admin.write_config({"server": {"watchdog_timeout": "4s", "abort_grace": "100ms", "workers": 1}})
    fault = admin.dir / "fault"
    admin.env = {"RAGD_FAULT_BOOT": f"@{fault}"}
    fault.write_text("")
    with admin as r:
        status = wait_for(lambda: of_role(r, "status"), "the status process")[0]["pid"]
        assert ask(r, "/readyz").status_code == 200
        fault.write_text("exit:3")
        with subprocess.Popen(["curl", "-s", f"{r.url}/debug/spin?ms=600000"], stdout=subprocess.DEVNULL):
            wait_for(lambda: ask(r, "/readyz").status_code == 503, r.log)
        answer = ask(r, "/readyz")
        assert answer.json() == {"status": "not_ready", "reason": "no http worker is ready"}
        assert answer.headers["retry-after"] == "1" and ask(r, "/livez").status_code == 200
        assert "ragd_ready 0" in ask(r, "/metrics").text
        assert r.proc.poll() is None and of_role(r, "status")[0]["pid"] == status
        fault.write_text("")
        wait_for(lambda: ask(r, "/readyz").status_code == 200, r.log)


def test_it_answers_until_the_last_worker_has_left(admin):
    admin.write_config({"server": {"graceful_timeout": "30s"}})
    with admin as r:
        with subprocess.Popen(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{r.url}/debug/sleep?ms=6000"],
                              stdout=subprocess.PIPE, text=True) as client:  # fmt: skip
            wait_for(lambda: sum(w["in_flight"] for w in r.status()["workers"]) == 1, r.log)
            r.send(signal.SIGTERM)
            wait_for(lambda: ask(r, "/status.json").json()["phase"] == "STOPPING", r.log)
            answer = ask(r, "/readyz")
            assert answer.status_code == 503 and answer.json()["reason"].startswith("the server is stopping")
            assert client.communicate(timeout=30)[0] == "200"
        assert r.wait_exit() == 0
        assert "killing it" not in r.log()


def test_it_is_replaced_when_it_dies_and_nobody_is_the_less_ready(admin):
    with admin as r:
        pid = of_role(r, "status")[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: [w["pid"] for w in of_role(r, "status")] not in ([], [pid]), r.log)
        assert ask(r, "/readyz").status_code == 200
        assert "degraded" not in r.log() and "worker_deaths_total{role=\"status\",reason=\"signal\"} 1" in ask(r, "/metrics").text
        os.kill(of_role(r, "status")[0]["pid"], signal.SIGSTOP)  # killed by the watchdog in ten seconds; not waited for
        assert r.cli("scale", "3").returncode == 0 and r.get("/readyz").status_code == 200
        os.kill(next(w["pid"] for w in r.status()["workers"] if w["role"] == "status"), signal.SIGCONT)


def test_only_its_own_slot_is_writable_to_a_worker(admin):
    with admin as r:
        workers = r.status()["workers"]
        assert {w["role"] for w in workers} == {"http", "ingest", "status"}
        for worker in workers:
            maps = [line.split() for line in open(f"/proc/{worker['pid']}/maps") if "ragd-scoreboard" in line]
            sizes = {flags: 0 for flags in ("r--s", "rw-s")}
            for addresses, flags, *_ in maps:
                start, end = (int(a, 16) for a in addresses.split("-"))
                sizes[flags] += end - start
            assert 0 < sizes["rw-s"] < 65536 < sizes["r--s"], maps
        wait_for(lambda: all(w["rss_kb"] > 0 for w in r.status()["workers"]), "them to write there")


def test_nonsense_in_the_scoreboard_breaks_nobody(admin):
    """As if a worker had run wild before it could write to its own slot only."""
    with admin as r:
        pids = {w["pid"] for w in r.status()["workers"]}
        (board,) = [f for f in pathlib.Path(f"/proc/{r.pid}/fd").iterdir() if "ragd-scoreboard" in os.readlink(f)]
        for nonsense in (b"\xff", random.Random(1).randbytes(4096), b"\x7f"):
            size = os.stat(board).st_size
            with open(board, "r+b") as f:
                f.write((nonsense * (size // len(nonsense)))[:size])
            assert r.status()["ok"] and ask(r, "/status.json").json()["ok"]
            assert "ragd_workers_wanted" in ask(r, "/metrics").text and r.get("/livez").status_code == 200
            assert r.cli("status").returncode == 0
        assert {pid for pid in pids if alive(pid)} == pids and "died" not in r.log(), r.log()
        assert r.stop() == 0


def test_a_reload_moves_it_and_exchanges_it(admin):
    with admin as r:
        first = of_role(r, "status")[0]
        assert r.cli("reload").returncode == 0
        (second,) = [w for w in of_role(r, "status") if w["pid"] != first["pid"]]
        assert second["generation"] == 2 and ask(r, "/livez").status_code == 200
        blocker = free_port()
        with socket.create_server(("127.0.0.1", blocker)):
            r.write_config({"server": {"admin_bind": [f"127.0.0.1:{blocker}"]}})
            done = r.cli("reload")
            assert done.returncode == 1 and f"server.admin_bind: cannot listen on 127.0.0.1:{blocker}" in done.stderr
            assert ask(r, "/livez").status_code == 200
        old, r.admin = r.admin, f"127.0.0.1:{free_port()}"
        r.write_config({"server": {"admin_bind": [r.admin]}})
        assert r.cli("reload").returncode == 0 and ask(r, "/livez").status_code == 200
        wait_for(lambda: fetch(f"http://{old}/livez") == "ConnectionRefusedError", "the old one to leave")
        r.write_config({"server": {"admin_bind": None}})
        assert r.cli("reload").returncode == 0
        wait_for(lambda: fetch(f"http://{r.admin}/livez") == "ConnectionRefusedError", r.log)
        wait_for(lambda: "status" not in [w["role"] for w in r.status()["workers"]], r.log)


def test_it_serves_a_unix_socket_and_a_server_without_http_workers(admin):
    admin.write_config({"server": {"admin_bind": [f"unix:{admin.dir}/admin.sock"]}})
    admin.args = ["--role", "ingest"]
    admin.spawn()
    transport = httpx.HTTPTransport(uds=f"{admin.dir}/admin.sock")
    with httpx.Client(transport=transport, base_url="http://status", timeout=30) as client:

        def ready():
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, admin.log)
        assert [w["role"] for w in client.get("/status.json").json()["workers"]].count("http") == 0
    assert admin.stop() == 0
    assert not (admin.dir / "admin.sock").exists()


def test_an_upgrade_takes_it_along_and_a_rollback_back(admin):
    """Its addresses are never closed, no probe hears of workers that leave for others, and from some moment on it is the
    other master's that answers."""
    admin.write_config({"server": {"rollback_window": "1h"}})
    with admin as r:
        old = ask(r, "/status.json").json()["pid"]

        def status_of(other):
            status = ask(r, "/status.json").json()
            assert ask(r, "/readyz").status_code == 200, (status, r.log())
            return (status["pid"] == old) != other and status

        try:
            r.send(signal.SIGUSR2)
            status = wait_for(lambda: status_of(True), r.log, every=0.05)
            # It may answer before its master knows the verdict.
            upgrades = wait_for(lambda: (s := status_of(True)) and s["upgrades"]["last"] and s["upgrades"], r.log)
            assert upgrades["ok"] == 1 and upgrades["last"]["ok"] is True
            wait_for(lambda: f"pid {status['pid']}, " in r.cli("status").stdout, r.log)
            with subprocess.Popen([BIN, "rollback", "-c", str(r.file)], cwd=r.dir, env=r.environ()) as rollback:
                wait_for(lambda: status_of(False), r.log, every=0.05)
                assert rollback.wait(30) == 0
            status = wait_for(lambda: status_of(False), r.log)  # that of the new master may answer until it is gone
            assert status["upgrades"]["failed"] == 1 and status["upgrades"]["last"]["stage"] == "rollback"
        finally:
            assert r.cli("stop").returncode == 0
        assert fetch(f"http://{r.admin}/livez") == "ConnectionRefusedError"


@pytest.mark.parametrize("addresses, said", [
    (["127.0.0.1:PORT"], "named twice: it serves HTTP"), (["example.org:1"], "names a host"), (["127.0.0.1"], "has no port"),
    (["127.0.0.1:1", "127.0.0.1:1"], "named twice"),
])  # fmt: skip
def test_a_wrong_address_is_named(admin, addresses, said):
    admin.write_config({"server": {"admin_bind": [a.replace("PORT", str(admin.port)) for a in addresses]}})
    done = admin.cli("check")
    assert done.returncode == 78 and "server.admin_bind: " in done.stderr and said in done.stderr
    assert admin.spawn().wait_exit() == 78 and said in admin.log()


def test_it_warns_of_an_address_that_others_can_reach(admin):
    admin.write_config({"server": {"admin_bind": [":9000", "localhost:9001", "[::1]:9002", "127.0.0.2:9003", "unix:/x"]}})
    done = admin.cli("check")
    assert done.returncode == 0 and done.stderr.count("server.admin_bind") == 1 and "':9000'" in done.stderr
