"""What the Python tests share: `Ragd` runs the real binary, `Postgres` a private database cluster.

    with Ragd({"server": {"workers": 2}}) as r:
        assert r.get("/livez").status_code == 200

Both live in a temporary directory of their own, on loopback and free ports, and leave nothing behind. RAGD_BIN names
another binary (a sanitizer build). Waiting is always for a condition, through wait_for()."""

import contextlib
import glob
import http.client
import json
import os
import pathlib
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

import httpx

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = os.environ.get("RAGD_BIN", str(ROOT / "build" / "ragd"))
PORT_MIN, PORT_MAX, PORT_SHARES = 10240, 32000, 8
DEADLINE = 30  # seconds; against hangs only, nothing is measured with it
figures = []  # what report() was told; pytest prints it at the end


def report(name, value):
    """Keeps a measured figure for the end of the run: deadlines in tests are coarse, this is the exact value."""
    figures.append((name, value))


def wait_for(condition, what, timeout=DEADLINE, every=0.01):
    """The first true value of condition(); an AssertionError naming `what` when there is none in time."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain for {what() if callable(what) else what}")
        time.sleep(every)


def free_port():
    """A port below the ephemeral range, so that no outgoing connection takes it before it is used; of those, each process
    of pytest-xdist ("gw0", "gw1", …) has some for itself."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % PORT_SHARES
    while True:
        port = random.randrange(PORT_MIN + share, PORT_MAX, PORT_SHARES)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def names_of_settings():
    """Every environment variable beside RAGD_… that configures ragd, with the files that secrets may come from."""
    key = r'^KEY\(\w+, \w+, (\w+), "[^"]*", [^,]+, (?:"[^"]*"|[^,]+), "([^"]*)"'
    found = re.findall(key, (ROOT / "config" / "keys.def").read_text(), re.M)
    return {name + end for kind, names in found for name in names.split() for end in ("", "_FILE")}


def clean_environ(more=()):
    """The environment without what would configure ragd, and with `more`."""
    settings = names_of_settings()
    keep = {k: v for k, v in os.environ.items() if not k.startswith("RAGD_") and k not in settings}
    return {**keep, **dict(more)}


def yaml_of(config):
    """Two levels are all that the configuration has; JSON scalars and lists are YAML."""
    lines = []
    for section, keys in config.items():
        lines.append(f"{section}:")
        lines += [f"  {key}: {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def fetch(url, timeout=60):
    """GET on a connection of its own: the status, or the name of the exception."""
    parts = urllib.parse.urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException) as e:
        return type(e).__name__
    finally:
        connection.close()


