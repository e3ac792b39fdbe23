"""Sockets that the service manager binds, and those that it keeps for the next start."""

import os
import socket

import httpx
import pytest

from load import Load
from ragdtest import Ragd, free_port, wait_for
from systemd import Manager, activate, inode, listening

STOPPED, CONFIG = 0, 78


@pytest.fixture
def ragd():
    """A server without a server.bind, not started."""
    r = Ragd({"server": {"bind": None}})
    yield r
    r.close()


def over_unix(path):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://ragd") as client:
        return client.get("/livez").status_code


def sockets_of(pid):
    """Inodes of the sockets that a process holds."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def test_serves_on_the_sockets_that_were_passed_and_nowhere_else(ragd):
    path = ragd.dir / "http.sock"
    with listening(ragd.port) as tcp, listening(path) as unix:
        activate(ragd, {"web": tcp, "local": unix})
        ragd.start()
        assert over_unix(path) == 200
        assert ragd.status()["listeners"] == [f"127.0.0.1:{ragd.port}", f"unix:{path}"]
        for s in tcp, unix:  # blocking while it was the test's: what is set on it is seen by all who share it
            assert not os.get_blocking(s.fileno())
        assert ragd.stop() == STOPPED
        assert path.exists()


def test_stop_and_start_refuse_and_lose_nobody(ragd):
    """The sockets are the manager's: whoever connects between two lives of the server waits in their queues."""
    path = ragd.dir / "http.sock"
    ragd.write_config({"server": {"workers": 2}})
    with listening(ragd.port, 1024) as tcp, listening(path, 1024) as unix:
        activate(ragd, {"web": tcp, "local": unix})
        ragd.start()
        with Load(ragd, f"unix:{path}", keepalive=4) as load:
            for _ in range(3):
                load.more(50)
                assert ragd.stop() == STOPPED
                assert path.exists()
                with socket.create_connection(("127.0.0.1", ragd.port)) as early:
                    early.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    ragd.start()
                    assert early.recv(12) == b"HTTP/1.1 200"
            load.more(50)
        assert load.errors == 0, load


def test_a_wrong_pid_means_somebody_else(ragd):
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}"]}})
    with listening(free_port()) as other:
        activate(ragd, {"web": other}, pid=1)
        ragd.start()
        assert ragd.status()["listeners"] == [f"127.0.0.1:{ragd.port}"]
        assert inode(other.fileno()) not in sockets_of(ragd.workers()[0])
        assert f"LISTEN_FDS is ignored: LISTEN_PID is 1, and this is pid {ragd.pid}" in ragd.log()


def test_server_bind_adds_what_is_not_passed(ragd):
    """One of its addresses is that of a passed socket: it is served once."""
    more = free_port()
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"127.0.0.1:{more}"]}})
    with listening(ragd.port) as tcp:
        activate(ragd, {"web": tcp})
        ragd.start()
        assert ragd.status()["listeners"] == [f"127.0.0.1:{ragd.port}", f"127.0.0.1:{more}"]
        assert httpx.get(f"http://127.0.0.1:{more}/livez", trust_env=False).status_code == 200


def test_a_passed_socket_for_both_families_covers_the_old_one(ragd):
    if not os.path.exists("/proc/net/if_inet6"):
        return
    ragd.write_config({"server": {"bind": [f":{ragd.port}"]}})
    with socket.create_server(("::", ragd.port), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        activate(ragd, {"web": both})
        ragd.start()
        assert ragd.status()["listeners"] == [f"[::]:{ragd.port}"]


def test_a_reload_keeps_passed_sockets_and_refuses_to_leave_one_that_is_named(ragd):
    path, more = ragd.dir / "http.sock", free_port()
    with listening(ragd.port) as tcp, listening(path) as unix:
        activate(ragd, {"web": tcp, "local": unix})
        ragd.start()
        passed = ragd.status()["listeners"]
        ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"127.0.0.1:{more}"]}})
        assert ragd.cli("reload").returncode == 0
        assert ragd.status()["listeners"] == [*passed, f"127.0.0.1:{more}"]
        assert over_unix(path) == 200
        ragd.write_config({"server": {"bind": [f"127.0.0.1:{more}"]}})
        done = ragd.cli("reload")
        assert done.returncode == 1
        assert f"server.bind: 127.0.0.1:{ragd.port} was given to this server by its service manager" in done.stderr
        assert ragd.status()["listeners"] == [*passed, f"127.0.0.1:{more}"]
        ragd.write_config({"server": {"bind": None}})
        assert ragd.cli("reload").returncode == 0
        assert ragd.status()["listeners"] == passed
        assert ragd.stop() == STOPPED
        assert path.exists()


