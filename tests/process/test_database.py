"""Workers and PostgreSQL: the budget of connections holds whatever happens to workers, and no statement goes on running
that nobody waits for."""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import signal
import tempfile
import time

import httpx
import psycopg
import pytest

from load import Load
from ragdtest import Postgres, Ragd, alive, children_of, free_port, report, wait_for
from watch import Background, hup, ready


class Watch(Background):
    """Counts the backends of a database every 50 ms; `most` is the largest number seen."""

    def __init__(self, postgres, url):
        self.connection = psycopg.connect(postgres.url(), autocommit=True)
        self.database = url.rpartition("/")[2]
        self.most = self.samples = 0
        super().__init__([()])

    def count(self):
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        return self.connection.execute(sql, [self.database]).fetchone()[0]

    def run(self):
        while not self.done.wait(0.05):
            self.most = max(self.most, self.count())
            self.samples += 1

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.connection.close()


class Clients(Background):
    """Searches, reads and writes on one collection, each by a few clients, until the end of the block.

    Each request has a connection of its own: one that is kept may be closed as idle at the moment at which it is used.
    """

    def __init__(self, r, each=3):
        self.r = r
        collection = r.post("/api/v1/collections", json={"name": "busy"}).json()["id"]
        added = r.post(f"/api/v1/collections/{collection}/documents", json={"text": "the first of many"})
        self.document = f"/api/v1/documents/{added.json()['document']['id']}"
        self.kinds = [
            ("POST", "/api/v1/search", {"query": "first", "collections": [collection], "mode": "lexical"}),
            ("GET", self.document, None),
            ("POST", f"/api/v1/collections/{collection}/documents", {"text": "one of many"}),
        ]  # fmt: skip
        self.failures = []
        self.count = 0
        super().__init__(self.kinds * each)

    def run(self, method, path, body):
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=self.r.url, timeout=60, trust_env=False, limits=limits) as client:
            while not self.done.is_set():
                try:
                    answer = client.request(method, path, json=body)
                    if answer.status_code not in (200, 202):
                        self.failures.append(f"{method} {path}: {answer.status_code} {answer.text}")
                except httpx.TransportError as e:
                    self.failures.append(f"{method} {path}: {e!r}")
                self.count += 1

    def more(self, n):
        goal = self.count + n
        wait_for(lambda: self.count >= goal, lambda: f"{n} more answers; failures: {self.failures[:3]}", 60)


def config(postgres, database=None, **server):
    return {"database": {"url": postgres.new_database(), "auto_migrate": True, **(database or {})}, "server": server,
            "log": {"access": "off"}}  # fmt: skip


def test_the_budget_holds_through_reloads_and_deaths(postgres):
    """Five workers that could use four connections each, and an ingest worker, in a budget of 20."""
    settings = config(postgres, {"max_connections": 20, "slow_pool": 2}, workers=5)
    with Ragd(settings) as r, Watch(postgres, settings["database"]["url"]) as watch:
        with Clients(r) as clients:
            clients.more(100)
            for _ in range(2):
                assert "reloaded" in hup(r)
                clients.more(100)
            assert clients.failures == []
            for _ in range(3):
                os.kill(ready(r)[0], signal.SIGKILL)  # its clients get resets
                clients.more(100)
            wait_for(lambda: len(ready(r)) == 5, "all workers")
        assert watch.samples > 5
        report("backends in a budget of 20, two reloads and three kills under load", watch.most)
        assert 10 <= watch.most <= 20
        assert not [f for f in clients.failures if " 503 " in f or " 500 " in f], clients.failures


def upgrade(r, old=None, meanwhile=lambda r: None):
    """By the same binary; returns when the old master has ended. `meanwhile` runs when the new one has been started."""
    old = old or r.pid
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        since = r.log().count("the new master is pid")
        done = pool.submit(r.cli, "upgrade")
        wait_for(lambda: r.log().count("the new master is pid") > since, lambda: f"the new master:\n{r.log()}")
        meanwhile(r)
    assert done.result().returncode == 0, done.result().stderr + r.log()
    wait_for(lambda: not alive(old), lambda: f"the old master to end:\n{r.log()}")
    return int(done.result().stdout.split("pid ")[1].split()[0])


def test_the_budget_holds_through_upgrades(postgres):
    """Six workers of the old and six of the new master hold two connections each, and could use four."""
    settings = config(postgres, {"max_connections": 20, "slow_pool": 2}, workers=5)
    with Ragd(settings) as r, Watch(postgres, settings["database"]["url"]) as watch:
        with Clients(r) as clients:
            clients.more(100)
            new = upgrade(r)
            clients.more(100)
            upgrade(r, new)
            clients.more(100)
        assert clients.failures == [], r.log()
        assert watch.samples > 5
        report("backends in a budget of 20, two upgrades under load", watch.most)
        assert 10 <= watch.most <= 20


