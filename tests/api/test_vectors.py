"""What decides which vectors a collection has: the model, and what else changes them; and the sections around what they find."""

import json
import os

import pytest

import openai_server
from apitest import Api, lines
from ragdtest import Ragd, wait_for
from services import Qdrant

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def model():
    with openai_server.running(dimension=48) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, model):
    """Of a server with an embedder, on each of the databases."""
    config = {"server": {"workers": 1}, "embedding": {"url": model.url, "model": "test"}, "search": {"vector_timeout": "60s"}}
    if request.param == "postgresql":
        config["database"] = {"url": request.getfixturevalue("postgres").new_database(), "auto_migrate": True}
    return config


@pytest.fixture(params=["embedded", "qdrant"])
def indexed(request, settings):
    """Of a server with each of the vector indexes, too."""
    if request.param == "embedded":
        yield settings
        return
    missing = Qdrant.missing()
    assert not (missing and os.environ.get("CI")), missing
    if missing:
        pytest.skip(missing)
    with Qdrant() as qdrant:
        yield {**settings, "vectors": {"url": qdrant.url}}


def search(api, collection, query):
    return api.search(query, collection, mode="hybrid")


def restart(ragd, **sections):
    assert ragd.stop() == 0
    ragd.write_config(sections)
    return Api(ragd.start())


def test_another_document_prefix_is_another_model(settings, model):
    with Ragd(settings) as ragd:
        api = Api(ragd)
        c = api.collection()
        api.ready(c, "Descale the kettle with citric acid.")
        assert search(api, c, "kettle")["degraded"] == []
        api = restart(ragd, embedding={"document_prefix": "passage: "})
        # what is there was made without the prefix: it is not compared with what comes, and nobody is told otherwise
        assert search(api, c, "kettle")["degraded"] == ["vectors"]
        late = api.settled(api.add(c, "Green tea wants water of 80 degrees.")["document"])
        assert late["status"] == "failed" and late["last_error"]["code"] == "embedder_mismatch"
        assert f"ragd reindex {c['name']}" in late["last_error"]["message"]
        assert 'document_prefix "passage: "' in late["last_error"]["message"]
        embedded = model.state()["inputs"]
        job = api.post("/api/v1/admin/reindex", json={"collections": [c["name"]], "embedder": "test"})
        assert api.job_over(job.json())["result"] == {"collections": 1, "promoted": True}
        assert api.settled(late)["status"] == "ready"
        assert model.state()["inputs"] == embedded + 3  # a question for the length, and both again, with the prefix
        assert all(text.startswith("passage: ") for text in model.state()["last"]["input"])
        assert api.get(f"/api/v1/collections/{c['id']}").json()["embedder"]["name"] == 'test (document_prefix "passage: ")'
        assert search(api, c, "kettle")["degraded"] == []
        # and back to what is kept of the model without it
        api = restart(ragd, embedding={"document_prefix": None})
        assert search(api, c, "kettle")["degraded"] == ["vectors"]
        rolled = api.post("/api/v1/admin/generations/1/rollback", json={"collection": c["id"]})
        assert rolled.status_code in (200, 202), rolled.text
        wait_for(lambda: search(api, c, "kettle")["degraded"] == [], "what came since to be embedded again")


