"""Reload by HUP: a new generation takes over without a lost request, or nothing changes at all."""

import concurrent.futures
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from load import Load
from ragdtest import Ragd, alive, fetch, free_port, in_flight, report, wait_for
from test_recycle import Watch
from watch import also_as_pid_1, descriptors, hup, no_new_descriptors, queue_length, ready, zombies


@also_as_pid_1
def test_new_workers_take_over_without_a_lost_request(Server):
    with Server({"server": {"workers": 4}}) as r:
        before = r.workers()
        with Load(r) as load:
            load.more(100)
            assert "generation 2" in hup(r)
            wait_for(lambda: not any(alive(p) for p in before), "the old workers to leave")
            load.more(100)
        assert load.errors == 0, load
        report(f"a reload under load, {Server.__name__}, longest request in ms", load.latency_ms["max"])
        status = r.status()
        assert status["generation"] == 2
        assert {w["generation"] for w in status["workers"]} == {2}
        assert len(ready(r)) == 4 and not set(ready(r)) & set(before)


def test_reload_of_ingest_workers_alone():
    r = Ragd(args=["--role", "ingest"])
    try:
        r.spawn()
        r.wait_log("ready after")
        before = r.workers()
        assert "1 ingest workers" in hup(r)
        wait_for(lambda: ready(r, "ingest") and ready(r, "ingest") != before, "the new worker")
        assert r.stop() == 0
    finally:
        r.close()


def test_worker_counts_are_applied():
    with Ragd({"server": {"workers": 4}, "ingest": {"workers": 1}}) as r, Load(r) as load:
        for count, ingest in ((2, 2), (6, 1)):
            r.write_config({"server": {"workers": count}, "ingest": {"workers": ingest}})
            begin = time.monotonic()
            assert "reloaded" in hup(r)
            wait_for(lambda: len(r.workers()) == count + ingest, lambda: r.log())
            report(f"reload to {count} http and {ingest} ingest workers, seconds", round(time.monotonic() - begin, 2))
            wait_for(lambda: len(ready(r)) == count and len(ready(r, "ingest")) == ingest, lambda: r.status())
        load.more(100)
        load.stop()
        assert load.errors == 0, load


@also_as_pid_1
@pytest.mark.parametrize("bad", ["workers: several", "workers: [4"])
def test_bad_configuration_changes_nothing(Server, bad):
    with Server({"server": {"workers": 4}}) as r:
        before = r.workers()
        good = r.file.read_text()
        with Load(r) as load:
            r.file.write_text(good.replace("workers: 4", bad, 1))
            line = hup(r)
            place = re.search(rf"{r.file}:(\d+):(\d+)", line)
            assert "reload failed" in line and place, line
            load.more(100)
        assert load.errors == 0, load
        assert r.workers() == before
        assert place[0] in r.status()["reloads"]["last"]["reason"]
        r.file.write_text(good)
        assert "reloaded" in hup(r)
        reloads = r.status()["reloads"]
        assert reloads["ok"] == 1 and reloads["failed"] == 1 and reloads["last"]["ok"] is True


def test_occupied_port_changes_nothing():
    with Ragd() as r, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        before, fds = r.workers(), descriptors(r.pid)
        taken = holder.getsockname()[1]
        r.write_config({"server": {"bind": [f"127.0.0.1:{r.port}", f"127.0.0.1:{free_port()}", f"127.0.0.1:{taken}"]}})
        with Load(r) as load:
            begin = time.monotonic()
            line = hup(r)
            report("refusal of a reload onto an occupied port, ms", round(1000 * (time.monotonic() - begin)))
            load.more(100)
        assert f"pid {os.getpid()} (" in line and f"server.bind: cannot listen on 127.0.0.1:{taken}" in line
        assert re.search(rf"listen: {r.file}:\d+:\d+: ", line)
        assert load.errors == 0, load
        assert r.workers() == before
        no_new_descriptors(r.pid, fds)


@also_as_pid_1
@pytest.mark.parametrize("fault", ["exit:3", "hang"])
def test_workers_that_cannot_boot_change_nothing(Server, fault):
    """The fault acts only where debug.faults is on: that is what the reload changes."""
    config = {"server": {"workers": 2}, "debug": {"faults": False}}
    with Server(config, env={"RAGD_FAULT_BOOT": fault}) as r:
        before = r.workers()
        r.write_config({"server": {"boot_timeout": "500ms"}, "debug": {"faults": True}})
        with Load(r) as load:
            line = hup(r)
            load.more(100)
        assert "reload failed" in line and "did not become ready" in line
        assert load.errors == 0, load
        wait_for(lambda: r.workers() == before, lambda: f"{before} to be all workers, not {r.workers()}")
        assert r.status()["generation"] == 1
        r.write_config({"server": {"boot_timeout": None}, "debug": {"faults": False}})
        assert "reloaded" in hup(r)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes a user who may have no further process")
