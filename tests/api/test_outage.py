"""The database goes and comes back: 503 that say when to try again, workers that live on, nothing lost."""

import pytest

from apitest import Api
from ragdtest import Postgres, Ragd, wait_for


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

        def accepted():  # the connection for writes comes back by itself, maybe a moment later: until then 503
            response = api.post(api.path(collection, "/documents"), json={"text": "during the outage"})
            assert response.status_code in (200, 202, 503)
            return response if response.status_code != 503 else None

        again = wait_for(accepted, "a write", every=0.05)
        assert api.settled(again.json()["document"])["status"] == "ready"
        assert ragd.workers() == workers


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
        api.ready(api.collection(), "the first document")
        assert ragd.workers() == workers
    finally:
        ragd.close()