def test_what_is_no_listening_stream_socket_is_refused(ragd):
    with socket.socket() as bound, socket.socket(type=socket.SOCK_DGRAM) as dgram:
        bound.bind(("127.0.0.1", ragd.port))
        for bad in bound, dgram:
            activate(ragd, {"strange": bad})
            assert ragd.spawn().wait_exit() == CONFIG
            assert "LISTEN_FDS: descriptor 3 is not a listening stream socket (name 'strange')" in ragd.log()
            assert "Accept=no" in ragd.log()


def test_an_upgrade_passes_them_on(ragd):
    """The new master treats them as the old one did: it keeps their files, and no reload of its own leaves them."""
    path = ragd.dir / "http.sock"
    with listening(ragd.port) as tcp, listening(path) as unix:
        activate(ragd, {"web": tcp, "local": unix})
        ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}"]}})
        ragd.start()
        with Load(ragd, f"unix:{path}") as load:
            load.more(50)
            done = ragd.cli("upgrade")
            assert done.returncode == 0, done.stderr + ragd.log()
            load.more(50)
        assert load.errors == 0, load
        status = ragd.status()
        assert status["pid"] != ragd.pid
        assert status["listeners"] == [f"127.0.0.1:{ragd.port}", f"unix:{path}"]
        ragd.write_config({"server": {"bind": [f"127.0.0.1:{free_port()}"]}})
        assert "was given to this server by its service manager" in ragd.cli("reload").stderr
        assert ragd.cli("stop").returncode == 0
        assert path.exists()


# -- the store


def test_sockets_are_stored_and_come_back(ragd):
    """Bound by the server itself, kept by the manager while there is no server: nobody is refused then."""
    path = ragd.dir / "http:.sock"
    names = {f"bind=127.0.0.1%3A{ragd.port}", f"bind=unix%3A{str(path).replace(':', '%3A')}"}
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}"]}})
    with Manager(ragd, store=True) as manager:
        ragd.start()
        manager.wait(lambda m: set(m.stored) == names, "both sockets")
        inodes = {inode(s.fileno()) for s in manager.stored.values()}
        assert ragd.stop() == STOPPED
        assert path.exists()
        with socket.create_connection(("127.0.0.1", ragd.port)) as early:
            early.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            activate(ragd, manager.stored)
            count = len(manager.read())
            ragd.start()
            assert early.recv(12) == b"HTTP/1.1 200"
        assert over_unix(path) == 200
        assert inodes <= sockets_of(ragd.workers()[0]) | sockets_of(ragd.workers()[1])
        assert not [m for m in manager.read()[count:] if "FDSTORE" in m]  # the manager has them

        # What a reload leaves is taken out of the store, and what it adds goes there.
        more = free_port()
        ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"127.0.0.1:{more}"]}})
        assert ragd.cli("reload").returncode == 0
        assert manager.wait(lambda m: set(m.stored) == {f"bind=127.0.0.1%3A{p}" for p in (ragd.port, more)}, "the exchange")
        assert not path.exists()
        assert ragd.stop() == STOPPED

        # So is one that the next start does not want.
        ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}"]}})
        activate(ragd, manager.stored)
        ragd.start()
        manager.wait(lambda m: set(m.stored) == {f"bind=127.0.0.1%3A{ragd.port}"}, "the other one to go")
        assert ragd.status()["listeners"] == [f"127.0.0.1:{ragd.port}"]


def test_a_master_that_was_killed_loses_no_queue(ragd):
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}"], "workers": 2}})
    with Manager(ragd, store=True) as manager:
        ragd.start()
        manager.wait(lambda m: m.stored, "the socket")
        with Load(ragd, keepalive=1) as load:
            load.more(50)
            workers = ragd.workers()
            ragd.proc.kill()
            ragd.proc.wait()
            wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "the workers to leave")
            activate(ragd, manager.stored)
            ragd.start()
            load.more(50)
        assert load.errors == 0, load


def test_without_an_offer_nothing_is_stored(ragd):
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}"]}})
    with Manager(ragd) as manager:
        ragd.start()
        manager.wait(lambda m: any(x.get("READY") for x in m.messages), "READY=1")
        assert not manager.stored