def test_a_worker_that_cannot_be_forked_changes_nothing():
    r = Ragd()
    user = 1_000_000 + os.getpid()  # nobody else's, in tests that run beside this one either
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    r.prefix = [*become, "prlimit", "--nproc=3:100"]
    os.chown(r.dir, user, user)
    with r:
        before = r.workers()
        done = r.cli("reload")
        assert done.returncode == 1 and "canary: " in done.stderr and "it cannot be forked" in done.stderr
        assert r.workers() == before and r.get("/livez").status_code == 200
        subprocess.run([*become, "prlimit", "--pid", str(r.pid), "--nproc=100:100"], check=True)
        assert r.cli("reload").returncode == 0


def test_a_configuration_that_comes_byte_by_byte_is_given_up():
    with Ragd() as r:
        r.file.unlink()
        os.mkfifo(r.file)
        end = threading.Event()

        def drip():
            fd = os.open(r.file, os.O_RDWR)
            while not end.wait(0.1):
                os.write(fd, b"#")
            os.close(fd)

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            assert "or not all of it within a second" in hup(r)
            assert r.status()["phase"] == "IDLE"
        finally:
            end.set()
            dripper.join()


def test_a_slow_boot_is_not_felt():
    """Old workers stay until new ones are ready: no request waits for a boot of six seconds."""
    config = {"server": {"workers": 4, "surge": 4}, "debug": {"faults": False}}
    with Ragd(config, env={"RAGD_FAULT_BOOT": "delay:6000"}) as r:
        r.write_config({"debug": {"faults": True}})
        with Load(r) as load:
            assert "reloaded" in hup(r)
        assert load.errors == 0, load
        report("reload with a boot of 6 s, longest request in ms", load.latency_ms["max"])
        assert load.latency_ms["max"] < 5000


@pytest.mark.parametrize("base", ["/rag/", "/"])
def test_the_first_worker_finds_its_own_readyz(base):
    """It asks itself for it, wherever everything is served, and before it takes a connection."""
    with Ragd() as r:
        r.write_config({"server": {"base_path": base}})
        assert "reloaded" in hup(r)
        wait_for(lambda: fetch(f"{r.url}{base}readyz") == 200, "an answer of the new worker")
        assert "unix - - " in r.access_log()


def test_as_many_workers_boot_at_once_as_may():
    """Beside three old ones, after the fourth has left for the canary, and beside that one. Else it would be six at most."""
    with Ragd({"server": {"workers": 4, "surge": 3}}, env={"RAGD_FAULT_BOOT": "delay:1500"}) as r:
        wait_for(lambda: len(ready(r)) == 4, "all workers")
        with Watch(r) as watch:
            assert "reloaded" in hup(r)
        assert 3 + 1 + 3 <= watch.most <= 4 + 1 + 3 and watch.ready >= 4, vars(watch)


def test_moving_to_another_port():
    """The new one is open before the old one closes, and what the old one accepted is answered."""
    with Ragd({"server": {"workers": 4}}) as r:
        old, new = r.port, free_port()
        with Load(f"127.0.0.1:{old}") as load:
            load.more(100)
            r.write_config({"server": {"bind": [f"127.0.0.1:{new}"]}})
            r.send(signal.SIGHUP)
            wait_for(lambda: fetch(f"http://127.0.0.1:{old}/livez", 5) != 200, "the old port to be closed", every=0.001)
            assert fetch(f"http://127.0.0.1:{new}/livez") == 200
            load.more(20)
        # One connection may have been made between the last look into the queue and the end of the socket.
        assert load.errors - load.refused <= 1, load
        assert load.refused > 0 and queue_length(old) == 0
        r.port = new
        wait_for(lambda: r.status()["phase"] == "IDLE", "the end of the reload")
        assert fetch(f"{r.url}/livez") == 200


def test_a_move_that_overlaps_is_refused_with_the_remedy():
    with Ragd() as r:
        r.write_config({"server": {"bind": [f"0.0.0.0:{r.port}"]}})
        assert "restart instead" in hup(r)
        assert r.get("/livez").status_code == 200


