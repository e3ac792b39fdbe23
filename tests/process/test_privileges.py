"""Privileges: workers become another user, in another root, with limits of their own; the master stays who it was."""

import grp
import os
import pathlib
import pwd
import signal
import socket
import threading

import pytest

from ragdtest import Ragd, alive, fetch, in_flight, wait_for

CONFIG = 78
NOBODY = pwd.getpwnam("nobody")
STRANGER = 43210  # a number that has no entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def ragd():
    """A server that is configured for `nobody`, who owns its directory, and not started."""
    r = Ragd({"server": {"user": "nobody"}, "ingest": {"workers": 1}})
    os.chown(r.dir, NOBODY.pw_uid, NOBODY.pw_gid)
    yield r
    r.close()


def status_of(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def limits_of(pid, name):
    """(soft, hard) as /proc prints them."""
    for line in pathlib.Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith(name):
            return tuple(line[len(name) :].split()[:2])
    raise AssertionError(f"no {name!r} in the limits of {pid}")


def test_workers_are_somebody_else_and_cannot_come_back(ragd):
    ragd.start()
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    groups = {str(g.gr_gid) for g in grp.getgrall() if "nobody" in g.gr_mem} | {gid}
    assert len(ragd.workers()) == 2
    for pid in ragd.workers():
        status = status_of(pid)
        assert status["Uid"] == [uid] * 4
        assert status["Gid"] == [gid] * 4
        assert set(status["Groups"]) == groups
        assert status["NoNewPrivs"] == ["1"]
        assert {status[c][0] for c in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status_of(ragd.pid)["Uid"] == ["0"] * 4
    assert ragd.post("/api/v1/collections", json={"name": "a"}).status_code == 201
    assert (ragd.dir / "ragd.db").stat().st_uid == NOBODY.pw_uid


def test_numbers_without_an_entry(ragd):
    os.chown(ragd.dir, STRANGER, STRANGER + 1)
    ragd.write_config({"server": {"user": str(STRANGER), "group": str(STRANGER + 1)}})
    ragd.start()
    status = status_of(ragd.workers()[0])
    assert status["Uid"] == [str(STRANGER)] * 4
    assert status["Gid"] == [str(STRANGER + 1)] * 4
    assert status["Groups"] == [str(STRANGER + 1)]
    ragd.stop()
    ragd.write_config({"server": {"group": None}})
    assert ragd.spawn().wait_exit() == CONFIG
    assert "server.group" in ragd.log().splitlines()[-1]


def test_group_alone(ragd):
    group = grp.getgrgid(NOBODY.pw_gid).gr_name
    ragd.write_config({"server": {"user": None, "group": group}})
    ragd.start()
    status = status_of(ragd.workers()[0])
    assert status["Uid"] == ["0"] * 4
    assert status["Gid"] == [str(NOBODY.pw_gid)] * 4
    assert status["Groups"] == [str(NOBODY.pw_gid)]


@pytest.mark.parametrize("key, what", [("user", "no user 'nemo-x'"), ("group", "no group 'nemo-x'")])
def test_names_that_nobody_has(ragd, key, what):
    ragd.write_config({"server": {key: "nemo-x"}})
    assert ragd.spawn().wait_exit() == CONFIG
    assert f"server.{key}: there is {what}" in ragd.log()


def test_who_is_not_root_is_told_so(ragd):
    """Under another user than the configured one: an error that names the key. As that user: all is well."""
    ragd.prefix = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--inh-caps=-all"]
    os.chown(ragd.dir, STRANGER, STRANGER)
    assert ragd.spawn().wait_exit() == CONFIG
    line = ragd.wait_log("server.user: ")
    assert f"uid {STRANGER} without CAP_" in line and "start it as root" in line
    ragd.write_config({"server": {"user": str(STRANGER)}})
    ragd.start()
    assert status_of(ragd.workers()[0])["Uid"] == [str(STRANGER)] * 4


def test_the_user_cannot_be_changed_by_a_reload(ragd):
    ragd.start()
    before = ragd.workers()
    ragd.write_config({"server": {"user": None}})
    done = ragd.cli("reload")
    assert done.returncode == 1 and "server.user cannot be changed by a reload" in done.stderr
    assert ragd.workers() == before


def test_workers_that_run_as_root_are_worth_a_warning(ragd):
    ragd.write_config({"server": {"user": None}})
    ragd.start()
    assert "WARN" in ragd.wait_log("the workers run as root: set server.user").upper()


def test_a_port_of_the_first_1024(ragd):
    """The master binds it; the workers could not."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as f:
        first = int(f.read())
    for port in range(first - 1, 0, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ragd.port = port
        break
    else:
        pytest.skip("every port is open to everybody here")
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}"]}})
    ragd.start()
    assert ragd.get("/livez").status_code == 200


def test_umask_and_limits(ragd):
    ragd.write_config({"server": {"umask": "037", "limit_nofile": 12345, "limit_core": "none"}})
    ragd.start()
    worker = ragd.workers()[0]
    assert status_of(worker)["Umask"] == ["0037"]
    assert limits_of(worker, "Max open files")[0] == "12345"
    assert limits_of(worker, "Max core file size") == ("0", "0")
    # Not dumpable: the kernel gives the process' own files to root.
    assert pathlib.Path(f"/proc/{worker}/environ").stat().st_uid == 0
    ragd.write_config({"server": {"limit_nofile": None, "limit_core": None}})
    before = set(ragd.workers())
    assert ragd.cli("reload").returncode == 0
    worker = wait_for(lambda: set(ragd.workers()) - before, "the new workers").pop()
    soft, hard = limits_of(worker, "Max open files")
    assert soft == hard
    assert pathlib.Path(f"/proc/{worker}/environ").stat().st_uid == NOBODY.pw_uid


def test_a_reload_to_an_impossible_limit_changes_nothing(ragd):
    with open("/proc/sys/fs/nr_open") as f:
        too_many = int(f.read()) + 1
    ragd.start()
    before = ragd.workers()
    ragd.write_config({"server": {"limit_nofile": too_many}})
    done = ragd.cli("reload")
    assert done.returncode == 1 and "server.limit_nofile" in done.stderr
    assert ragd.workers() == before


def test_too_few_descriptors_for_the_connections_are_announced(ragd):
    ragd.write_config({"server": {"limit_nofile": 1000}, "http": {"max_connections": 5000}})
    ragd.start()
    line = ragd.wait_log("too few for http.max_connections")
    assert "1000" in line and "5000" in line


def test_new_rights_may_be_allowed(ragd):
    ragd.write_config({"server": {"no_new_privs": False}})
    ragd.start()
    assert status_of(ragd.workers()[0])["NoNewPrivs"] == ["0"]


def test_workers_of_another_user_end_with_the_master(ragd):
    """A change of user clears the signal at the parent's death: it is asked for afterwards."""
    ragd.write_config({"server": {"workers": 3, "graceful_timeout": "1s"}})
    ragd.start()
    workers = ragd.workers()
    assert len(workers) == 4
    os.kill(ragd.pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers), "the workers to leave", 15)


def test_a_worker_of_another_user_that_spins_ends_without_a_master(ragd):
    """It reads no end of a channel: the signal makes it set its alarm."""
    ragd.write_config({"server": {"graceful_timeout": "1s", "fast_timeout": "1s"}})
    ragd.start()
    workers = ragd.workers()
    spinning = threading.Thread(target=fetch, args=(f"{ragd.url}/debug/spin?ms=600000",))
    spinning.start()
    wait_for(lambda: in_flight(ragd) == 1, "the request")
    os.kill(ragd.pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers), "the workers to leave", 15)
    spinning.join()


