"""The database goes and comes back: 503 that say when to try again, workers that live on, nothing lost."""

import pytest

from apitest import NO_ID, Api
from ragdtest import Postgres, Ragd, wait_for


def accepted(call):
    """The answer of `call`. The connection for writes comes back by itself, maybe a moment after a worker is ready again:
    until then it is 503."""

    def answer():
        response = call()
        assert response.status_code in (200, 201, 202, 503), response.text
        return response if response.status_code != 503 else None

    return wait_for(answer, "a write", every=0.05).json()


@pytest.fixture
def cluster():
    with Postgres() as cluster:
        yield cluster


def test_an_outage_of_postgresql(cluster):
    with Ragd({"database": {"url": cluster.url(), "auto_migrate": True}}) as ragd:
        api = Api(ragd)
        collection = api.collection()
        document = api.ready(collection, "kept through the outage")
        workers = ragd.workers()
        cluster.stop()

        def refused():
            response = ragd.get(f"/api/v1/documents/{document['id']}")
            return response if response.status_code == 503 else None

        response = wait_for(refused, "503")
        problem = api.problem(response, 503, "not_ready")
        assert int(response.headers["retry-after"]) >= 1 and "postgres" not in problem["detail"].lower()
        assert ragd.get("/livez").status_code == 200
        ready = ragd.get("/readyz?verbose")
        assert ready.status_code == 503 and ready.json()["status"] == "not_ready"
        assert ready.json()["checks"]["db"]["ok"] is False
        written = ragd.post(api.path(collection, "/documents"), json={"text": "during the outage"})
        api.problem(written, 503, "not_ready")
        assert ragd.get("/metrics").status_code == 200

        cluster.start()
        wait_for(lambda: ragd.get("/readyz").status_code == 200, "the way back", every=0.05)
        assert api.document(document)["status"] == "ready"

        again = accepted(lambda: api.post(api.path(collection, "/documents"), json={"text": "during the outage"}))
        assert api.settled(again["document"])["status"] == "ready"
        assert ragd.workers() == workers


def test_the_log_of_an_outage_is_short(cluster):
    """Of many refusals of the same kind one a second is logged, and how many there were besides."""
    with Ragd({"database": {"url": cluster.url(), "auto_migrate": True}}) as ragd:
        cluster.stop()
        wait_for(lambda: ragd.get(f"/api/v1/documents/{NO_ID}").status_code == 503, "503")
        for _ in range(500):
            assert ragd.get(f"/api/v1/documents/{NO_ID}").status_code == 503
        line = ragd.wait_log(" more in the last ")
        assert "req_" in line or "not_ready" in line
        assert ragd.log().count(" req_") < 100


def test_a_database_that_starts_later(cluster):
    """With auto_migrate nobody has to migrate by hand because PostgreSQL was the slower one to start."""
    cluster.stop()
    ragd = Ragd({"database": {"url": cluster.url(), "auto_migrate": True}})
    try:
        ragd.start("/livez")
        assert ragd.get("/readyz").status_code == 503
        workers = ragd.workers()
        cluster.start()
        wait_for(lambda: ragd.get("/readyz").status_code == 200, "the schema", every=0.05)
        api = Api(ragd)
        collection = accepted(lambda: api.post("/api/v1/collections", json={"name": "late"}))
        document = accepted(lambda: api.post(api.path(collection, "/documents"), json={"text": "the first document"}))
        assert api.settled(document["document"])["status"] == "ready"
        assert ragd.workers() == workers
    finally:
        ragd.close()