def test_what_only_a_restart_can_change_is_refused_by_name():
    with Ragd() as r:
        r.write_config({"server": {"max_workers": 3}})
        line = hup(r)
        assert "server.max_workers cannot be changed by a reload: it needs `ragd upgrade` or a restart" in line
        assert re.search(rf"configuration: {r.file}:\d+:\d+: ", line)


def test_a_request_in_flight_survives_the_exchange():
    with Ragd() as r:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(fetch, f"{r.url}/debug/sleep?ms=3000")
            wait_for(lambda: in_flight(r) == 1, "the request in flight")
            assert "reloaded" in hup(r)
            assert slow.result() == 200


def test_many_hups_end_in_one_generation():
    """A reload takes at least three boots of 300 ms here, so 25 HUPs come during the first: one more follows it."""
    rng = random.Random(1)
    with Ragd({"server": {"workers": 2}}, env={"RAGD_FAULT_BOOT": "delay:300"}) as r:
        with Load(r) as load:
            begin = time.monotonic()
            r.send(signal.SIGHUP)
            r.wait_log("reloading the configuration")
            for _ in range(24):
                r.send(signal.SIGHUP)
                time.sleep(rng.uniform(0, 0.025))
            lasted = time.monotonic() - begin
            wait_for(lambda: r.status()["reloads"]["ok"] >= 2 and r.status()["phase"] == "IDLE", r.log)
            wait_for(lambda: len(r.workers()) == 3, "the old workers to leave")
        assert load.errors == 0, load
        status = r.status()
        assert {w["generation"] for w in status["workers"]} == {status["generation"]}
        assert status["generation"] == 1 + status["reloads"]["ok"]
        assert status["reloads"]["ok"] <= 2 + lasted // 0.9
        wait_for(lambda: not zombies(r.pid), "the dead to be collected")


def test_an_old_worker_that_spins_does_not_hold_up_the_new_ones():
    config = {"server": {"workers": 2, "graceful_timeout": "1100ms", "fast_timeout": "100ms"}}
    with Ragd(config) as r, concurrent.futures.ThreadPoolExecutor(1) as pool:
        old = r.workers()
        spin = pool.submit(fetch, f"{r.url}/debug/spin?ms=60000")
        wait_for(lambda: in_flight(r) == 1, "the loop to spin")
        assert "reloaded" in hup(r)
        begin = time.monotonic()
        victim = ready(r)[0]
        assert victim not in old
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(ready(r)) == 2 and victim not in ready(r), "the replacement")
        report("replacement of a new worker killed while an old one spins, ms", round(1000 * (time.monotonic() - begin)))
        assert spin.result() != 200
        wait_for(lambda: not any(alive(p) for p in old), "the old workers to leave")
        report("end of an old worker that spins, 1.1 s + 0.1 s after its TERM, seconds", round(time.monotonic() - begin, 2))
        assert "does not end: killing it" in r.log()
        assert len(r.workers()) == 3


def test_new_workers_that_die_after_ready_bring_the_old_ones_back():
    """Each new one makes an old one leave. When no more live at once than before, all is as it was."""
    config = {"server": {"workers": 6, "boot_timeout": "4s"}, "debug": {"faults": False}}
    with Ragd(config, env={"RAGD_FAULT_BOOT": "delay:200,die:800"}) as r:
        before = r.workers()
        r.write_config({"debug": {"faults": True}})
        with Load(r) as load:
            line = hup(r)
            assert "reload failed" in line and "exchange: no further worker" in line and "signal 11 (SEGV)" in line
            assert "the exchange of workers pauses" in r.log()
            assert any(not alive(p) for p in before), "no old worker has left: nothing was brought back"
            wait_for(lambda: len(ready(r)) == 6 and len(r.workers()) == 7, lambda: f"all to be as it was:\n{r.log()}")
            load.more(20)
        assert {w["generation"] for w in r.status()["workers"]} == {1}
        assert any(alive(p) for p in before)
        # Requests die with the worker that has them; nobody is refused.
        assert load.refused == 0, load


