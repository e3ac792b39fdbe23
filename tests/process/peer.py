"""gunicorn, as `Ragd` is ragd: what the comparison in test_peer.py runs beside it."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

from ragdtest import DEADLINE, children_of, fetch, free_port, wait_for

PROGRAM = shutil.which("gunicorn")

# The application: /livez answers, /sleep blocks its worker for six seconds.
APP = """
import time
def app(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(6)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


class Gunicorn:
    """One server with two sync workers. `settings` are lines of its configuration, which is Python."""

    def __init__(self, settings=""):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ragd-peer-"))
        self.port = free_port()
        self.prefix = []
        self.file = self.dir / "conf.py"
        self.log_file = self.dir / "log"
        (self.dir / "app.py").write_text(APP)
        self.write_config(settings)

    def write_config(self, settings):
        lines = [f'bind = "127.0.0.1:{self.port}"', "workers = 2", "graceful_timeout = 10", settings]
        self.file.write_text("\n".join(lines) + "\n")

    def spawn(self):
        with open(self.log_file, "ab") as log:
            self.proc = subprocess.Popen([*self.prefix, PROGRAM, "-c", str(self.file), "app:app"], cwd=self.dir,
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
        return self

    def __enter__(self):
        try:
            self.spawn()
            wait_for(lambda: fetch(f"{self.url}/livez", 5) == 200, lambda: f"gunicorn to answer:\n{self.log()}")
            return self
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for pid in [*self.everybody(), self.proc.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.proc.wait(DEADLINE)
        shutil.rmtree(self.dir, ignore_errors=True)

    def everybody(self):
        """All descendants, and what was orphaned and still uses the directory."""
        found, todo = [], [self.proc.pid]
        while todo:
            more = children_of(todo.pop())
            found += more
            todo += more
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.readlink(f"/proc/{entry}/cwd") == str(self.dir) and int(entry) not in found:
                    found.append(int(entry))
            except OSError:
                continue
        return [pid for pid in found if pid != self.proc.pid]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.proc.pid

    def workers(self):
        return children_of(self.pid)

    def send(self, number):
        os.kill(self.pid, number)

    def log(self):
        return self.log_file.read_text(errors="replace")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE)