def test_chroot(ragd):
    """With a database inside; the path is the workers' one. The log is the master's, and outside."""
    inside = ragd.dir / "inside"
    for name in ("data", "tmp"):
        (inside / name).mkdir(parents=True)
        os.chown(inside / name, NOBODY.pw_uid, NOBODY.pw_gid)
    ragd.write_config({
        "server": {"chroot": str(inside)},
        "database": {"url": "sqlite:/data/ragd.db"},
        "log": {"access": str(ragd.dir / "access.log")},
    })  # fmt: skip
    ragd.start()
    for pid in ragd.workers():
        assert os.readlink(f"/proc/{pid}/root") == str(inside)
        assert os.readlink(f"/proc/{pid}/cwd") == str(inside)
    assert os.readlink(f"/proc/{ragd.pid}/root") == "/"
    made = ragd.post("/api/v1/collections", json={"name": "a"})
    assert made.status_code == 201
    files = {"file": ("a.md", b"# Kettles\n\n" + b"Descale them every month. " * 20000, "text/markdown")}
    assert ragd.post(f"/api/v1/collections/{made.json()['id']}/documents", files=files).status_code in (201, 202)
    ready = f"/api/v1/collections/{made.json()['id']}/documents?status=ready"
    wait_for(lambda: ragd.get(ready).json()["data"], "the document to be indexed")
    assert (inside / "data" / "ragd.db").stat().st_uid == NOBODY.pw_uid
    assert not (pathlib.Path("/data") / "ragd.db").exists()
    wait_for(lambda: all(w["rss_kb"] > 0 for w in ragd.status()["workers"]), "memory to be measured, without a /proc")


