"""Stopping: what is in flight or waits in the queue is answered, nothing waits longer than it may."""

import concurrent.futures
import re
import signal
import time

from ragdtest import Ragd, fetch, in_flight, wait_for


def test_requests_in_flight_are_answered():
    with Ragd({"server": {"workers": 2}}) as r, concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(fetch, f"{r.url}/debug/sleep?ms=1500") for _ in range(20)]
        wait_for(lambda: in_flight(r) == 20, "20 requests in flight")
        assert r.stop() == 0
        assert [a.result() for a in answers] == [200] * 20
        assert "had to be killed" not in r.log()


def test_connections_in_the_queue_are_answered():
    """One worker, its loop blocked, 50 connections in the kernel's queue, then TERM."""
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=2000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        queued = [r.connect() for _ in range(50)]
        for s in queued:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert queue_length(r.port) == 50
        assert r.stop() == 0
        assert spin.result() == 200
        for s in queued:
            assert s.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
            s.close()


def queue_length(port):
    """Connections that wait for accept(): the receive queue of the listening socket."""
    for line in open("/proc/net/tcp"):
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return int(fields[4].split(":")[1], 16)
    return 0


def test_after_term_nobody_is_kept_waiting_in_a_queue():
    """Once it drains, a new connection is refused at once instead of being accepted by nobody."""
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=2000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        r.send(signal.SIGTERM)
        wait_for(lambda: fetch(f"{r.url}/livez", 1) == "ConnectionRefusedError", "connections to be refused")
        assert not slow.done()
        assert r.wait_exit() == 0
        assert slow.result() == 200


def test_a_second_term_changes_nothing():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=1500")
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
        assert time.monotonic() - begin < 15  # fast_timeout is 2 s; 30 s were asked for
        assert slow.result() != 200


def test_quit_does_not_wait():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=30000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        begin = time.monotonic()
        assert r.stop(signal.SIGQUIT) == 0
        assert time.monotonic() - begin < 15
        assert slow.result() != 200


def test_a_worker_that_does_not_end_is_killed_and_its_request_named():
    with Ragd({"server": {"graceful_timeout": "500ms", "fast_timeout": "300ms"}}) as r:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
            wait_for(lambda: in_flight(r) == 1, "the loop to spin")
            assert r.stop() == 0
            assert spin.result() != 200
        log = r.log()
        assert "has not drained in time" in log
        assert re.search(r"in flight for \d+\.\d s: GET /debug/spin", log)
        assert "workers that had to be killed: 1" in log


def test_shutdown_delay_keeps_serving_but_not_ready():
    with Ragd({"server": {"shutdown_delay": "1500ms"}}) as r:
        r.send(signal.SIGTERM)
        wait_for(lambda: fetch(f"{r.url}/readyz") == 503, "/readyz 503")
        assert fetch(f"{r.url}/livez") == 200
        assert r.proc.poll() is None
        assert r.wait_exit() == 0


def test_term_during_boot_ends_it():
    r = Ragd(env={"RAGD_FAULT_BOOT": "hang"})
    try:
        r.spawn()
        r.wait_log("running on")
        assert r.stop(timeout=10) == 0
    finally:
        r.close()


def test_stop_command_waits_for_the_end():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=1000")
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
