"""Servers beside ragd for tests, each on a port of its own that it keeps over restarts: Redis, Qdrant, a model."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

from ragdtest import ROOT, free_port, wait_for


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except (ConnectionRefusedError, ConnectionResetError):  # a reset: it was closed while it was asked
        return False
    return True


class Service:
    """A server beside ragd, on a port of its own that it keeps over restarts."""

    def __init__(self):
        self.port = free_port()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ragd-service-"))
        self.proc = None

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.proc = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.dir)
        wait_for(lambda: listens(self.port), lambda: f"{self.command()}:\n{(self.dir / 'log').read_text()}")
        return self

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdin.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Redis(Service):
    def command(self):
        return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


class Model(Service):
    """Embeddings and answers in OpenAI's wire format; ends with its standard input."""

    dimension = 256

    def command(self):
        program = str(ROOT / "tests" / "openai_server.py")
        return [sys.executable, program, "--port", str(self.port), "--dimension", str(self.dimension)]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"


class Qdrant(Service):
    """The real engine behind a small front, from PyPI."""

    python = os.environ.get("RAGD_TEST_VENV", str(ROOT / "build" / "venv")) + "/bin/python3"

    @classmethod
    def missing(cls):
        """Why it cannot run here, or None."""
        try:
            found = subprocess.run([cls.python, "-c", "import qdrant_edge, qdrant_client"], capture_output=True).returncode == 0
        except OSError:
            found = False
        return None if found else "qdrant-edge-py and qdrant-client are not in build/venv: deploy/install-pypi.sh"

    def command(self):
        (self.dir / "data").mkdir(exist_ok=True)
        return [self.python, str(ROOT / "tests" / "qdrant_front.py"), str(self.dir / "data"), "", str(self.port)]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"
