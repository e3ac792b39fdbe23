"""What running workers are told: logs opened anew, and settings that a reload only pushes."""

import os
import pathlib
import re
import signal

import httpx
import pytest

from ragdtest import Ragd, wait_for
from watch import Background, hup, ready

WHOLE = {
    "clf": re.compile(r'\S+ - \S+ \[[^]]+\] "GET /livez\?(\d+) HTTP/1\.1" 200 .*'),
    "json": re.compile(r'\{.*"/livez\?(\d+)".*\}'),
}


class Numbered(Background):
    """GET /livez?0, ?1, ?2 … without a pause, over two connections that stay open, until the end of the block."""

    def __init__(self, url, clients=2):
        self.url = url
        self.answered = [[] for _ in range(clients)]
        super().__init__((i,) for i in range(clients))

    def run(self, i):
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            number = i
            while not self.done.is_set():
                assert client.get(f"/livez?{number}").status_code == 200
                self.answered[i].append(number)
                number += len(self.answered)

    def count(self):
        return sum(len(a) for a in self.answered)


def rotate(r, path, to):
    """As logrotate does it: rename, then tell the master."""
    os.rename(path, to)
    r.send(signal.SIGUSR1)
    wait_for(path.exists, "the new log")


def test_a_shorter_watchdog_counts_from_when_it_is_told():
    """A worker beats as often as its watchdog asks for, and one whose last beat is too old by the new measure did nothing wrong."""
    with Ragd({"server": {"watchdog_timeout": "1m"}}) as r:
        worker = ready(r)[0]

        def beat_age():
            return next(w["beat_age_s"] for w in r.status()["workers"] if w["pid"] == worker)

        os.kill(worker, signal.SIGSTOP)
        wait_for(lambda: beat_age() > 6.5, "an old beat")
        r.write_config({"server": {"watchdog_timeout": "6s"}})
        assert "reloaded" in hup(r)
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: beat_age() < 1, lambda: f"a beat:\n{r.log()}")
        assert ready(r) == [worker] and "hangs" not in r.log()
        os.kill(worker, signal.SIGSTOP)
        assert f"pid {worker}) hangs: its loop has not turned for 6." in r.wait_log("hangs")