def stat_of(pid):
    """(state, parent) of a process, or None when it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1])


def alive(pid):
    stat = stat_of(pid)
    return stat is not None and stat[0] not in "ZX"


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = stat_of(int(entry))
            if stat and stat[1] == pid and stat[0] not in "ZX":
                found.append(int(entry))
    return sorted(found)


class Ragd:
    """One server. `config` is {section: {key: value}}; what it does not say is chosen for tests: a free port, one
    worker of each role, SQLite in the temporary directory, short deadlines."""

    def __init__(self, config=None, *, args=(), env=None, dir=None):
        self.own_dir = dir is None
        self.dir = pathlib.Path(dir or tempfile.mkdtemp(prefix="ragd-test-"))
        self.port = free_port()
        self.args = list(args)
        self.bin = BIN
        self.prefix = []  # a command that runs ragd
        self.pass_fds = ()  # descriptors that this command inherits
        self.env = env or {}
        self.stdin = subprocess.DEVNULL
        self.proc = None
        self.client = None
        self.file = self.dir / "ragd.yaml"
        self.log_file = self.dir / "stderr.log"
        self.access_file = self.dir / "stdout.log"
        self.control = self.dir / "ragd.ctl"
        self.config = {
            "server": {"bind": [f"127.0.0.1:{self.port}"], "workers": 1, "control": str(self.control)},
            "ingest": {"workers": 1},
            "database": {"url": f"sqlite:{self.dir}/ragd.db"},
            "debug": {"faults": True},
        }
        self.write_config(config or {})

    def write_config(self, changes):
        """Merges `changes` into the configuration and writes the file. A value of None removes the key."""
        for section, keys in changes.items():
            mine = self.config.setdefault(section, {})
            mine.update(keys)
            for key in [k for k, v in mine.items() if v is None]:
                del mine[key]
        self.file.write_text(yaml_of(self.config))

    # -- life

    def environ(self):
        return clean_environ(self.env)

    def spawn(self):
        """Starts the process and does not wait."""
        with open(self.log_file, "ab") as err, open(self.access_file, "ab") as out:
            self.proc = subprocess.Popen(
                [*self.prefix, self.bin, "serve", "-c", str(self.file), *self.args],
                stdin=self.stdin, stdout=out, stderr=err, cwd=self.dir, env=self.environ(),
                pass_fds=self.pass_fds,
            )  # fmt: skip
        return self

    def start(self, ready="/readyz"):
        """Starts the process and waits until `ready` answers 200, by default also until all workers are READY."""
        self.spawn()
        self.wait_ready(ready)
        if ready == "/readyz" and not any(name.startswith("RAGD_FAULT_") for name in self.env):
            self.settle()
        return self

    def settle(self):
        """Until every worker is READY, where it can be asked. One that is not meant to become so is given up after a while."""

        def settled():
            with contextlib.suppress(ValueError, subprocess.SubprocessError, OSError):
                return all(w["state"] == "READY" for w in self.status()["workers"])

        with contextlib.suppress(AssertionError):
            wait_for(settled, "all workers", 10)

    def wait_ready(self, ready="/readyz", timeout=DEADLINE):
        def answered():
            if self.proc.poll() is not None:
                raise AssertionError(f"ragd ended with {self.proc.returncode} before it was ready:\n{self.log()}")
            try:
                return self.get(ready).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(answered, lambda: f"{ready}; log:\n{self.log()}", timeout)

    def wait_exit(self, timeout=DEADLINE):
        """The exit code."""
        try:
            return self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"ragd has not ended within {timeout} s:\n{self.log()}") from None

    def send(self, number):
        os.kill(self.pid, number)

    def stop(self, number=signal.SIGTERM, timeout=DEADLINE):
        """Asks for an end and returns the exit code."""
        self.hang_up()  # idle connections are closed spread over a while: nobody shall wait for our own
        self.send(number)
        return self.wait_exit(timeout)

    def hang_up(self):
        """Closes the connections of http()."""
        if self.client:
            self.client.close()
            self.client = None

    def close(self):
        """Ends whatever still runs and removes the directory."""
        self.hang_up()
        if self.proc:
            workers = self.workers() if self.proc.poll() is None else []
            self.proc.kill()  # first of all: it would start others
            for pid in {*workers, *self.processes()} - {self.proc.pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.proc.wait()
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc):
        self.close()

    # -- looking at it

    @property
    def pid(self):
        return self.proc.pid

    def outer(self, pid):
        """The pid here of what the server calls `pid`."""
        return pid

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def processes(self):
        """Everything that runs in the server's directory, whoever its parent is."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd") == str(self.dir.resolve()) and alive(int(entry)):
                    found.append(int(entry))
        return found

    def workers(self):
        """Pids of all children, oldest first."""
        return children_of(self.pid)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def access_log(self):
        return self.access_file.read_text(errors="replace") if self.access_file.exists() else ""

    def wait_log(self, text, timeout=DEADLINE, since=0):
        """Waits for `text` in the log behind offset `since`; returns the whole line."""

        def line():
            for one in self.log()[since:].splitlines():
                if text in one:
                    return one
            return None

        return wait_for(line, lambda: f"{text!r} in the log:\n{self.log()}", timeout)

    def http(self):
        """An httpx client for this server, with keep-alive."""
        if self.client is None:
            self.client = httpx.Client(base_url=self.url, timeout=DEADLINE, trust_env=False)
        return self.client

    def get(self, path, **kw):
        return self.http().get(path, **kw)

    def post(self, path, **kw):
        return self.http().post(path, **kw)

    def request(self, method, path, **kw):
        return self.http().request(method, path, **kw)

    def connect(self, timeout=DEADLINE):
        """A plain TCP connection, for tests that care about bytes."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def cli(self, command, *args, **kw):
        """Runs `ragd COMMAND ARGS` with this server's configuration; text output is captured."""
        return self.cli_bare(command, "-c", str(self.file), *args, **kw)

    def cli_bare(self, *args, check=False, timeout=DEADLINE, **kw):
        """The same without the configuration."""
        return subprocess.run(
            [BIN, *args], capture_output=True, text=True, timeout=timeout, cwd=self.dir, env=self.environ(), check=check, **kw
        )

    def status(self):
        """What `ragd status --json` prints, asked for without a process in between: what is polled may not last long."""
        control = self.config["server"].get("control")
        if not control:
            return json.loads(self.cli_bare("status", "--json", check=True).stdout)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(DEADLINE)
            s.connect(control)
            s.sendall(b'{"cmd":"status"}\n')
            with s.makefile("rb") as answer:
                status = json.loads(answer.readline())
                s.shutdown(socket.SHUT_WR)
                answer.read()  # until the server has closed it: a test may count its descriptors
        return status


