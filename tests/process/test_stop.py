"""Stopping: what is in flight or waits in the queue is answered, nothing waits longer than it may."""

import concurrent.futures
import http.client
import os
import re
import signal
import threading
import time

import pytest

from load import Load
from ragdtest import Ragd, alive, fetch, free_port, in_flight, report, wait_for
from watch import also_as_pid_1, hup, queued, ready


@also_as_pid_1
def test_requests_in_flight_are_answered(Server):
    with Server({"server": {"workers": 4}}) as r, concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(fetch, f"{r.url}/debug/sleep?ms=5000") for _ in range(50)]
        wait_for(lambda: in_flight(r) == 50, "50 requests in flight")
        begin = time.monotonic()
        assert r.stop() == 0
        took = time.monotonic() - begin
        report(f"stop with 50 requests of 5 s in flight, {Server.__name__}, seconds", round(took, 2))
        assert took < 15  # graceful_timeout alone is 20 s
        assert [a.result() for a in answers] == [200] * 50
        assert "had to be killed" not in r.log()


@also_as_pid_1
def test_connections_in_the_queue_are_answered(Server):
    """One worker, its loop blocked, 100 connections in the kernel's queue, then TERM."""
    with Server() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=4000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        sockets = queued(r, 100)
        assert r.stop() == 0
        assert spin.result() == 200
        for s in sockets:
            assert s.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
            s.close()


def test_after_term_nobody_is_kept_waiting_in_a_queue():
    """Once it drains, a new connection is refused at once instead of being accepted by nobody."""
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=4000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        r.send(signal.SIGTERM)
        wait_for(lambda: fetch(f"{r.url}/livez", 1) == "ConnectionRefusedError", "connections to be refused")
        assert not slow.done()
        assert r.wait_exit() == 0
        assert slow.result() == 200


def test_a_second_term_changes_nothing():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=3000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        r.send(signal.SIGTERM)
        r.wait_log("stopping")
        r.send(signal.SIGTERM)
        assert r.wait_exit() == 0
        assert slow.result() == 200


def test_int_ends_a_drain():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=30000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        r.send(signal.SIGTERM)
        r.wait_log("stopping")
        begin = time.monotonic()
        assert r.stop(signal.SIGINT) == 0
        took = time.monotonic() - begin
        report("from INT during a drain to the exit, seconds", round(took, 2))
        assert took < 15  # fast_timeout is 2 s; 30 s were asked for
        assert slow.result() != 200


def test_quit_does_not_wait():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=30000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        begin = time.monotonic()
        assert r.stop(signal.SIGQUIT) == 0
        assert time.monotonic() - begin < 15
        assert slow.result() != 200


@also_as_pid_1
def test_a_worker_that_does_not_end_is_killed_and_its_request_named(Server):
    with Server({"server": {"graceful_timeout": "3s"}}) as r:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
            wait_for(lambda: in_flight(r) == 1, "the loop to spin")
            begin = time.monotonic()
            assert r.stop() == 0
            took = time.monotonic() - begin
            assert spin.result() != 200
        report(f"end of a worker that spins, graceful_timeout 3 s and fast_timeout 2 s, {Server.__name__}, seconds", round(took, 2))
        assert 3 <= took < 20
        log = r.log()
        by_itself = "the master was stopped for" in log and "signal 14 (ALRM)" in log  # too busy a machine: its own alarm came first
        assert "has not drained in time" in log or by_itself
        assert re.search(r"in flight for \d+\.\d s: GET /debug/spin", log)
        assert "workers that had to be killed: 1" in log


def test_shutdown_delay_keeps_serving_but_not_ready():
    with Ragd({"server": {"workers": 2, "shutdown_delay": "8s"}}) as r:
        with Load(r) as load:
            kept = r.get("/livez")
            assert "connection" not in kept.headers
            begin = time.monotonic()
            r.send(signal.SIGTERM)
            wait_for(lambda: fetch(f"{r.url}/readyz") == 503, "/readyz 503", every=0.001)
            report("from TERM to /readyz 503, ms", round(1000 * (time.monotonic() - begin)))
            last = r.get("/livez")
            assert (last.status_code, last.headers["connection"]) == (200, "close")
            load.more(50)
        assert time.monotonic() - begin < 8, "too slow a machine to see anything within the delay"
        assert load.errors == 0, load
        assert r.proc.poll() is None
        assert r.wait_exit() == 0
        assert time.monotonic() - begin > 8
        assert fetch(f"{r.url}/livez") == "ConnectionRefusedError"