@pytest.mark.parametrize("format", ["clf", "json"])
def test_rotation_loses_and_doubles_no_line(format):
    r = Ragd({"server": {"workers": 2}})
    log = r.dir / "access.log"
    r.write_config({"log": {"access": str(log), "access_format": format}})
    with r:
        before = wait_for(lambda: len(ready(r)) == 2 and ready(r), "both workers")
        started = len(log.read_text().splitlines())
        with Numbered(r.url) as load:
            for turn in range(3):
                wait_for(lambda: load.count() > 100 * (turn + 1), "some load")
                rotate(r, log, r.dir / f"access.{turn}")
        asked = sorted(n for a in load.answered for n in a)
        parts = [r.dir / f"access.{turn}" for turn in range(3)] + [log]

        def lines():
            return [line for part in parts for line in part.read_text().splitlines()][started:]

        wait_for(lambda: len(lines()) >= len(asked), "all lines")
        whole = [WHOLE[format].fullmatch(line) for line in lines()]
        assert None not in whole  # no line is torn
        assert sorted(int(m[1]) for m in whole) == asked
        assert ready(r) == before

        def logs_of(pid):
            links = [os.path.realpath(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            return [link for link in links if "/access." in link]

        wait_for(lambda: all(logs_of(pid) == [str(log)] for pid in r.workers()), "the rotated files to be closed")


def test_a_log_that_cannot_be_opened_stays_as_it_is():
    r = Ragd()
    folder = r.dir / "logs"
    folder.mkdir()
    r.write_config({"log": {"access": str(folder / "access.log")}})
    with r:
        os.rename(folder, r.dir / "moved")
        r.send(signal.SIGUSR1)
        assert str(folder / "access.log") in r.wait_log("the logs stay as they are")
        r.get("/livez?still")
        wait_for(lambda: "/livez?still" in (r.dir / "moved" / "access.log").read_text(), "the line in the old file")


def test_settings_that_can_be_pushed_change_without_new_workers():
    with Ragd({"server": {"workers": 2}}) as r:
        before = r.workers()
        assert r.post("/api/v1/collections", content="{" + " " * 3000 + "}").status_code != 413
        r.write_config({"limits": {"json_body": 1024}, "log": {"level": "debug", "format": "json"}})
        assert "generation 2" in hup(r)
        wait_for(lambda: r.post("/api/v1/collections", content="{" + " " * 3000 + "}").status_code == 413, "the new limit")
        assert r.workers() == before
        status = r.status()
        assert {w["generation"] for w in status["workers"]} == {2}
        for pid in ready(r):
            title = pathlib.Path(f"/proc/{pid}/cmdline")
            wait_for(lambda: "generation 2" in title.read_text(), "the title to tell it")
        taken = re.compile('"role":"http:[^\n]*"changed settings taken over"')
        wait_for(lambda: taken.search(r.log()), r.log)


def test_a_pushed_limit_of_the_http_engine_holds_for_the_next_request():
    with Ragd() as r:
        before = r.workers()
        assert r.get("/livez?" + "x" * 2000).status_code == 200
        r.write_config({"http": {"max_request_line": 1024}})
        hup(r)
        wait_for(lambda: r.get("/livez?" + "x" * 2000).status_code == 414, "the new limit")
        assert r.workers() == before


def test_what_was_pushed_holds_when_the_command_returns():
    with Ragd({"server": {"workers": 2}}) as r:
        before = r.workers()
        for longest, status in ((1024, 414), (8192, 200)) * 3:
            r.write_config({"http": {"max_request_line": longest}})
            assert r.cli("reload").returncode == 0
            assert {httpx.get(f"{r.url}/livez?{'x' * 2000}", trust_env=False).status_code for _ in range(8)} == {status}
        assert r.workers() == before


def test_a_reload_reads_an_env_file_that_was_made_since_the_start():
    with Ragd() as r:
        r.write_config({"server": {"workers": None}})
        file = r.dir / ".env"
        file.write_text("WEB_CONCURRENCY=3\n")
        assert r.cli("reload").returncode == 0
        wait_for(lambda: len(ready(r)) == 3, "three workers")
        file.unlink()
        file.mkdir()
        done = r.cli("reload")
        assert done.returncode == 1 and "configuration: .env: is a directory" in done.stderr
        file.rmdir()
        r.write_config({"server": {"workers": 2}})
        assert r.cli("reload").returncode == 0
        wait_for(lambda: len(ready(r)) == 2, "two workers")


def test_the_access_log_moves_with_a_pushed_setting():
    with Ragd() as r:
        before = r.workers()
        log = r.dir / "elsewhere.log"
        r.write_config({"log": {"access": str(log)}})
        hup(r)
        wait_for(lambda: r.get("/livez?moved") and "/livez?moved" in log.read_text(), "a line in the new log")
        r.write_config({"log": {"access": "off"}})
        hup(r)

        def silent():
            size = log.stat().st_size
            for _ in range(2):  # the line of the first would be written before the second is read
                r.get("/livez")
            return log.stat().st_size == size

        wait_for(silent, "the end of the log")
        assert r.workers() == before


def test_a_worker_that_boots_meanwhile_gets_what_was_pushed():
    config = {"server": {"workers": 1}, "limits": {"json_body": 4096}}
    with Ragd(config, env={"RAGD_FAULT_BOOT": "delay:500"}) as r:
        r.send(signal.SIGTTIN)
        wait_for(lambda: len([w for w in r.status()["workers"] if w["role"] == "http"]) == 2, "the second worker")
        r.write_config({"limits": {"json_body": 1024}})
        assert "generation 2" in hup(r)
        wait_for(lambda: len(ready(r)) == 1, "one worker, as configured")
        wait_for(lambda: r.post("/api/v1/collections", content="{" + " " * 3000 + "}").status_code == 413, "the limit")


def test_worker_counts_alone_change_without_an_exchange():
    with Ragd({"server": {"workers": 2}}) as r:
        before = wait_for(lambda: len(ready(r)) == 2 and ready(r), "both workers")
        r.write_config({"server": {"workers": 3}})
        assert "reloaded" in hup(r)
        wait_for(lambda: len(ready(r)) == 3, "the third worker")
        assert set(before) < set(ready(r))


def test_a_reload_without_changes_exchanges_the_workers():
    with Ragd() as r:
        before = ready(r)
        assert "reloaded" in hup(r)
        wait_for(lambda: ready(r) and not set(ready(r)) & set(before), "new workers")


def test_events_go_to_a_file_that_can_be_rotated():
    r = Ragd({"log": {"level": "debug"}})
    events, started = r.dir / "events.log", r.log_file
    r.write_config({"log": {"file": str(events)}})
    with r:
        r.log_file = events
        assert started.read_text() == ""
        os.rename(events, r.dir / "events.1")
        r.send(signal.SIGUSR1)
        assert "logs reopened" in r.wait_log("logs reopened")
        os.kill(ready(r)[0], signal.SIGABRT)  # the last words of a worker go there, too
        r.wait_log("ends by signal 6")
        r.wait_log("died")
        assert "logs reopened" not in (r.dir / "events.1").read_text()
        r.write_config({"log": {"file": "stderr"}})
        r.send(signal.SIGHUP)
        wait_for(lambda: "reloaded in" in started.read_text(), "the reload to be told on stderr")
        wait_for(lambda: "changed settings taken over" in started.read_text(), "a worker to write there")
        r.log_file = started


def test_what_is_wrong_at_the_start_is_told_on_stderr():
    r = Ragd()
    try:
        r.write_config({"log": {"file": str(r.dir / "no" / "such" / "folder")}})
        r.spawn()
        assert r.wait_exit() != 0
        assert "log.file: cannot open" in r.log()
    finally:
        r.close()


def test_a_fifo_that_nobody_reads_is_refused_at_once():
    r = Ragd()
    log, fifo = r.dir / "events.log", r.dir / "fifo"
    os.mkfifo(fifo)
    r.write_config({"log": {"file": str(log)}})
    with r:
        r.write_config({"log": {"file": str(fifo)}})
        done = r.cli("reload")
        assert done.returncode == 1 and f"log.file: {fifo} is a FIFO that nobody reads" in done.stderr
        log.unlink()
        os.mkfifo(log)
        done = r.cli("reopen")
        assert done.returncode == 1 and f"log.file: {log} is a FIFO that nobody reads" in done.stderr
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert r.cli("reopen").returncode == 0
            assert b"logs reopened" in os.read(reader, 65536)
        finally:
            os.close(reader)
        assert r.cli("status").returncode == 0
