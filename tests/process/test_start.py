"""Starting: exit codes, what is said about a failure, addresses, pidfile, unix sockets."""

import os
import signal
import socket
import stat
import subprocess
import threading

import httpx
import pytest

from ragdtest import BIN, DEADLINE, Ragd, alive, clean_environ, free_port, wait_for
from watch import hup

STOPPED, USAGE, BIND, LOCKED, CONFIG = 0, 2, 5, 6, 78


@pytest.fixture
def ragd():
    """A server that is configured but not started."""
    r = Ragd()
    yield r
    r.close()


def run(*args, **kw):
    return subprocess.run([BIN, *args], capture_output=True, text=True, timeout=DEADLINE, env=clean_environ(), **kw)


def test_says_where_it_runs_and_how_long_a_stop_takes(ragd):
    ragd.write_config({"server": {"workers": 2, "graceful_timeout": "7s"}})
    ragd.start()
    log = ragd.log()
    assert f"running on http://127.0.0.1:{ragd.port}" in log
    assert "2 http and 1 ingest workers; a stop takes at most 10.0 s" in log
    assert str(ragd.file) in log
    assert ragd.stop() == STOPPED
    assert "stopped" in ragd.log()


def test_roles_decide_which_workers_run(ragd):
    ragd.args = ["--role", "http"]
    ragd.start()
    assert [w["role"] for w in ragd.status()["workers"]] == ["http"]
    assert ragd.stop() == STOPPED
    ragd.args = ["--role=ingest"]
    ragd.spawn()
    wait_for(lambda: "ready after" in ragd.log().split("stopped")[-1], ragd.log)
    assert [w["role"] for w in ragd.status()["workers"]] == ["ingest"]


def test_bad_configuration_exits_78_and_names_the_place(ragd):
    ragd.write_config({"server": {"worker": 3}})
    assert ragd.spawn().wait_exit() == CONFIG
    assert f"{ragd.file}:" in ragd.log() and "server.workers" in ragd.log()
    check = ragd.cli("check")
    assert check.returncode == CONFIG
    assert f"{ragd.file}:5:3: " in check.stderr and "server.workers" in check.stderr


@pytest.mark.parametrize(
    "address, reason",
    [
        ("example.org:80", "names a host"),
        ("127.0.0.1", "port"),
        ("127.0.0.1:70000", "port"),
        ("::1:80", "bracket"),
        ("[::g]:80", "IPv6"),
        ("unix:", "path"),
        ("unix:/" + "x" * 120, "too long"),
    ],
)
def test_check_refuses_addresses_with_the_reason(ragd, address, reason):
    ragd.write_config({"server": {"bind": [address]}})
    done = ragd.cli("check")
    assert done.returncode == CONFIG
    assert reason in done.stderr


def test_occupied_port_exits_5_and_names_the_holder(ragd):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", ragd.port))
        holder.listen()
        assert ragd.spawn().wait_exit() == BIND
    line = ragd.wait_log("cannot listen")
    assert f"127.0.0.1:{ragd.port}" in line and f"pid {os.getpid()} (" in line


def test_port_0_reports_the_port_that_was_given(ragd):
    ragd.write_config({"server": {"bind": ["127.0.0.1:0"]}})
    ragd.spawn()
    line = ragd.wait_log("running on http://127.0.0.1:")
    ragd.port = int(line.rsplit(":", 1)[1])
    assert ragd.port != 0
    ragd.wait_ready()


def test_all_addresses_of_a_port(ragd):
    ragd.write_config({"server": {"bind": [f":{ragd.port}"]}})
    ragd.start()
    assert httpx.get(f"http://127.0.0.1:{ragd.port}/livez", trust_env=False).status_code == 200
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
        assert httpx.get(f"http://[::1]:{ragd.port}/livez", trust_env=False).status_code == 200


def test_platform_port_variable_listens_on_all_addresses(ragd):
    ragd.env = {"PORT": str(ragd.port)}
    ragd.write_config({"server": {"bind": None}})
    ragd.start()
    assert f"running on http://0.0.0.0:{ragd.port}" in ragd.log()


# -- unix sockets


def over_unix(path):
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://ragd") as client:
        return client.get("/livez").status_code


def test_unix_socket_serves_and_disappears(ragd):
    path = ragd.dir / "http.sock"
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}"]}})
    ragd.start()
    assert over_unix(path) == 200
    assert ragd.stop() == STOPPED
    assert not path.exists()


def test_socket_file_of_a_dead_server_is_replaced(ragd):
    path = ragd.dir / "http.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}"]}})
    ragd.start()
    assert over_unix(path) == 200


def test_socket_file_of_a_live_server_is_left_alone(ragd):
    path = ragd.dir / "http.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        ragd.write_config({"server": {"bind": [f"unix:{path}"]}})
        assert ragd.spawn().wait_exit() == BIND
        assert f"pid {os.getpid()} (" in ragd.wait_log("cannot listen")
        assert path.exists()


