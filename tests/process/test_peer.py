"""ragd beside gunicorn in what goes wrong in operation. peer.md has the outcomes as a table; the tests compare them with
what happens now, in words, as the figures vary. `make process-table` writes the table anew."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import time

import pytest

import peer
from ragdtest import Ragd, alive, children_of, fetch, in_flight, report, wait_for
from watch import Pid1, queue_length

TABLE = pathlib.Path(__file__).with_name("peer.md")
BEGIN, END = "<!-- generated: make process-table -->\n", "<!-- end -->\n"
pytestmark = pytest.mark.skipif(not peer.PROGRAM, reason="gunicorn is not installed")


def serves(server):
    return server.proc.poll() is None and fetch(f"{server.url}/livez", 5) == 200


def after_reload(server, failed):
    """How a reload ends whose failure the log tells with `failed`."""
    server.send(signal.SIGHUP)
    begin = time.monotonic()
    wait_for(lambda: server.proc.poll() is not None or re.search(failed, server.log()), server.log, 20)
    took = time.monotonic() - begin
    if server.proc.poll() is None:
        assert serves(server)
        return "serves on with the old configuration"
    wait_for(lambda: fetch(f"{server.url}/livez", 5) != 200, "the orphans to leave", 20)
    return f"the server ends (exit {server.proc.returncode}, {took:.1f} s after HUP)"


def syntax_gunicorn():
    with peer.Gunicorn() as g:
        g.write_config("workers = (")
        return after_reload(g, "Reloading failed")


def syntax_ragd():
    with Ragd() as r:
        r.file.write_text("server: [\n")
        return after_reload(r, "reload failed")


def occupied_gunicorn():
    with peer.Gunicorn() as g, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        g.port, old = holder.getsockname()[1], g.port
        g.write_config("")
        g.port = old
        return after_reload(g, "Reloading failed")


def occupied_ragd():
    with Ragd() as r, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        r.write_config({"server": {"bind": [f"127.0.0.1:{holder.getsockname()[1]}"]}})
        return after_reload(r, "reload failed")


def no_boot_gunicorn():
    with peer.Gunicorn() as g:
        (g.dir / "app.py").write_text("raise RuntimeError\n")
        return after_reload(g, "Reloading failed")


def no_boot_ragd():
    with Ragd({"debug": {"faults": False}}, env={"RAGD_FAULT_BOOT": "exit:1"}) as r:
        r.write_config({"debug": {"faults": True}})
        return after_reload(r, "reload failed")


def slow_boot(server, over):
    """The longest that a request takes while a reload goes on whose workers need four seconds to boot."""
    server.send(signal.SIGHUP)
    worst, begin = 0.0, time.monotonic()
    while not over() or time.monotonic() - begin < 5:
        start = time.monotonic()
        assert fetch(f"{server.url}/livez", 10) == 200
        worst = max(worst, time.monotonic() - start)
        time.sleep(0.01)
    return f"requests wait for it ({worst:.1f} s)" if worst > 2 else f"not felt (longest request {1000 * worst:.0f} ms)"


def slow_boot_gunicorn():
    with peer.Gunicorn() as g:
        g.write_config("def post_fork(server, worker):\n    import time\n    time.sleep(4)")
        return slow_boot(g, lambda: True)


def slow_boot_ragd():
    with Ragd({"debug": {"faults": False}}, env={"RAGD_FAULT_BOOT": "delay:4000"}) as r:
        r.write_config({"debug": {"faults": True}})
        return slow_boot(r, lambda: "reloaded in" in r.log())


def hung_boot(server, killed):
    """Whether a boot that hangs is noticed within 20 s where it may take 1 s."""
    server.spawn()
    try:
        wait_for(lambda: re.search(killed, server.log()), "", 20)
        return "noticed, and tried again"
    except AssertionError:
        return "not noticed"


def hung_boot_gunicorn():
    g = peer.Gunicorn("timeout = 1\ndef post_fork(server, worker):\n    import time\n    time.sleep(60)")
    try:
        return hung_boot(g, "WORKER TIMEOUT")
    finally:
        g.close()


def hung_boot_ragd():
    r = Ragd({"server": {"boot_timeout": "1s"}}, env={"RAGD_FAULT_BOOT": "hang"})
    try:
        return hung_boot(r, "is not ready after")
    finally:
        r.close()


def crash_loop(server, boots, seconds):
    """How often two workers are started that crash when they are ready. With delays of 100, 200, 400 … ms, less a fifth,
    each is started at most eight times in 10 s. Who does without is given longer, should the machine be slow."""
    many = 24

    def count():
        return len(re.findall(boots, server.log()))

    server.spawn()
    try:
        wait_for(count, "the first boot")
        begin = time.monotonic()
        while count() < many and time.monotonic() - begin < seconds:
            time.sleep(0.05)
        how = "ever more slowly" if count() < many else "again and again"
        return f"forks {how} ({count()} times in {time.monotonic() - begin:.1f} s)"
    finally:
        server.close()


def crash_loop_gunicorn():
    return crash_loop(peer.Gunicorn("def post_worker_init(worker):\n    import os\n    os.kill(os.getpid(), 11)"), "Booting worker", 60)


def crash_loop_ragd():
    config = {"server": {"workers": 2}, "log": {"level": "debug"}}
    return crash_loop(Ragd(config, args=["--role", "http"], env={"RAGD_FAULT_BOOT": "die:0"}), "forked http worker", 10)


def suspended(server, awake):
    """Master and workers are stopped for three times the timeout after which a worker counts as hung, and go on, the master
    first, as it may come: until it has logged what it thinks of that."""
    workers = server.workers()
    for pid in [server.pid, *workers]:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(9)  # the suspension itself
    os.kill(server.pid, signal.SIGCONT)
    wait_for(lambda: awake in server.log(), server.log)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):  # it has killed him already
            os.kill(pid, signal.SIGCONT)
    time.sleep(2)  # in which nothing may happen
    lost = len(set(workers) - set(server.workers()))
    return f"healthy workers are killed ({lost} of {len(workers)})" if lost else "all workers survive"


def suspended_gunicorn():
    with peer.Gunicorn("timeout = 3") as g:
        wait_for(lambda: len(g.workers()) == 2, "the workers")
        return suspended(g, "WORKER TIMEOUT")


def suspended_ragd():
    with Ragd({"server": {"workers": 2, "watchdog_timeout": "3s"}}) as r:
        return suspended(r, "the master was stopped for")


def backlog(server, stop):
    """The one worker is busy, 20 connections wait in the kernel's queue, then TERM."""
    waiting = [server.connect() for _ in range(20)]
    for s in waiting:
        s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    wait_for(lambda: queue_length(server.port) == 20, "the queue")
    stop()
    answered = 0
    for s in waiting:
        try:
            answered += s.recv(15).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            pass
        s.close()
    return "all are answered" if answered == 20 else f"reset without an answer ({20 - answered} of 20)"


