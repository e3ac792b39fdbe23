"""What the tests of upgrades share: a server whose binary can be exchanged, and what listens to it meanwhile."""

import contextlib
import os
import shutil
import socket
import struct
import threading
import time

from ragdtest import BIN, Ragd, alive, wait_for
from watch import Pid1


class Server(Ragd):
    """A server whose binary is a symbolic link in its directory, so that another one can be put there."""

    def __init__(self, config=None, **kw):
        super().__init__(config, **kw)
        self.bin = str(self.dir / "ragd")
        self.pidfile = self.dir / "ragd.pid"
        self.write_config({"server": {"pidfile": str(self.pidfile), "upgrade_timeout": "30s", "check_timeout": "30s"}})
        self.release()

    def release(self, script=None, mode=0o755):
        """Puts a binary in place: the real one, or a script. `exec -a "$0" "$RAGD" "$@"` runs the real one."""
        fresh = self.dir / f"release-{time.monotonic_ns()}"
        if script is None:
            shutil.copy(BIN, fresh)  # a file of its own: /proc/PID/exe tells which one runs
        else:
            fresh.write_text(f"#!/bin/bash\nRAGD={BIN}\n{script}\n")
            fresh.chmod(mode)
        link = self.dir / "fresh"
        link.symlink_to(fresh)
        os.replace(link, self.bin)
        return str(fresh)

    def server(self):
        """Pid of the master that answers on the control socket."""
        return self.status()["pid"]


class Server1(Server, Pid1):
    """The same as PID 1: there the new binary takes over the process itself."""


class Manager:
    """What systemd listens to: messages with the pid of their sender."""

    def __init__(self, r):
        self.path = str(r.dir / "notify")
        r.env = {**r.env, "NOTIFY_SOCKET": self.path}
        self.seen = []

    def __enter__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(self.path)
        self.socket.settimeout(0)
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def messages(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                text, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
                self.seen.append((struct.unpack("3i", ancillary[0][2])[0], text.decode()))
        return self.seen

    def index(self, sender, beginning, after=-1):
        """Waits for a message of this process; its place among all."""

        def find():
            for i, (pid, text) in enumerate(self.messages()):
                if i > after and pid == sender and text.startswith(beginning):
                    return i + 1
            return None

        return wait_for(find, lambda: f"{beginning!r} of {sender}: {self.seen}") - 1


class Pidfile:
    """Reads the pidfile all the time; `wrong` is what was no pid."""

    def __init__(self, r):
        self.path = r.pidfile
        self.wrong, self.pids, self.end = [], set(), threading.Event()

    def run(self):
        while not self.end.is_set():
            try:
                text = self.path.read_text()
            except OSError as e:
                text = str(e)
            if text.strip().isdigit():
                self.pids.add(int(text))
            else:
                self.wrong.append(text)

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.end.set()
        self.thread.join()


def upgrade(r, **kw):
    """`ragd upgrade`; the pid of the new master."""
    done = r.cli("upgrade", **kw)
    assert done.returncode == 0, done.stderr + r.log()
    pid = int(done.stdout.split("pid ")[1].split()[0])
    assert pid == r.server() and alive(pid)
    return pid


def reloads(r):
    return r.log().count("reloaded in")


def stop_all(r):
    """Stops whoever is the server, and sees that nothing is left."""
    pid = r.server()
    assert r.cli("stop").returncode == 0
    wait_for(lambda: not alive(pid) and not r.processes(), lambda: f"{r.processes()} to end:\n{r.log()}")
    assert not r.control.exists() and not r.pidfile.exists()