def in_flight(ragd):
    """Requests that the workers are answering right now."""
    return sum(w["in_flight"] for w in ragd.status()["workers"])


class Postgres:
    """A private cluster that listens on a free loopback port and on a unix socket in its own directory."""

    def __init__(self, options=()):
        self.options = list(options)
        self.bin = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))[-1])
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ragd-pg-"))
        self.port = free_port()
        self.proc = None
        self.as_user = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(self.dir, user.pw_uid, user.pw_gid)
            self.as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]

    def run(self, program, *args):
        command = [*self.as_user, str(self.bin / program), *args]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.dir, timeout=120)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def create(self):
        self.run("initdb", "-D", str(self.dir / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        return self.start()

    def start(self):
        # fsync guards against a crash of the machine, not of the server: the tests kill the latter only.
        settings = [f"port={self.port}", f"unix_socket_directories={self.dir}", "listen_addresses=127.0.0.1", "fsync=off",
                    "max_connections=100", "shared_buffers=32MB", *self.options]  # fmt: skip
        command = [*self.as_user, str(self.bin / "postgres"), "-D", str(self.dir / "data")]
        for setting in settings:
            command += ["-c", setting]
        with open(self.dir / "server.log", "ab") as log:
            self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)
        wait_for(self.answers, lambda: f"PostgreSQL; log:\n{self.log()}", 60, 0.05)
        return self

    def answers(self):
        assert self.proc.poll() is None, f"PostgreSQL ended:\n{self.log()}"
        command = [str(self.bin / "pg_isready"), "-q", "-h", str(self.dir), "-p", str(self.port)]
        return subprocess.run(command, timeout=30).returncode == 0

    def log(self):
        return (self.dir / "server.log").read_text(errors="replace")

    def url(self, database="postgres"):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, sql, database="postgres"):
        """Runs one statement outside of a transaction; returns its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def new_database(self):
        """The URL of a fresh, empty database."""
        name = f"t{random.randrange(10**12):012d}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def stop(self, number=signal.SIGINT):
        """SIGINT: fast shutdown; SIGQUIT: as after a crash."""
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(number)
            self.proc.wait(60)

    def kill(self):
        """kill -9 of the server process; its children notice and leave."""
        self.proc.kill()
        self.proc.wait()
        pid_file = self.dir / "data" / "postmaster.pid"
        wait_for(lambda: not self.backends(), "the backends to leave")
        pid_file.unlink(missing_ok=True)

    def backends(self):
        mark = str(self.dir / "data").encode()
        found = []
        for cmdline in glob.glob("/proc/[0-9]*/cmdline"):
            pid = int(cmdline.split("/")[2])
            try:
                if os.readlink(f"/proc/{pid}/cwd").encode() == mark and alive(pid):
                    found.append(pid)
            except OSError:
                continue
        return found

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        try:
            return self.create()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc):
        self.close()
