"""Workers share what comes in evenly, at a bounded price, and one that is busy keeps nobody waiting."""

import concurrent.futures
import socket
import time

from ragdtest import Ragd, fetch, in_flight, report, wait_for
from watch import ready, status_field

CONNECTIONS = 1000
REQUEST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def one_by_one(r, count):
    """Connections one after the other; the longest time that one took, in ms."""
    worst = 0.0
    for _ in range(count):
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", r.port), 10) as s:
            s.sendall(REQUEST)
            assert s.makefile("rb").read().startswith(b"HTTP/1.1 200")
        worst = max(worst, time.monotonic() - begin)
    return round(1000 * worst, 1)


def requests(r):
    return {w["pid"]: w["requests"] for w in r.status()["workers"] if w["role"] == "http"}


def switches(pids):
    return sum(status_field(pid, "voluntary_ctxt_switches") for pid in pids)


def test_idle_workers_get_equal_shares():
    with Ragd({"server": {"workers": 4}}) as r:
        wait_for(lambda: len(ready(r)) == 4, "all workers")
        r.hang_up()  # a worker that holds a connection already gets fewer of the next ones
        wait_for(lambda: not any(w["connections"] for w in r.status()["workers"]), "all to be idle")
        before, price = requests(r), switches(ready(r))
        worst = one_by_one(r, CONNECTIONS)
        price = (switches(ready(r)) - price) / CONNECTIONS
        shares = sorted((n - before[pid]) / CONNECTIONS for pid, n in requests(r).items())
        report("1000 connections to 4 idle workers, shares in percent", [round(100 * s, 1) for s in shares])
        report("the same, context switches per connection", round(price, 1))
        report("the same, longest reply in ms", worst)
        assert sum(shares) == 1
        assert shares[0] >= 0.20 and shares[-1] <= 0.30, shares
        assert price <= 8


def test_a_busy_worker_keeps_nobody_waiting():
    config = {"server": {"workers": 4, "watchdog_timeout": "1m"}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        wait_for(lambda: len(ready(r)) == 4, "all workers")
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=10000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        worst = one_by_one(r, 200)
        assert not spin.done() or worst < 10000
        report("200 connections while one of 4 workers is blocked for 10 s, longest reply in ms", worst)
        assert worst < 5000
        assert spin.result() == 200