def backlog_gunicorn():
    with peer.Gunicorn("workers = 1") as g, concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = g.connect()
        busy.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: queue_length(g.port) == 0, "the worker to be busy")
        outcome = backlog(g, lambda: g.send(signal.SIGTERM))
        busy.close()
        return outcome


def backlog_ragd():
    with Ragd() as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=6000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        outcome = backlog(r, lambda: r.send(signal.SIGTERM))
        assert spin.result() == 200
        return outcome


def upgrade_gunicorn():
    """As its manual says: USR2 to the master, and TERM when the new one serves. The end of PID 1 is the end of all."""
    g = peer.Gunicorn()
    g.prefix = Pid1.PREFIX
    with g:
        old = children_of(g.pid)[0]
        wait_for(lambda: len(children_of(old)) == 2, "the workers")
        os.kill(old, signal.SIGUSR2)
        wait_for(lambda: g.log().count("Booting worker") == 4, "the new workers")
        os.kill(old, signal.SIGTERM)
        wait_for(lambda: not alive(old), "the old master to end")
        return SERVES_ON if serves(g) else ENDS_WITH_OLD


def upgrade_ragd():
    with Pid1() as r:
        old = r.workers()
        r.cli("upgrade", timeout=60)
        wait_for(lambda: not any(alive(p) for p in old), "the old workers to leave")
        status = r.cli("status", "--json")
        return SERVES_ON if serves(r) and status.returncode == 0 and json.loads(status.stdout)["pid"] == 1 else ENDS_WITH_OLD


SERVES_ON, ENDS_WITH_OLD = "serves on", "the container ends with the old master"
ROWS = {
    "HUP with a syntax error in the configuration": (syntax_gunicorn, syntax_ragd),
    "HUP that moves to an occupied port": (occupied_gunicorn, occupied_ragd),
    "HUP, and the new workers cannot boot": (no_boot_gunicorn, no_boot_ragd),
    "HUP, and the new workers take 4 s to boot": (slow_boot_gunicorn, slow_boot_ragd),
    "a worker hangs while it boots": (hung_boot_gunicorn, hung_boot_ragd),
    "every worker crashes when it is ready": (crash_loop_gunicorn, crash_loop_ragd),
    "the machine is suspended for three timeouts": (suspended_gunicorn, suspended_ragd),
    "TERM while connections wait in the queue": (backlog_gunicorn, backlog_ragd),
    "an upgrade of PID 1 in a container": (upgrade_gunicorn, upgrade_ragd),
}


def table(cells):
    lines = ["| | gunicorn | ragd |\n", "|---|---|---|\n"]
    lines += [f"| {row} | {cells[row, 0]} | {cells[row, 1]} |\n" for row in ROWS]
    return "".join(lines)


def words(cell):
    return re.sub(r" *\(.*?\)", "", cell).strip()


@pytest.fixture(scope="module")
def outcomes():
    """{(row, 0 for gunicorn, 1 for ragd): future of an outcome}; several at once, as they mostly wait."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = {(row, i): pool.submit(run) for row, runs in ROWS.items() for i, run in enumerate(runs)}
    if os.environ.get("RAGD_WRITE_TABLE"):
        text = TABLE.read_text()
        cells = {key: future.result() for key, future in futures.items()}
        TABLE.write_text(text[: text.index(BEGIN) + len(BEGIN)] + table(cells) + text[text.index(END) :])
    return futures


@pytest.mark.parametrize("row", ROWS)
def test_outcomes_are_those_of_the_table(row, outcomes):
    line = next(line for line in TABLE.read_text().splitlines() if line.startswith(f"| {row} |"))
    expected = [words(cell) for cell in line.split("|")[2:4]]
    found = [outcomes[row, i].result() for i in (0, 1)]
    report(f"{row}: gunicorn, ragd", "; ".join(found))
    assert [words(cell) for cell in found] == expected
