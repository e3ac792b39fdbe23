"""Load for the process tests: tests/tools/load.c as a context manager.

    with Load(r) as load:
        load.more(100)             # waits until 100 more requests have ended
        assert "reloaded" in hup(r)
    assert load.errors == 0, load

RAGD_LOAD_RATE sets the requests a second; a sanitizer build gets fewer."""

import json
import os
import pathlib
import struct
import subprocess
import tempfile

from ragdtest import BIN, ROOT, wait_for

BUILD = pathlib.Path(BIN).resolve().parent
PROGRAM = BUILD / "tests" / "tools" / "load"
RATE = float(os.environ.get("RAGD_LOAD_RATE") or (200 if "asan" in BUILD.name else 1000))


def program():
    """The load generator, made if it is not: `make all` leaves it out."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < (ROOT / "tests" / "tools" / "load.c").stat().st_mtime:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        subprocess.run(["make", "-s", f"BUILD={BUILD}", str(PROGRAM)], cwd=ROOT, env=environ, check=True, timeout=120)
    return PROGRAM


class Load:
    """GET requests at a fixed rate until the end of the block. `where` is a Ragd, or addresses: "127.0.0.1:8000",
    "unix:/run/x.sock". Afterwards `errors`, `stale`, `status` {code: count}, `latency_ms` {p50, p99, max, max_at} and
    `failures` say what happened; all fields are those of the program's report.

    `errors` are requests without a 2xx answer. `stale` are none: the server closed an idle connection at the moment at
    which it was used again, and the request was answered on another one, as every client does it."""

    def __init__(self, *where, path="/livez", rate=None, connections=32, keepalive=50, timeout=30):
        self.where = [f"127.0.0.1:{w.port}" if hasattr(w, "port") else w for w in where]
        self.options = {"-p": path, "-r": rate or RATE, "-c": connections, "-k": keepalive, "-t": timeout}
        self.proc = None

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="ragd-load-")
        self.progress = pathlib.Path(self.dir.name, "progress")
        command = [str(program()), "-f", str(self.progress)]
        for option, value in self.options.items():
            command += [option, str(value)]
        with open(self.dir.name + "/failures", "wb") as failures:
            self.proc = subprocess.Popen([*command, *self.where], stdout=subprocess.PIPE, stderr=failures, text=True)
        self.more(5)
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        """Lets what is in flight end, and takes the report. Does nothing the second time."""
        if self.proc is None:
            return self
        self.proc.terminate()
        out, _ = self.proc.communicate(timeout=self.options["-t"] + 30)
        self.proc = None
        told = pathlib.Path(self.dir.name, "failures").read_text()
        self.dir.cleanup()
        assert out, told
        self.__dict__.update(json.loads(out))
        self.failures = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        assert not [line for line in told.splitlines() if not line.startswith("{")], told  # a sanitizer's report, say
        return self

    def seen(self):
        """(requests that have ended, errors among them) so far."""
        data = self.progress.read_bytes() if self.progress.exists() else b""
        return struct.unpack("=2Q", data) if len(data) == 16 else (0, 0)

    def more(self, count, timeout=60):
        """Waits until `count` more requests have ended."""
        assert self.proc.poll() is None, "the load generator has ended"
        goal = self.seen()[0] + count
        wait_for(lambda: self.seen()[0] >= goal, lambda: f"{count} more requests: {self.seen()}", timeout)

    def __repr__(self):
        return json.dumps({k: v for k, v in self.__dict__.items() if k in FIELDS}) if self.proc is None else "running"


FIELDS = ("requests", "errors", "stale", "skipped", "status", "refused", "reset_before", "reset_within", "timeout", "other",
          "latency_ms", "failures")  # fmt: skip