@also_as_pid_1
def test_term_during_boot_ends_it(Server):
    r = Server(env={"RAGD_FAULT_BOOT": "hang"})
    try:
        r.spawn()
        r.wait_log("running on")
        begin = time.monotonic()
        assert r.stop() == 0
        report(f"from TERM during boot to the exit, {Server.__name__}, seconds", round(time.monotonic() - begin, 2))
    finally:
        r.close()


def test_a_term_for_the_whole_group_is_a_stop_like_any_other():
    """As some service managers send it. The status process, which the master would have end last, is told, too."""
    r = Ragd({"server": {"workers": 2, "admin_bind": [f"127.0.0.1:{free_port()}"]}})
    r.prefix = ["setsid"]
    with r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=3000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        wait_for(lambda: {w["state"] for w in r.status()["workers"]} == {"READY"}, "all workers")
        os.killpg(r.pid, signal.SIGTERM)
        assert r.wait_exit() == 0
        assert slow.result() == 200
        assert " died: " not in r.log()


def test_stop_command_waits_for_the_end():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=3000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        assert r.cli("stop").returncode == 0
        assert slow.result() == 200
        assert r.wait_exit() == 0


def test_stop_command_through_the_pidfile():
    with Ragd() as r:
        pidfile = r.dir / "ragd.pid"
        assert r.stop() == 0
        r.write_config({"server": {"pidfile": str(pidfile), "control": "/nonexistent/ragd.ctl"}})
        r.start()
        assert r.cli("stop").returncode == 0
        assert not pidfile.exists()
        assert r.wait_exit() == 0
        assert r.cli("stop").returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_stop_command_of_somebody_else():
    """It says that there is a server, and whose it is not."""
    with Ragd() as r:
        pidfile = r.dir / "ragd.pid"
        r.write_config({"server": {"pidfile": str(pidfile)}})
        assert "reloaded" in hup(r)
        r.dir.chmod(0o755)
        done = r.cli("stop", user="nobody")
        assert done.returncode == 1 and f"{pidfile} cannot be seen from here as pid {r.pid}: stop it as its user" in done.stderr
        done = r.cli_bare("stop", "--set", f"server.control={r.control}", user="nobody")
        assert (done.returncode, done.stderr) == (1, "ragd: permission denied at server.control: run this as the user of the server\n")
        assert r.proc.poll() is None


def test_a_connection_made_just_before_the_stop_is_still_served():
    """Accepted, but its request is still on the way: nothing tells the client that it may not send it."""

    def connections():
        return sum(w["connections"] for w in r.status()["workers"])

    with Ragd() as r:
        before = connections()
        with r.connect() as s:
            wait_for(lambda: connections() == before + 1, "the connection to be accepted")
            r.send(signal.SIGTERM)
            wait_for(lambda: fetch(f"{r.url}/livez", 1) == "ConnectionRefusedError", "the drain")
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = s.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"connection: close\r\n" in answer.lower()
            assert r.wait_exit() == 0


def test_an_answer_that_began_before_the_stop_keeps_its_word():
    """Its head said that the connection stays, so another request may be on the way when it ends."""
    text = b"A line of the log.\n" * (1 << 20)
    with Ragd(args=["--role", "http"]) as r:
        collection = r.post("/api/v1/collections", json={"name": "logs"}).json()["id"]
        files = {"file": ("a.log", text, "text/plain")}
        document = r.post(f"/api/v1/collections/{collection}/documents", files=files).json()["document"]["id"]
        with r.connect() as s:
            s.sendall(f"GET /api/v1/documents/{document}/content HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            first = http.client.HTTPResponse(s)
            first.begin()
            r.hang_up()
            r.send(signal.SIGTERM)
            wait_for(lambda: fetch(f"{r.url}/livez", 1) == "ConnectionRefusedError", "the drain")
            assert first.read() == text
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            second = http.client.HTTPResponse(s)
            second.begin()
            assert second.status == 200 and second.getheader("Connection") == "close"
        assert r.wait_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_who_drains_since_before_is_not_left_behind(number):
    """Its generation granted more time than the one that is stopped."""
    with Ragd({"server": {"graceful_timeout": "60s", "fast_timeout": "20s"}}) as r:
        request = threading.Thread(target=fetch, args=(r.url + "/debug/spin?ms=120000",))
        request.start()
        wait_for(lambda: in_flight(r) == 1, "the request")
        spinning = ready(r)[0]
        assert "reloaded in" in hup(r)
        r.write_config({"server": {"graceful_timeout": "200ms", "fast_timeout": "200ms"}})
        assert "reloaded in" in hup(r)
        workers = r.workers()
        assert spinning in workers
        assert r.stop(number) == 0
        assert not [pid for pid in workers if alive(pid)], r.log()
        assert "leaving without them" not in r.log()
        request.join()
