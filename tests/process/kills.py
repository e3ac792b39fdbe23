"""Who gets killed with SIGKILL in tests, and how it comes back: workers and the master."""

import contextlib
import os
import random
import signal

from ragdtest import wait_for
from services import listens


def kill_worker(server, role, rng=random):
    pids = [w["pid"] for w in server.status()["workers"] if w["role"] == role and w["state"] == "READY"]
    if pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(pids), signal.SIGKILL)


def kill_master(server):
    """Its workers notice and let go of the address before they end; then the next start binds at the first try."""
    server.proc.kill()
    server.proc.wait()
    wait_for(lambda: not listens(server.port), "the orphans to close the listener")
    server.spawn()
    server.wait_ready()
