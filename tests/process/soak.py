#!/usr/bin/python3
"""Reloads in a row under load: no request fails, and the master is as large afterwards as before.

usage: soak.py [--reloads 1000]      `make soak`; RAGD_BIN names the binary"""

import argparse
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent)]

from load import BUILD, Load  # noqa: E402
from ragdtest import Ragd, report, wait_for  # noqa: E402
from watch import descriptors, status_field, threads, zombies  # noqa: E402

WARM_UP = 10
GROWTH_KB = 128  # of the master's own memory, over the whole soak: a leak of 128 bytes in each of 1000 reloads
CONFIG = {"server": {"workers": 4, "graceful_timeout": "2s"}, "ingest": {"workers": 1}}


def measure(r):
    """What must not grow: descriptors and threads of the master, and the KB of memory that are its own."""
    wait_for(lambda: len(r.workers()) == 5 and not zombies(r.pid), lambda: f"the old workers to leave: {r.workers()}")
    return descriptors(r.pid), threads(r.pid), status_field(r.pid, "RssAnon")


def as_small_as(r, before):
    """What belongs to a worker or to `ragd reload` is closed a moment after that has ended."""
    return all(now <= then for now, then in zip(measure(r)[:2], before))


def reload(r, count, say):
    for n in range(1, count + 1):
        done = r.cli("reload")
        assert done.returncode == 0, done.stderr
        if n % 100 == 0:
            say(f"{n} of {count} reloads")


def soak(reloads, say=lambda line: None):
    """The master is measured after some reloads, and after `reloads` more."""
    with Ragd(CONFIG) as r, Load(r) as load:
        reload(r, WARM_UP, say)
        *before, before_kb = measure(r)
        reload(r, reloads, say)
        load.stop()
        wait_for(lambda: as_small_as(r, before), lambda: f"{before} descriptors and threads, not {measure(r)[:2]}")
        after_kb = measure(r)[2]
        name = f"{reloads} reloads in a row under load"
        report(f"{name}, requests, failed, stale", f"{load.requests}, {load.errors}, {load.stale}")
        report(f"{name}, longest request in ms", load.latency_ms["max"])
        report(f"{name}, memory of the master before and after, KB", f"{before_kb}, {after_kb}")
        assert load.errors == 0, load
        assert "asan" in BUILD.name or after_kb - before_kb < GROWTH_KB, (before_kb, after_kb)
        assert r.status()["generation"] == 1 + WARM_UP + reloads
        assert r.stop() == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=1000)
    soak(parser.parse_args().reloads, say=lambda line: print(line, flush=True))
    show()


def show():
    from ragdtest import figures

    for name, value in figures:
        print(f"measured: {name}: {value}")


if __name__ == "__main__":
    main()