def test_a_file_that_is_no_socket_is_not_removed(ragd):
    path = ragd.dir / "http.sock"
    path.write_text("precious")
    ragd.write_config({"server": {"bind": [f"unix:{path}"]}})
    assert ragd.spawn().wait_exit() == BIND
    assert path.read_text() == "precious"


# -- pidfile


def test_pidfile_holds_the_pid_and_goes_with_the_server(ragd):
    path = ragd.dir / "ragd.pid"
    ragd.write_config({"server": {"pidfile": str(path)}})
    ragd.start()
    assert path.read_text() == f"{ragd.pid}\n"
    assert ragd.stop() == STOPPED
    assert not path.exists()


def test_pidfile_that_names_a_live_stranger_does_not_prevent_a_start(ragd):
    path = ragd.dir / "ragd.pid"
    path.write_text(f"{os.getpid()}\n")
    ragd.write_config({"server": {"pidfile": str(path)}})
    ragd.start()
    assert path.read_text() == f"{ragd.pid}\n"


@pytest.mark.parametrize("name", ["missing/ragd.pid", ".", "link", "precious", "fifo"])
def test_a_pidfile_that_cannot_be_one_is_refused_and_left_alone(ragd, name):
    path = ragd.dir / name
    if name == "link":
        path.symlink_to(ragd.file)
    elif name == "precious":
        path.write_text("17 reasons")
    elif name == "fifo":
        os.mkfifo(path)
    ragd.write_config({"server": {"pidfile": str(path)}})
    assert ragd.spawn().wait_exit() == CONFIG
    assert f"server.pidfile: {path}" in ragd.log() or f"server.pidfile: cannot open {path}" in ragd.log()
    check = ragd.cli("check")
    assert check.returncode == CONFIG and "server.pidfile: " in check.stderr
    assert name != "precious" or path.read_text() == "17 reasons"


def test_a_reload_moves_the_pidfile_and_takes_no_one_elses(ragd):
    paths = [ragd.dir / f"{name}.pid" for name in ("first", "second")]
    held = Ragd({"server": {"pidfile": str(ragd.dir / "held.pid")}})
    ragd.write_config({"server": {"pidfile": str(paths[0])}})
    ragd.start()
    try:
        held.start()
        for bad, said in [("held.pid", f"pid {held.pid} holds server.pidfile"), ("missing/ragd.pid", "server.pidfile: cannot open")]:
            ragd.write_config({"server": {"pidfile": str(ragd.dir / bad)}})
            done = ragd.cli("reload")
            assert done.returncode == 1 and said in done.stderr
        with socket.create_server(("127.0.0.1", 0)) as taken:  # another reason: the file that was made goes again
            bind = [f"127.0.0.1:{ragd.port}", f"127.0.0.1:{taken.getsockname()[1]}"]
            ragd.write_config({"server": {"pidfile": str(paths[1]), "bind": bind}})
            assert ragd.cli("reload").returncode == 1
        assert paths[0].read_text() == f"{ragd.pid}\n" and not paths[1].exists()
        workers = ragd.workers()
        ragd.write_config({"server": {"bind": bind[:1]}})
        assert ragd.cli("reload").returncode == 0
        assert paths[1].read_text() == f"{ragd.pid}\n" and not paths[0].exists()
        assert ragd.workers() == workers
        assert held.stop() == STOPPED
        held.write_config({"server": {"pidfile": str(paths[1])}})
        assert held.spawn().wait_exit() == LOCKED
        ragd.write_config({"server": {"pidfile": None}})
        assert ragd.cli("reload").returncode == 0 and not paths[1].exists()
    finally:
        held.close()


def test_a_reload_makes_the_pidfile_again(ragd):
    """Somebody has removed it, and with it what keeps a second server from starting."""
    path = ragd.dir / "ragd.pid"
    ragd.write_config({"server": {"pidfile": str(path)}})
    ragd.start()
    path.unlink()
    assert ragd.cli("reload").returncode == 0
    assert path.read_text() == f"{ragd.pid}\n" and f"{path} was gone" in ragd.log()
    path.unlink()
    path.write_text("17 reasons")  # somebody else's
    assert ragd.cli("reload").returncode == 0
    assert path.read_text() == "17 reasons" and "cannot be made again" in ragd.log()
    path.unlink()
    assert ragd.cli("reload").returncode == 0
    other = Ragd({"server": {"pidfile": str(path)}})
    try:
        assert other.spawn().wait_exit() == LOCKED
    finally:
        other.close()
    assert ragd.stop() == STOPPED
    assert not path.exists()