def test_hits_carry_the_section_they_were_cut_from(settings):
    with Ragd(settings) as ragd:
        api = Api(ragd)
        chunking = {"type": "parent_child", "max_tokens": 16, "parent_tokens": 64}
        c = api.collection(chunking=chunking)
        text = " ".join(f"Grüße {i}: the tide turns at the {i}th pier of Köln." for i in range(60))
        document = api.ready(c, text)
        ordered = api.get(f"/api/v1/documents/{document['id']}/chunks?limit=100").json()["data"]
        chunks = {k["id"]: k for k in ordered}
        parents = {k["parent"]["char_start"] for k in chunks.values()}
        assert 2 < len(parents) < len(chunks) / 2
        for mode in ("lexical", "vector", "hybrid"):
            for near in (0, 1, 7):  # who asks for neighbours gets the section, too, and those beyond it
                context = {"context": {"before": near, "after": near}} if near else {}
                hits = api.search("31th pier", c, mode=mode, **context)["hits"]
                assert len(hits) == 10
                for hit in hits:
                    own = chunks[hit["chunk_id"]]
                    parent, at = own["parent"], own["ordinal"]
                    around = ordered[max(at - near, 0) : at + near + 1]
                    start = min(parent["char_start"], around[0]["char_start"])
                    section = text[start : max(parent["char_end"], around[-1]["char_end"])]
                    assert hit["context"]["before"] + hit["text"] + hit["context"]["after"] == section, (mode, hit)
                    assert hit["text"] == text[hit["span"]["char_start"] : hit["span"]["char_end"]]
                assert mode == "vector" or "31th" in hits[0]["text"]
        # without sections there is no context that nobody asked for
        plain = api.collection(chunking={"type": "static", "max_tokens": 16, "overlap": 0})
        api.ready(plain, text)
        hits = api.search("31th pier", plain)["hits"]
        assert len(hits) == 10 and all("context" not in hit for hit in hits)


def test_pages_are_cuts_of_one_list(settings):
    settings["search"]["vector_candidates"] = 10  # which later pages go beyond
    with Ragd(settings) as ragd:
        api = Api(ragd)
        c = api.collection()
        for i in range(40):
            api.ready(c, f"Kettle number {i} descales {'itself ' * (i % 9)}with acid {i * i}.")

        def page(mode, top_k, offset):
            answer = api.search("kettle acid", c, mode=mode, top_k=top_k, offset=offset)
            assert answer["degraded"] == []
            return [(hit["chunk_id"], hit["score"]) for hit in answer["hits"]], answer["total_estimate"]

        for mode in ("vector", "hybrid"):
            whole, total = page(mode, 50, 0)
            assert 30 < len(whole) == len(dict(whole)) == total, mode  # by vectors: all that do not point away from the query
            assert [hit for offset in range(0, 42, 3) for hit in page(mode, 3, offset)[0]] == whole, mode
            assert page(mode, 3, 0)[1] > 3, mode  # there is more


def test_what_has_no_weight_finds_nothing(settings):
    with Ragd(settings) as ragd:
        api = Api(ragd)
        c = api.collection()
        kettle = api.ready(c, "Descale the kettle with citric acid.")
        for i in range(12):
            api.ready(c, f"Green tea number {i} wants water of 80 degrees.")

        def found(lexical, vector):
            return api.search("kettle", c, mode="hybrid", weights={"lexical": lexical, "vector": vector}, top_k=10)

        words = found(1, 0)
        assert [h["document_id"] for h in words["hits"]] == [kettle["id"]] and words["hits"][0]["score"] == 1
        assert words["total_estimate"] == 1 and words["degraded"] == []
        for weights in ((0, 1), (1, 1), (1, 0.001)):
            hits = found(*weights)["hits"]
            assert len(hits) > 1 and hits[0]["document_id"] == kettle["id"], weights


def test_a_long_document_hides_no_others(indexed):
    with Ragd(indexed) as ragd:
        api = Api(ragd)
        c = api.collection(chunking={"type": "static", "max_tokens": 32, "overlap": 0})
        text = " ".join(f"Dragon dragon {i} guards a hoard of gold and dragon eggs below the hill." for i in range(700))
        long = api.ready(c, text, title="long")
        assert long["chunks"] > 300
        for i in range(5):
            api.ready(c, f"Number {i} names the dragon once, among words of quite other things.", title=f"short {i}")
        everything = ["long"] + [f"short {i}" for i in range(5)]
        for mode in ("lexical", "vector", "hybrid"):
            whole = api.search("dragon", c, mode=mode, group_by="document", top_k=10)
            assert whole["degraded"] == [] and sorted(h["title"] for h in whole["hits"]) == everything, mode
            assert whole["total_estimate"] == 6 and whole["truncated"] is False
            assert [h["score"] for h in whole["hits"]] == sorted((h["score"] for h in whole["hits"]), reverse=True)
            cut = [api.search("dragon", c, mode=mode, group_by="document", top_k=2, offset=i)["hits"] for i in (0, 2, 4, 6)]
            assert [h["chunk_id"] for hits in cut for h in hits] == [h["chunk_id"] for h in whole["hits"]], mode
            if mode != "hybrid":  # of each the best passage
                best = api.search("dragon", c, mode=mode, top_k=1)["hits"][0]
                assert best["score"] == whole["hits"][0]["score"]