def kill_some(r, fault):
    """Of both masters. Workers of the new one hang at first, so that it cannot take over before all is done."""
    new = [int(pid) for pid in re.findall(r"the new master is pid (\d+)", r.log())][-1]
    hung = wait_for(lambda: len(children_of(new)) == 6 and r.log().count("RAGD_FAULT_BOOT=hang") == 6 and children_of(new), "6 workers")
    fault.write_text("")
    for pid in hung[1:]:
        os.kill(pid, signal.SIGKILL)

    def serving():
        state = re.findall(r"\[\w+:\d+ (\d+)\].* state BOOTING -> READY", r.log())
        return [pid for pid in children_of(new) if str(pid) in state]

    connected = wait_for(serving, lambda: f"a worker of the new master to be READY:\n{r.log()}")[0]
    for pid in (ready(r)[0], connected, hung[0]):
        os.kill(pid, signal.SIGKILL)


def test_the_budget_holds_when_workers_die_in_an_upgrade(postgres):
    settings = config(postgres, {"max_connections": 20, "slow_pool": 2}, workers=5)
    settings["log"]["level"] = "debug"
    with tempfile.NamedTemporaryFile("w") as file:
        with Ragd(settings, env={"RAGD_FAULT_BOOT": f"@{file.name}"}) as r, Watch(postgres, settings["database"]["url"]) as watch:
            fault = pathlib.Path(file.name)
            with Clients(r) as clients:
                clients.more(100)
                fault.write_text("hang")
                upgrade(r, meanwhile=lambda r: kill_some(r, fault))
                clients.more(100)
                wait_for(lambda: len(ready(r)) == 5, "all workers")
            assert r.log().count("died: signal 9") == 8
            report("backends in a budget of 20, an upgrade under load in which workers die", watch.most)
            assert 10 <= watch.most <= 20
            assert not [f for f in clients.failures if " 503 " in f or " 500 " in f], clients.failures


def reload(r):
    assert "reloaded" in hup(r)


@pytest.mark.parametrize("change", [reload, upgrade])
def test_a_change_of_workers_succeeds_although_the_budget_is_used_up(postgres, change):
    """Three workers hold two connections each, and these are all: the next ones wait for what these can do without."""
    settings = config(postgres, {"max_connections": 6}, workers=2)
    with Ragd(settings) as r, Watch(postgres, settings["database"]["url"]) as watch:
        collection = r.post("/api/v1/collections", json={"name": "tight"}).json()["id"]
        wait_for(lambda: watch.count() == 6, "all connections to be in use")
        with Load(r, path=f"/api/v1/collections/{collection}", rate=100) as load:
            load.more(50)
            begin = time.monotonic()
            change(r)
            report(f"{change.__name__} with a budget that is used up", f"{time.monotonic() - begin:.2f} s")
            load.more(50)
        assert load.errors == 0, f"{load}\n{r.log()}"
        assert watch.most <= 6
        wait_for(lambda: watch.count() >= 3, "connections of the new workers")


@pytest.mark.parametrize("role", ["all", "ingest"])
@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:{port}/none", "sqlite:/proc/none/ragd.db"])
def test_workers_that_have_no_database_change_nothing(url, role):
    """They could boot; but the first one is asked for /readyz before anybody else is served by it, or leaves for it."""
    r = Ragd(args=["--role", role])
    try:
        r.spawn()
        r.wait_log("ready after")
        before, good = r.workers(), r.config["database"]["url"]
        with Load(r) if role == "all" else contextlib.nullcontext() as load:
            r.write_config({"database": {"url": url.format(port=free_port())}})
            for command in ("reload", "upgrade"):
                done = r.cli(command)
                assert done.returncode == 1 and "everything stays as it was" in done.stderr, done
                assert "database" in done.stderr and "exit 3: " in done.stderr, done.stderr
        assert load is None or load.errors == 0, load
        wait_for(lambda: r.workers() == before, lambda: f"what was tried to end:\n{r.log()}")
        assert r.status()["generation"] == 1
        r.write_config({"database": {"url": good}})
        assert r.cli("reload").returncode == 0
    finally:
        r.close()


def test_a_reload_need_not_find_what_the_server_has_lost():
    """It changes other things, and the workers that serve have no database either. From when one has, it must."""
    with Postgres() as postgres, Ragd({"database": {"url": postgres.new_database(), "auto_migrate": True}}) as r:
        postgres.kill()
        wait_for(lambda: r.get("/readyz").status_code == 503, "the loss to be noticed")
        r.write_config({"embedding": {"timeout": "7s"}})
        assert r.cli("reload").returncode == 0 and r.status()["generation"] == 2
        assert r.get("/livez").status_code == 200
        r.get("/readyz")  # the new worker knows it as well
        postgres.start()
        wait_for(lambda: r.get("/readyz").status_code == 200, "the database to be found again")
        r.write_config({"database": {"url": f"postgresql://nobody@127.0.0.1:{free_port()}/none"}})
        done = r.cli("reload")
        assert done.returncode == 1 and "database" in done.stderr, done


