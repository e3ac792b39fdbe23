"""A service manager for tests: sockets that it binds and passes, notifications that it reads, a store of descriptors."""

import os
import socket
import sys

from ragdtest import wait_for

# Moves the descriptors to 3, 4 … and becomes the program: LISTEN_PID is known here only.
LAUNCH = """
import fcntl, os, sys
fds, pid, program = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in fds if fd]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
    os.close(fd)
os.environ["LISTEN_PID"] = pid or str(os.getpid())
os.execvp(program[0], program)
"""


def listening(address, backlog=128):
    """A listening socket, TCP on loopback for a port and unix for a path."""
    s = socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", address) if isinstance(address, int) else str(address))
    s.listen(backlog)
    return s


def activate(ragd, sockets, pid=""):
    """Passes {name: socket} to the next start of `ragd`. `pid` is for a wrong LISTEN_PID."""
    fds = [s.fileno() for s in sockets.values()]
    ragd.pass_fds = fds
    ragd.prefix = [sys.executable, "-c", LAUNCH, ",".join(map(str, fds)), str(pid)]
    ragd.env = {**ragd.env, "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(sockets)}


class Manager:
    """$NOTIFY_SOCKET and, with `store`, $FDSTORE. `messages` are [{name: value}], `stored` {name: socket}."""

    def __init__(self, ragd, store=False):
        self.path = ragd.dir / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        self.messages, self.stored = [], {}
        ragd.env = {**ragd.env, "NOTIFY_SOCKET": str(self.path), **({"FDSTORE": "32"} if store else {})}

    def read(self):
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            except BlockingIOError:
                return self.messages
            message = dict(line.split("=", 1) for line in data.decode().splitlines())
            self.messages.append(message)
            name = message.get("FDNAME")
            if "FDSTORE" in message:
                assert len(fds) == 1 and ":" not in name and name.isascii() and len(name) < 256
                self.stored[name] = socket.socket(fileno=fds[0])
            else:
                assert not fds
            if "FDSTOREREMOVE" in message:
                self.stored.pop(name).close()

    def wait(self, condition, what):
        """Reads messages until condition(self) is true."""
        return wait_for(lambda: self.read() is not None and condition(self), lambda: f"{what}: {self.messages}")

    def close(self):
        self.socket.close()
        for s in self.stored.values():
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def inode(fd):
    return os.fstat(fd).st_ino
