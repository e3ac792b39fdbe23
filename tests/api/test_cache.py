"""Flushing the cache over HTTP: in the memory of the workers, and in a Redis that others use, too."""

import shutil
import subprocess

import httpx
import pytest

import openai_server
from apitest import Api
from ragdtest import Ragd, free_port, wait_for

FLUSH = "/api/v1/admin/cache/flush"


@pytest.fixture(scope="module")
def model():
    with openai_server.running(dimension=48) as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """What redis-cli says to a command, asked of a Redis of this file's own."""
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)

    def ask(*command):
        done = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, text=True)
        return done.stdout.strip()

    try:
        wait_for(lambda: ask("ping") == "PONG", "Redis to answer")
        ask.url = f"redis://127.0.0.1:{port}/0"
        yield ask
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def settings(model, cache):
    return {
        "server": {"workers": 2},
        "embedding": {"url": model.url, "model": "test"},
        "search": {"vector_timeout": "60s"},
        "cache": {"url": cache},
        "debug": {"faults": True},
    }


def search(client, c, query):
    response = client.post("/api/v1/search", json={"query": query, "collections": [c["id"]]})
    assert response.json()["degraded"] == [], response.text
    return response.headers["x-cache"]


def test_memory_of_all_workers(model):
    with Ragd(settings(model, "memory:")) as ragd:
        api = Api(ragd)
        c = api.collection()
        api.ready(c, "a lighthouse at the end of the pier")
        clients = {}  # pid: a connection to this worker

        def connected():
            client = httpx.Client(base_url=ragd.url, timeout=60, trust_env=False)
            pid = client.get("/debug/sleep?ms=0").json()["pid"]
            if clients.setdefault(pid, client) is not client:
                client.close()
            return len(clients) == 2

        wait_for(connected, "a connection to each of the two workers")
        try:
            for client in clients.values():
                assert [search(client, c, "lighthouse"), search(client, c, "lighthouse")] == ["miss", "hit"]
            asked = model.model.seen["embeddings"]
            response = next(iter(clients.values())).post(FLUSH, json={})
            api.check("POST", response)
            body = response.json()
            assert response.status_code == 200 and body["cache"] == "memory" and body["shared"] is False
            assert body["removed"] == 2, "the answer and the vector of its query"
            for client in clients.values():
                assert [search(client, c, "lighthouse"), search(client, c, "lighthouse")] == ["miss", "hit"]
            assert model.model.seen["embeddings"] == asked + 2, "vectors were forgotten, too"
            assert "ragd_cache_flushes_total 1" in ragd.get("/metrics").text
        finally:
            for client in clients.values():
                client.close()
        told = ragd.cli("cache", "flush")
        assert told.returncode == 1 and FLUSH in told.stderr, told


def test_redis_keeps_what_is_of_others(model, redis):
    with Ragd(settings(model, redis.url)) as ragd:
        api = Api(ragd)
        c = api.collection()
        api.ready(c, "a lighthouse at the end of the pier")
        redis("set", "somebody:else", "1")
        assert [search(ragd, c, "lighthouse"), search(ragd, c, "lighthouse")] == ["miss", "hit"]
        assert int(redis("dbsize")) == 3
        done = api.post(FLUSH)
        assert done.status_code == 200 and done.json() == {"cache": "redis", "shared": True, "removed": 2}
        assert redis("keys", "*") == "somebody:else"
        assert [search(ragd, c, "lighthouse"), search(ragd, c, "lighthouse")] == ["miss", "hit"]
        told = ragd.cli("cache", "flush")
        assert told.returncode == 0 and told.stdout == "2 keys removed\n", told


def test_without_a_cache(api):
    api.problem(api.post(FLUSH), 409, "conflict", says="cache.url")
    api.problem(api.post(FLUSH, json={"what": "all"}), 422, "validation")