def test_new_workers_stand_in_until_the_old_ones_are_back():
    """An exchange fails half way. Who serves with the new configuration goes only when one with the old one serves."""
    r = Ragd({"server": {"workers": 4, "boot_timeout": "6s"}})
    fault = r.dir / "fault"
    r.env["RAGD_FAULT_BOOT"] = f"@{fault}"
    with r:
        wait_for(lambda: len(ready(r)) == 4, "all workers")
        fault.write_text("delay:1500")
        with Load(r) as load, Watch(r) as watch:
            since = len(r.log())
            r.send(signal.SIGHUP)
            wait_for(lambda: [w for w in r.status()["workers"] if w["generation"] == 2 and w["state"] == "READY"], "one of the new")
            fault.write_text("hang")
            assert "exchange: no further worker" in r.wait_log("reload failed", since=since)
            fault.write_text("delay:1500")
            wait_for(lambda: len(ready(r)) == 4 and len(r.workers()) == 5, lambda: f"all to be as it was:\n{r.log()}")
            load.more(20)
        assert load.errors == 0, load
        assert watch.ready >= 4, vars(watch)
        assert {w["generation"] for w in r.status()["workers"]} == {1}


@pytest.fixture
def half_exchanged():
    """A server of two workers, one of each generation, in the moment in which the reload is given up; others hang in their boot
    until the file `fault` is gone. Its configuration is what `extra` says."""
    servers = []

    def make(extra):
        r = Ragd({"server": {"workers": 2, "boot_timeout": "6s"}})
        servers.append(r)
        r.fault = r.dir / "fault"
        r.env["RAGD_FAULT_BOOT"] = f"@{r.fault}"
        r.start()
        wait_for(lambda: len(ready(r)) == 2 and ready(r, "ingest"), "all workers")
        r.fault.write_text("delay:1500")
        r.write_config(extra(r))
        r.send(signal.SIGHUP)
        wait_for(lambda: [w for w in r.status()["workers"] if w["generation"] == 2 and w["state"] == "READY"], "one of the new")
        r.fault.write_text("hang")
        assert "exchange: no further worker" in r.wait_log("reload failed")
        return r

    yield make
    for r in servers:
        r.close()


def test_who_stands_in_serves(half_exchanged):
    r = half_exchanged(lambda r: {})
    os.kill(ready(r)[0], signal.SIGKILL)
    wait_for(lambda: not ready(r), "the death of the last old one")
    assert r.get("/livez").status_code == 200
    assert not r.status()["degraded"]
    r.hang_up()
    assert r.stop() == 0


def test_sockets_of_a_reload_that_failed_are_free_again(half_exchanged):
    """Nobody stands in who still listens where the configuration in force does not."""
    r = half_exchanged(lambda r: {"server": {"bind": [f"127.0.0.1:{r.port}", f"127.0.0.1:{free_port()}"]}})
    new = r.config["server"]["bind"][1].split(":")[1]
    wait_for(lambda: fetch(f"http://127.0.0.1:{new}/livez", 1) == "ConnectionRefusedError", "the new address to be free")
    assert fetch(f"{r.url}/livez") == 200
    r.fault.unlink()
    assert r.cli("reload").returncode == 0
    assert fetch(f"http://127.0.0.1:{new}/livez") == 200


@pytest.mark.parametrize("changes", [{}, {"log": {"level": "debug"}}], ids=["without a change", "that could be pushed"])
def test_a_reload_makes_a_unix_socket_again(changes):
    r = Ragd()
    path = r.dir / "http.sock"
    r.write_config({"server": {"bind": [f"127.0.0.1:{r.port}", f"unix:{path}"]}})
    with r, Load(r) as load:
        before = descriptors(r.pid)
        path.unlink()
        r.write_config(changes)
        assert "reloaded" in hup(r)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://ragd/livez").status_code == 200
        wait_for(lambda: len(r.workers()) == 2, "the old ones to leave")
        no_new_descriptors(r.pid, before)
        load.stop()
        assert load.errors == 0, load
        assert r.stop() == 0 and not path.exists()


def old_ones_drain(r):
    """Where each generation has one http worker: it reads the order to leave a moment after the verdict."""
    return [w["state"] for w in r.status()["workers"] if w["role"] == "http"].count("READY") == 1


def test_reloads_in_a_row_wait_for_what_is_in_flight():
    """Each finds a request that outlives the next two, and nobody is cut off."""
    with Ragd({"server": {"graceful_timeout": "1h"}}) as r, concurrent.futures.ThreadPoolExecutor(5) as pool:
        requests = []
        for _ in range(5):
            wait_for(lambda: old_ones_drain(r), "the old ones to accept no more")
            requests.append(pool.submit(fetch, f"{r.url}/debug/sleep?ms=4000"))
            wait_for(lambda: any(w["in_flight"] for w in r.status()["workers"] if w["pid"] in ready(r)), "the request in flight")
            assert "reloaded" in hup(r)
        assert [request.result() for request in requests] == [200] * 5
        assert "the reload waits: workers of 2 generations still drain" in r.log()
        assert "ending it" not in r.log()


