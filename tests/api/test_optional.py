"""Redis, Qdrant and the embedder, which ragd can do without: what it says and answers while one of them is down, and that
Qdrant's own filters find what others find."""

import os

import pytest

from apitest import Api
from ragdtest import Ragd, wait_for
from services import Model, Qdrant, Redis

TEXTS = {
    "kettles.txt": ("Descale the kettle with citric acid every month.", {"lang": "en", "year": 2021, "ok": True}),
    "koeln.txt": ("The cathedral of Cologne is a kettle of people.", {"lang": "de", "year": 2024, "tags": ["a", "b"]}),
    "tea.txt": ("Green tea wants water of 80 degrees, not a boiling kettle.", {"lang": "en", "year": 2024, "by": {"age": 7}}),
    "none.txt": ("A kettle that says nothing of itself.", {}),
}


@pytest.fixture(scope="module")
def services():
    missing = Qdrant.missing()
    assert not (missing and os.environ.get("CI")), missing
    if missing:
        pytest.skip(missing)
    with Redis() as redis, Qdrant() as qdrant, Model() as model:
        yield {"cache": redis, "vectors": qdrant, "embedder": model}


@pytest.fixture(scope="module")
def world(services):
    config = {
        "embedding": {"url": services["embedder"].url, "model": "test", "retries": 0, "breaker_failures": 1000},
        "vectors": {"url": f"http://127.0.0.1:{services['vectors'].port}", "retries": 0},
        "cache": {"url": f"redis://127.0.0.1:{services['cache'].port}/0"},
        "search": {"vector_timeout": "60s"},
        "ingest": {"poll": "100ms"},
    }
    with Ragd(config) as ragd:
        api = Api(ragd)
        c = api.collection()
        documents = {}
        for name, (text, metadata) in TEXTS.items():
            documents[name] = api.ready(c, text, filename=name, metadata=metadata)
        yield api, c, documents


def search(api, c, words, **members):
    return api.search(words, c, **{"mode": "hybrid", "top_k": 4, **members})


def names(result):
    return {hit["filename"] for hit in result["hits"]}


@pytest.mark.parametrize("name, degraded", [("cache", []), ("vectors", ["vectors"]), ("embedder", ["embedder"])])
def test_one_of_them_is_down(name, degraded, services, world):
    api, c, _ = world
    workers = api.server.workers()
    wait_for(lambda: api.get("/readyz?verbose").json()["status"] == "ready", "everything to be well")
    service = services[name]
    service.kill()
    try:
        result = search(api, c, f"kettle without {name}")
        assert result["degraded"] == degraded and names(result) == set(TEXTS)
        assert all((hit["scores"]["cosine"] is None) == bool(degraded) for hit in result["hits"])
        response = api.get("/readyz?verbose")
        said = response.json()
        assert response.status_code == 200 and said["status"] == "degraded" and "reason" not in said
        assert {which: check["ok"] for which, check in said["checks"].items()} == {
            "db": True, "vectors": name != "vectors", "cache": name != "cache", "embedder": name != "embedder", "disk": True,
        }  # fmt: skip
        assert said["checks"][name]["reason"]
        response = api.get("/readyz")  # a probe neither waits for them nor takes the worker out of service
        assert response.status_code == 200 and response.json() == {"status": "ready"}
        assert api.get("/livez").status_code == 200
    finally:
        service.start()

    def well():
        again = search(api, c, f"kettle with {name} again")
        return again["degraded"] == [] and api.get("/readyz?verbose").json()["status"] == "ready"

    wait_for(well, f"the way back of {name}", every=0.1)
    assert api.server.workers() == workers


FILTERS = [
    ({"type": "eq", "key": "lang", "value": "en"}, {"kettles.txt", "tea.txt"}),
    ({"type": "ne", "key": "lang", "value": "en"}, {"koeln.txt", "none.txt"}),
    ({"type": "in", "key": "year", "value": [2021, 1999]}, {"kettles.txt"}),
    ({"type": "nin", "key": "year", "value": [2021]}, {"koeln.txt", "tea.txt", "none.txt"}),
    ({"type": "gt", "key": "year", "value": 2021}, {"koeln.txt", "tea.txt"}),
    ({"type": "lte", "key": "year", "value": 2021}, {"kettles.txt"}),
    ({"type": "gt", "key": "lang", "value": "de"}, {"kettles.txt", "tea.txt"}),  # Qdrant orders no texts: ragd looks itself
    ({"type": "eq", "key": "ok", "value": True}, {"kettles.txt"}),
    ({"type": "eq", "key": "tags", "value": "b"}, {"koeln.txt"}),
    ({"type": "eq", "key": "by.age", "value": 7}, {"tea.txt"}),
    (
        {"type": "and", "filters": [
            {"type": "gt", "key": "lang", "value": "de"},
            {"type": "or", "filters": [{"type": "eq", "key": "ok", "value": True}, {"type": "eq", "key": "year", "value": 1}]},
        ]},
        {"kettles.txt"},
    ),
    ({"type": "eq", "key": "lang", "value": "fr"}, set()),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
def test_filters_of_qdrant(mode, world):
    api, c, _ = world
    for condition, found in FILTERS:
        by_words = search(api, c, "kettle", mode="lexical", filter=condition)
        result = search(api, c, "kettle", mode=mode, filter=condition)
        assert result["degraded"] == [] and names(result) == names(by_words) == found, condition
        assert all(hit["scores"]["cosine"] is not None for hit in result["hits"]), condition


def test_filters_of_qdrant_see_changes(world):
    """They narrow before the nearest are chosen: what only the index knew wrongly would not come back by looking again."""
    api, c, documents = world
    new = api.patch(f"/api/v1/documents/{documents['none.txt']['id']}", json={"metadata": {"lang": "fr"}})
    assert new.status_code == 200, new.text
    french = {"type": "eq", "key": "lang", "value": "fr"}

    def found():
        return names(search(api, c, "kettle", mode="vector", filter=french)) == {"none.txt"}

    wait_for(found, "the index to be told")
    api.patch(f"/api/v1/documents/{documents['none.txt']['id']}", json={"metadata": {"lang": None}})
    assert names(search(api, c, "kettle", mode="vector", filter=french)) == set()  # at once: every hit is looked at again