def test_a_filter_finds_all_however_far(indexed):
    """Also where the index cannot say it and more than it is asked for at once are nearer; and what there is is counted."""
    with Ragd(indexed) as ragd:
        api = Api(ragd)
        c = api.collection()
        for n in range(17):  # twelve of a hundred chunks each, and five that are farther away
            chunks = [{"text": f"Kettle {n} {i}"} for i in range(100)] if n < 12 else [{"text": f"Of teapots, number {n}."}]
            body = {"chunks": chunks, "metadata": {"s": f"z{n:02}", "n": n}}
            document = api.post(api.path(c, "/documents"), json=body).json()["document"]
            assert api.settled(document)["status"] == "ready"
        text = {"type": "gt", "key": "s", "value": "z11"}
        both = {"type": "and", "filters": [text, {"type": "gt", "key": "n", "value": 5}]}
        number = {"type": "gte", "key": "n", "value": 12}
        for chosen in (text, both, number):
            for mode in ("vector", "hybrid"):
                result = api.search("kettle", c, mode=mode, filter=chosen, min_score=-1, top_k=10)
                assert sorted(h["metadata"]["n"] for h in result["hits"]) == list(range(12, 17)), (mode, chosen)
                assert result["truncated"] is False and result["total_estimate"] == 5 and result["degraded"] == []
        most, few = {"type": "gt", "key": "s", "value": "z01"}, {"type": "lt", "key": "n", "value": 3}
        for chosen, total, grouped in ((None, 1205, 17), (most, 1005, 15), (few, 300, 3)):
            result = api.search("kettle", c, mode="vector", filter=chosen, top_k=3)
            assert len(result["hits"]) == 3 and result["total_estimate"] == total and result["truncated"] is False
            result = api.search("kettle", c, mode="vector", filter=chosen, top_k=3, group_by="document", min_score=-1)
            assert len({h["document_id"] for h in result["hits"]}) == 3 and result["total_estimate"] == grouped


def test_vectors_of_clients_are_for_their_document_alone(settings, model):
    with Ragd(settings) as ragd:
        api = Api(ragd)
        mine, theirs = api.collection(), api.collection()
        text = "Descale the kettle with citric acid."
        towards = {word: openai_server.embed(word, 48) for word in ("zebra", "giraffe")}

        def near(collection, query, what=text):
            hits = api.search(query, collection, mode="vector")["hits"]
            return any(hit["text"] == what and hit["scores"]["cosine"] > 0.9 for hit in hits)

        def send(**document):
            (answer,) = lines(api.post(api.path(mine, "/import"), content=json.dumps(document), headers=NDJSON))
            return answer

        first = send(text=text, vector=towards["zebra"])
        assert first["status"] == "created", first
        assert api.settled({"id": first["document_id"]})["status"] == "ready"
        api.ready(theirs, text)
        assert near(mine, "zebra") and near(theirs, text) and not near(theirs, "zebra")
        # the same once more is nothing new, another vector is: it takes effect with nobody's help
        assert send(text=text, vector=towards["zebra"])["status"] == "duplicate"
        again = send(text=text, vector=towards["giraffe"])
        assert again == {"line": 1, "status": "updated", "document_id": first["document_id"]}
        wait_for(lambda: near(mine, "giraffe"), "the other vector in the index")
        assert not near(mine, "zebra") and not near(theirs, "giraffe")
        # so it is with chunks, under a name
        path = api.path(mine, "/documents/by-external-id/animals")
        for i, word in enumerate(("zebra", "giraffe", "giraffe")):
            chunks = [{"text": "Of stripes."}, {"text": "Of necks.", "vector": towards[word]}]
            answer = api.put(path, json={"chunks": chunks})
            assert answer.status_code == (201, 200, 200)[i], answer.text
            assert answer.json().get("unchanged", False) is (i == 2)
            assert api.settled(answer.json()["document"])["status"] == "ready"
            wait_for(lambda: near(mine, word, "Of necks."), f"the second chunk near {word}")
