"""Requests that take long are named while they run: once each, whoever is busy with them."""

import concurrent.futures
import re

from ragdtest import Ragd, fetch, in_flight, wait_for

SLOW = r"has a slow request, (\d+\.\d) s so far: GET (\S+), request \S+"


def slow(r):
    return re.findall(SLOW, r.log())


def test_a_slow_request_is_named_once_while_it_runs():
    config = {"server": {"slow_request": "300ms", "watchdog_timeout": "2s"}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, f"{r.url}/debug/sleep?ms=3000")
        wait_for(lambda: len(slow(r)) == 1, r.log)
        assert not first.done()
        second = pool.submit(fetch, f"{r.url}/debug/sleep?ms=2999")
        assert fetch(f"{r.url}/debug/sleep?ms=1") == 200
        assert first.result() == second.result() == 200
        assert [path for _, path in slow(r)] == ["/debug/sleep?ms=3000", "/debug/sleep?ms=2999"]
        assert all(float(seconds) >= 0.3 for seconds, _ in slow(r))


def test_the_limit_follows_a_reload_and_can_be_none():
    with Ragd({"server": {"slow_request": "0s", "watchdog_timeout": "2s"}}) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert fetch(f"{r.url}/debug/sleep?ms=1500") == 200
        assert slow(r) == []
        running = pool.submit(fetch, f"{r.url}/debug/sleep?ms=10000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        r.write_config({"server": {"slow_request": "200ms"}})
        assert r.cli("reload").returncode == 0
        wait_for(lambda: len(slow(r)) == 1, r.log)
        assert not running.done()
        assert running.result() == 200


def test_a_draining_worker_is_looked_at_as_well():
    config = {"server": {"slow_request": "1s", "watchdog_timeout": "2s"}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        old = r.workers()
        running = pool.submit(fetch, f"{r.url}/debug/sleep?ms=4000")
        wait_for(lambda: in_flight(r) == 1, "the request in flight")
        assert r.cli("reload").returncode == 0
        line = r.wait_log("has a slow request")
        assert any(f"pid {pid})" in line for pid in old)
        assert running.result() == 200


def test_a_slow_request_is_named_at_its_end_with_its_status():
    """By the worker, which knows how long it took; time that the client takes is its own affair."""
    with Ragd({"server": {"slow_request": "300ms"}}) as r:
        answer = r.get("/debug/sleep?ms=500")
        assert answer.status_code == 200
        line = r.wait_log("slow request:")
        assert float(re.search(r"slow request: (\d+\.\d+) s", line)[1]) >= 0.5
        assert line.endswith(f"for GET /debug/sleep, answered 200, request {answer.headers['x-request-id']}")
        since = len(r.log())
        with r.connect() as s:
            s.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{")
            r.wait_log("has a slow request", since=since)
            s.sendall(b"}")
            assert s.makefile("rb").readline().split()[1] == b"422"
        assert r.get("/debug/sleep?ms=1").status_code == 200
        assert "slow request:" not in r.log()[since:]