def test_a_slow_connection_that_is_idle_makes_room(postgres):
    """Three workers hold two connections each; all their searches need the seventh."""
    settings = config(postgres, {"max_connections": 7, "slow_pool": 2}, workers=2)
    with Ragd(settings) as r, Watch(postgres, settings["database"]["url"]) as watch:
        with Clients(r, each=8) as clients:
            clients.more(200)
        assert clients.failures == []
        assert watch.most <= 7


# -- statements


class Blocked:
    """A server with one worker, and a lock that makes every statement on documents wait for the end of the block."""

    def __init__(self, postgres, **more):
        self.settings = config(postgres, workers=1)
        for section, keys in more.items():
            self.settings.setdefault(section, {}).update(keys)
        self.r = Ragd(self.settings)
        self.pool = concurrent.futures.ThreadPoolExecutor(3)

    def __enter__(self):
        self.r.__enter__()
        try:
            url = self.settings["database"]["url"]
            self.clients = Clients(self.r, each=1)  # for its kinds of requests
            wait_for(lambda: self.r.get(self.clients.document).json()["status"] == "ready", "a document to search for")
            assert self.r.stop() == 0
            self.r.args = ["--role", "http"]  # nobody but the requests has statements
            self.r.start()
            self.other = psycopg.connect(url, autocommit=True)
            self.lock = psycopg.connect(url)
            self.lock.execute("LOCK TABLE documents, chunk_index IN ACCESS EXCLUSIVE MODE")
        except BaseException:
            self.r.close()
            raise
        return self

    def __exit__(self, *exc):
        self.lock.close()
        self.other.close()
        self.r.__exit__(*exc)
        self.pool.shutdown()

    def running(self):
        """Statements that run for the server."""
        sql = ("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'ragd' "
               "AND state = 'active'")  # fmt: skip
        return self.other.execute(sql).fetchone()[0]

    def request(self, method, path, body):
        try:
            return httpx.request(method, self.r.url + path, json=body, timeout=60, trust_env=False).status_code
        except httpx.TransportError as e:
            return type(e).__name__

    def ask(self):
        """A search, a read and a write; returns when all of them wait for the lock."""
        answers = []
        for kind in self.clients.kinds:  # one by one: a search begins with a read
            answers.append(self.pool.submit(self.request, *kind))
            wait_for(lambda: self.running() == len(answers), lambda: f"{len(answers)} statements, not {self.running()}:\n{self.r.log()}")
        return answers

    def none_left(self, what):
        begin = time.monotonic()
        wait_for(lambda: self.running() == 0, lambda: f"no statement to run any more; log:\n{self.r.log()}", 20)
        report(f"statements end after {what}", f"{time.monotonic() - begin:.2f} s")


def test_no_statement_outlives_a_killed_worker(postgres):
    with Blocked(postgres) as b:
        answers = b.ask()
        os.kill(ready(b.r)[0], signal.SIGKILL)
        b.none_left("kill -9 of their worker")
        b.r.wait_log("in flight for")
        since = b.r.log().find("in flight for")
        for path, verb in zip((path for _, path, _ in b.clients.kinds), ("search_candidates", "document_get", "document_create"), strict=True):
            line = b.r.wait_log(f" {path}, request", since=since)  # the master says what each was at
            assert "in flight for" in line and line.endswith(f", last asked the database for {verb}"), line
        assert all(isinstance(a.result(), str) for a in answers)


def test_no_statement_outlives_its_request(postgres):
    with Blocked(postgres, http={"request_timeout": "8s"}) as b:
        answers = b.ask()
        assert [a.result() for a in answers] == [504, 504, 504]
        b.none_left("http.request_timeout")
        b.lock.rollback()
        assert b.other.execute("SELECT count(*) FROM documents").fetchone() == (1,)  # what was answered 504 did not happen
        assert [b.request(*kind) for kind in b.clients.kinds] == [200, 200, 202]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_no_statement_outlives_its_server(postgres, number):
    with Blocked(postgres, server={"graceful_timeout": "1s"}) as b:
        answers = b.ask()
        assert b.r.stop(number) == 0
        b.none_left(f"a stop by {number.name}, counted from its end")
        assert "could not be cancelled" not in b.r.log() and "had to be killed" not in b.r.log()
        assert all(a.result() != 200 for a in answers)


def test_no_statement_outlives_its_client(postgres):
    with Blocked(postgres) as b:
        method, path, body = b.clients.kinds[0]
        with pytest.raises(httpx.ReadTimeout):
            httpx.request(method, b.r.url + path, json=body, timeout=1, trust_env=False)
        b.none_left("their client has gone")