def test_only_two_old_generations_may_drain():
    """Longer than a boot may take, a reload does not wait for them."""
    with Ragd({"server": {"graceful_timeout": "1h", "boot_timeout": "8s"}}) as r, concurrent.futures.ThreadPoolExecutor(4) as pool:
        requests, holders = [], []
        for n in range(3):
            wait_for(lambda: old_ones_drain(r), "the old ones to accept no more")
            holders.append(ready(r)[0])
            requests.append(pool.submit(fetch, f"{r.url}/debug/sleep?ms=60000"))
            wait_for(lambda: in_flight(r) == n + 1, "the request in flight")
            assert all(alive(p) for p in holders)
            assert "reloaded" in hup(r)
        wait_for(lambda: not alive(holders[0]), lambda: f"the oldest to end:\n{r.log()}")
        assert f"pid {holders[0]}) still drains, but two younger generations do so, too" in r.log()
        assert requests[0].result() != 200
        assert all(alive(p) for p in holders[1:]) and not any(request.done() for request in requests[1:])
        assert r.stop(signal.SIGINT) == 0


def test_a_parked_server_comes_back_by_a_reload_even_if_that_fails():
    with Ragd({"server": {"workers": 2}}) as r:
        for bad in (True, False):
            r.send(signal.SIGWINCH)
            wait_for(lambda: not r.workers(), "the workers to leave")
            r.write_config({"server": {"graceful_timeout": "soon" if bad else "5s"}})
            done = r.cli_bare("reload", "--set", f"server.control={r.control}")
            assert done.returncode == bad
            wait_for(lambda: len(ready(r)) == 2, lambda: f"the workers to come back:\n{r.log()}")
            wait_for(lambda: len(r.workers()) == 3, "everybody")


def test_stop_during_a_reload():
    with Ragd({"debug": {"faults": False}}, env={"RAGD_FAULT_BOOT": "hang"}) as r:
        r.write_config({"debug": {"faults": True}})
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reload = pool.submit(r.cli, "reload")
            wait_for(lambda: r.status()["phase"] == "RELOADING", "the reload")
            assert r.stop() == 0
            done = reload.result()
        assert (done.returncode, done.stderr) == (1, "ragd: reload failed: stopped: the server was stopped meanwhile\n")
        assert "the reload is abandoned" in r.log()


def test_each_of_two_reload_commands_gets_its_own_verdict():
    """The second one waits for the first to end, and then fails at once."""
    with Ragd({"server": {"workers": 1}}, env={"RAGD_FAULT_BOOT": "delay:1500"}) as r, concurrent.futures.ThreadPoolExecutor(2) as pool:

        def command():
            return r.cli_bare("reload", "--set", f"server.control={r.control}")

        first = pool.submit(command)
        wait_for(lambda: r.status()["phase"] == "RELOADING", "the first")
        r.write_config({"server": {"graceful_timeout": "soon"}})
        second = pool.submit(command)
        r.wait_log("another one follows it")
        assert (first.result().returncode, first.result().stdout) == (0, "reloaded: generation 2\n")
        assert second.result().returncode == 1 and "graceful_timeout" in second.result().stderr
        r.write_config({"server": {"graceful_timeout": "3s"}})  # pushed, without a worker's boot
        assert command().stdout == "reloaded: generation 3\n"


def test_a_stop_ends_also_the_reload_that_was_to_follow():
    with Ragd(env={"RAGD_FAULT_BOOT": "delay:2000"}) as r, concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(r.cli, "reload")
        wait_for(lambda: r.status()["phase"] == "RELOADING", "the first")
        second = pool.submit(r.cli, "reload")
        r.wait_log("another one follows it")
        assert r.stop() == 0
        for command in (first, second):
            assert command.result().returncode == 1 and "stopped" in command.result().stderr


def test_reload_command_returns_the_verdict():
    with Ragd() as r:
        good = r.cli("reload")
        assert (good.returncode, good.stdout) == (0, "reloaded: generation 2\n")
        r.write_config({"server": {"graceful_timeout": "soon"}})
        # The command itself needs a readable configuration, so it gets the path of the socket alone.
        bad = r.cli_bare("reload", "--set", f"server.control={r.control}")
        assert bad.returncode == 1
        assert "everything stays as it was" in bad.stderr and "graceful_timeout" in bad.stderr