def test_after_an_upgrade_they_are_the_same(ragd):
    log = ragd.dir / "access.log"
    ragd.write_config({"log": {"access": str(log)}, "server": {"umask": "027"}})
    ragd.start()
    done = ragd.cli("upgrade")
    assert done.returncode == 0, done.stderr + ragd.log()
    status = ragd.status()
    assert status["pid"] != ragd.pid and status_of(status["pid"])["Uid"] == ["0"] * 4
    for worker in status["workers"]:
        has = status_of(worker["pid"])
        assert has["Uid"] == [str(NOBODY.pw_uid)] * 4 and has["NoNewPrivs"] == ["1"] and has["Umask"] == ["0027"]
    assert log.stat().st_uid == NOBODY.pw_uid
    workers = [w["pid"] for w in status["workers"]]
    os.kill(status["pid"], signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers), "the workers to leave", 15)


# -- files that the master opens for them


def test_logs_belong_to_the_workers_also_after_a_rotation(ragd):
    log = ragd.dir / "access.log"
    ragd.write_config({"log": {"access": str(log)}})
    ragd.start()
    for round in range(2):
        ragd.get(f"/livez?{round}")
        wait_for(lambda: log.exists() and f"/livez?{round} " in log.read_text(), "the line")
        st = log.stat()
        assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (NOBODY.pw_uid, NOBODY.pw_gid, 0o640)
        log.rename(ragd.dir / f"access.log.{round}")
        assert ragd.cli("reopen").returncode == 0
        assert log.exists()


def test_a_log_that_is_there_stays_whose_it_is(ragd):
    log = ragd.dir / "access.log"
    log.write_text("old\n")
    log.chmod(0o600)
    ragd.write_config({"log": {"access": str(log)}})
    ragd.start()
    ragd.get("/livez")
    wait_for(lambda: "/livez" in log.read_text(), "the line")
    assert log.read_text().startswith("old\n")
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (0, 0o600)


@pytest.mark.parametrize("link, what", [(os.symlink, "symbolic link"), (os.link, "hard links")])
def test_a_link_in_the_place_of_the_log_gains_nothing(ragd, link, what):
    """The workers' user may write to the directory: the master, as root, must not open what he chooses."""
    precious, log = ragd.dir / "precious", ragd.dir / "access.log"
    precious.write_text("precious")
    link(precious, log)
    ragd.write_config({"log": {"access": str(log)}})
    assert ragd.spawn().wait_exit() == CONFIG
    assert what in ragd.wait_log(f"log.access: {log}")
    assert precious.read_text() == "precious" and precious.stat().st_uid == 0


def test_unix_sockets_belong_to_the_workers(ragd):
    path = ragd.dir / "http.sock"
    ragd.write_config({"server": {"bind": [f"127.0.0.1:{ragd.port}", f"unix:{path}"], "umask": "077"}})
    ragd.start()
    st = path.lstat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o777) == (NOBODY.pw_uid, NOBODY.pw_gid, 0o666)
    control = ragd.control.lstat()
    assert (control.st_uid, control.st_mode & 0o777) == (0, 0o600)


@pytest.mark.parametrize(
    "server, what",
    [
        ({"chroot": "/nowhere/at/all"}, "/nowhere/at/all: No such file"),
        ({"chroot": "/etc/passwd"}, "/etc/passwd is not a directory"),
        ({"chroot": "/tmp", "user": None}, "set server.user"),
        ({"chroot": "tmp"}, "does not begin with /"),
        ({"umask": "8"}, "not an octal number"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(ragd, server, what):
    ragd.write_config({"server": server})
    assert ragd.spawn().wait_exit() == CONFIG
    key = next(iter(server))
    assert f"server.{key}: " in ragd.log() and what in ragd.log()