def test_of_many_starts_at_once_one_wins(tmp_path):
    path = tmp_path / "ragd.pid"
    # The same port for all: without the lock the losers would fail to bind, which is another exit code.
    port = free_port()
    servers = [Ragd({"server": {"pidfile": str(path), "bind": [f"127.0.0.1:{port}"]}}) for _ in range(20)]
    try:
        for server in servers:
            server.spawn()
        wait_for(lambda: sum(s.proc.poll() is not None for s in servers) == len(servers) - 1, "all but one to end")
        codes = [s.proc.poll() for s in servers]
        winner = servers[codes.index(None)]
        assert sorted(c for c in codes if c is not None) == [LOCKED] * (len(servers) - 1)
        wait_for(lambda: path.read_text() == f"{winner.pid}\n", "the winner's pid")
        assert "another instance runs" in next(s for s in servers if s is not winner).log()
        assert winner.stop() == STOPPED
    finally:
        for server in servers:
            server.close()


def test_pidfile_is_free_again_after_kill_9(ragd):
    path = ragd.dir / "ragd.pid"
    ragd.write_config({"server": {"pidfile": str(path)}})
    ragd.start()
    workers = ragd.workers()
    ragd.send(signal.SIGKILL)
    ragd.wait_exit()
    wait_for(lambda: not any(alive(p) for p in workers), "the workers to leave")
    ragd.start()
    assert path.read_text() == f"{ragd.pid}\n"


def test_pidfile_is_never_absent_or_empty_while_reloads_go_on(ragd):
    path, seen, over = ragd.dir / "ragd.pid", [], threading.Event()
    ragd.write_config({"server": {"pidfile": str(path)}})
    ragd.start()

    def poll():
        while not over.wait(0.001):
            try:
                seen.append(path.read_text())
            except FileNotFoundError:
                seen.append("absent")

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        for _ in range(50):
            assert "reloaded" in hup(ragd)
    finally:
        over.set()
        poller.join()
    assert len(seen) > 100 and set(seen) == {f"{ragd.pid}\n"}


# -- command line


def test_unknown_command_names_the_nearest():
    done = run("srve")
    assert done.returncode == USAGE
    assert "did you mean 'serve'" in done.stderr


@pytest.mark.parametrize(
    "args", [[], ["serve", "extra"], ["serve", "--role", "both"], ["serve", "-c"], ["dump", "--yaml"], ["check", "x"]]
)
def test_wrong_usage_exits_2(args):
    assert run(*args).returncode == USAGE


@pytest.mark.parametrize("args", [["--help"], ["help"], ["-h"], ["serve", "--help"], ["--version"], ["version", "--json"]])
def test_help_and_version_go_to_stdout(args):
    done = run(*args)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ragd" in done.stdout or "version" in done.stdout


def test_every_command_has_help():
    listing = run("help").stdout.split("Options of all commands")[0]
    names = [line.split()[0] for line in listing.splitlines() if line.startswith("  ") and line.strip()]
    assert {"serve", "check", "dump", "status", "stop", "version"} <= set(names)
    for name in names:
        done = run(name, "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"usage: ragd {name} "), name


def test_options_may_stand_before_and_behind_the_command(ragd):
    before = run("-c", str(ragd.file), "dump", cwd=ragd.dir)
    behind = run("dump", "-c", str(ragd.file), "--set", "server.workers=1", cwd=ragd.dir)
    assert before.returncode == behind.returncode == 0
    assert f"127.0.0.1:{ragd.port}" in before.stdout and f"127.0.0.1:{ragd.port}" in behind.stdout


def test_unwritable_output_is_an_error():
    with open("/dev/full", "w") as full:
        done = subprocess.run([BIN, "dump", "--example"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE, env=clean_environ())
    assert done.returncode == 1
    assert "cannot write" in done.stderr


# -- access log


def test_access_log_to_a_file(ragd):
    path = ragd.dir / "access.log"
    ragd.write_config({"log": {"access": str(path)}})
    ragd.start()
    ragd.get("/livez")
    wait_for(lambda: "/livez" in path.read_text(), "the access log line")
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    assert "/livez" not in ragd.access_log()


@pytest.mark.parametrize("key", ["access", "file"])
@pytest.mark.parametrize("name", ["missing/x.log", "."])
def test_a_log_that_cannot_be_opened_is_a_bad_configuration(ragd, key, name):
    ragd.write_config({"log": {key: str(ragd.dir / name)}})
    assert ragd.spawn().wait_exit() == CONFIG
    assert f"log.{key}: cannot open " in ragd.log()
    check = ragd.cli("check")
    assert check.returncode == CONFIG and f"log.{key}: cannot " in check.stderr


def test_many_starts_and_stops_in_a_row_leave_nothing(ragd):
    for _ in range(5):
        ragd.start()
        assert ragd.stop() == STOPPED
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", ragd.port))
