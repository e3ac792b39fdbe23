"""ragd on Qdrant, and another client of the same Qdrant: the alias of a collection leads to what ragd searches."""

import os

import httpx
import pytest

import openai_server
from ragdtest import Ragd, wait_for
from services import Qdrant

SECTIONS = {"vectors": {"prefix": "shop"}, "embedding": {"model": "test"}, "ingest": {"workers": 1}}


@pytest.fixture(scope="module")
def world():
    missing = Qdrant.missing()
    assert not (missing and os.environ.get("CI")), missing
    if missing:
        pytest.skip(missing)
    config = {section: dict(keys) for section, keys in SECTIONS.items()}
    with openai_server.running(dimension=48) as model, Qdrant() as qdrant:
        config["embedding"]["url"], config["vectors"]["url"] = model.url, qdrant.url
        with Ragd(config) as ragd:
            yield ragd, qdrant


def ask(qdrant, method, path, body=None):
    answer = httpx.request(method, qdrant.url + path, json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def aliases(qdrant):
    return {a["alias_name"]: a["collection_name"] for a in ask(qdrant, "GET", "/aliases")["aliases"]}


def a_collection(ragd, name):
    collection = ragd.post("/api/v1/collections", json={"name": name}).json()
    document = ragd.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": f"A kettle of {name}"}).json()
    where = f"/api/v1/documents/{document['document']['id']}"
    wait_for(lambda: ragd.get(where).json()["status"] == "ready", lambda: ragd.get(where).text)
    return collection["id"], f"shop_{collection['id']}"


def test_other_clients_find_what_is_searched(world):
    ragd, qdrant = world
    collection, alias = a_collection(ragd, "first")
    assert aliases(qdrant)[alias] == "shop_g1_d48"
    mine = {"must": [{"key": "collection", "match": {"value": collection}}]}
    assert ask(qdrant, "POST", f"/collections/{alias}/points/count", {"exact": True, "filter": mine}) == {"count": 1}

    ragd.cli("reindex", "first", check=True)
    assert aliases(qdrant)[alias] == "shop_g2_d48"
    ragd.cli("reindex", "--rollback", "first", check=True)
    assert aliases(qdrant)[alias] == "shop_g1_d48"
    assert ragd.request("DELETE", f"/api/v1/collections/{collection}").status_code == 202
    wait_for(lambda: alias not in aliases(qdrant), lambda: f"the alias to go: {aliases(qdrant)}")


def test_fsck_mends_an_alias(world):
    ragd, qdrant = world
    _, alias = a_collection(ragd, "second")
    ask(qdrant, "POST", "/collections/aliases", {"actions": [{"delete_alias": {"alias_name": alias}}]})
    done = ragd.cli("fsck")
    assert done.returncode == 1 and "1 wrong aliases" in done.stdout, done
    assert ragd.cli("fsck", "--repair").returncode == 0
    assert aliases(qdrant)[alias] == "shop_g1_d48"
    assert ragd.cli("fsck").returncode == 0


def test_fsck_takes_away_what_belongs_to_no_collection(world):
    """And nothing of others, however alike it looks."""
    ragd, qdrant = world
    id, alias = a_collection(ragd, "third")
    assert ragd.cli("fsck", "--repair").returncode == 0
    gone = "01234567-89ab-7def-8123-456789abcdef"
    point = {"id": 1, "vector": {"dense": [1.0] + [0.0] * 47}, "payload": {"collection": gone, "document_no": 1, "ordinal": 0}}
    place = {"vectors": {"dense": {"size": 48, "distance": "Cosine"}}}
    theirs = ["shop_g1_d48x", "shop_g01_d48", "shop_g1", "shop", "shop2_g1_d48", "shop_g7_d48"]
    for name in [*theirs, "shop_g9_d48"]:
        ask(qdrant, "PUT", f"/collections/{name}", place)
    foreign = [f"shop_{gone}x", f"shop2_{gone}", f"shop_{gone.upper()}"]
    actions = [{"create_alias": {"alias_name": a, "collection_name": "shop_g1_d48"}} for a in foreign]
    actions += [{"create_alias": {"alias_name": f"shop_{gone}", "collection_name": "shop_g1_d48"}}]
    actions += [{"create_alias": {"alias_name": f"shop_{gone[:-1]}0", "collection_name": "shop"}}]
    ask(qdrant, "POST", "/collections/aliases", {"actions": actions})
    ask(qdrant, "PUT", "/collections/shop_g1_d48/points", {"points": [point]})
    ask(qdrant, "PUT", "/collections/shop_g7_d48/points", {"points": [{**point, "payload": {"document_no": 1}}]})
    before = aliases(qdrant)

    def names():
        return {c["name"] for c in ask(qdrant, "GET", "/collections")["collections"]}

    done = ragd.cli("fsck")
    assert done.returncode == 1 and " 0 orphans," in done.stdout and " 1 strays" in done.stdout, done
    assert aliases(qdrant) == before and "shop_g9_d48" in names()
    done = ragd.cli("fsck", "--repair")  # the alias and its points; and a place that nobody needs
    assert done.returncode == 0 and " 2 strays, 2 repaired" in done.stdout, done
    assert aliases(qdrant) == {a: to for a, to in before.items() if a != f"shop_{gone}"}
    assert names() >= set(theirs) and "shop_g9_d48" not in names()
    left = {"must": [{"key": "collection", "match": {"value": gone}}]}
    assert ask(qdrant, "POST", "/collections/shop_g1_d48/points/count", {"exact": True, "filter": left}) == {"count": 0}
    assert aliases(qdrant)[alias] == "shop_g1_d48"
    assert ragd.post("/api/v1/search", json={"query": "kettle", "collections": [id], "mode": "vector"}).json()["hits"]
    done = ragd.cli("fsck")
    assert done.returncode == 0 and " 0 strays" in done.stdout, done
