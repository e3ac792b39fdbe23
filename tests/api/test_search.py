"""Search: ranking, filters, paging, highlights, explain, grouping, languages."""

import hashlib

import pytest

from apitest import NO_ID

DOCUMENTS = [
    ("The river Rhine flows through Basel and Cologne. A river of trade.", {"title": "Rhine", "metadata": {"n": 1, "kind": "river"}, "tags": ["a"]}),
    ("The Danube is a river that flows east through Vienna and Budapest.", {"title": "Danube", "metadata": {"n": 2, "kind": "river"}}),
    ("Mount Everest is the highest mountain above sea level.", {"title": "Everest", "metadata": {"n": 3, "kind": "mountain"}}),
    ("Lake Constance lies on the Rhine.", {"title": "Lake", "metadata": {"n": 4, "kind": "lake"}}),
    ("東京は日本の首都であり、世界最大の都市の一つです。", {"title": "Tokyo", "language": "none"}),
    ("北京是中华人民共和国的首都。", {"title": "Beijing", "language": "none"}),
    ("Крокодил живёт в реке Нил.", {"title": "Nile"}),
    ("Café Müller serves naïve résumés.", {"title": "Cafe"}),
]


@pytest.fixture(scope="module")
def library(api):
    c = api.collection()
    for text, members in DOCUMENTS:
        api.ready(c, text, **members)
    return c


def titles(result):
    return [hit["title"] for hit in result["hits"]]


def test_best_first(api, library):
    result = api.search("river", library)
    assert titles(result) == ["Rhine", "Danube"]
    assert result["total_estimate"] == 2 and result["degraded"] == [] and result["truncated"] is False
    scores = [hit["score"] for hit in result["hits"]]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0
    first = result["hits"][0]
    assert first["text"].startswith("The river Rhine") and first["metadata"] == {"n": 1, "kind": "river"} and first["tags"] == ["a"]
    assert first["scores"]["ranks"]["lexical"] == 1 and first["span"]["char_start"] == 0
    chunk = api.get(f"/api/v1/documents/{first['document_id']}/chunks/{first['chunk_id']}").json()
    assert chunk["text"] == first["text"] and chunk["sha256"] == first["sha256"]


def test_words_are_folded_and_stemmed(api, library):
    assert titles(api.search("RIVERS flowing", library)) == titles(api.search("river flows", library))
    assert titles(api.search("cafe naive resumes", library)) == ["Cafe"]
    assert titles(api.search("mountains", library)) == ["Everest"]


@pytest.mark.parametrize("query, expected", [("首都", {"Tokyo", "Beijing"}), ("東京", {"Tokyo"}), ("中华人民", {"Beijing"}), ("日本の都市", {"Tokyo"}),
                                             ("首", {"Tokyo", "Beijing"}), ("東", {"Tokyo"}), ("つ", {"Tokyo"}), ("北 zebra", {"Beijing"}), ("猫", set()),
                                             ("крокодил", {"Nile"})])  # fmt: skip
def test_other_scripts(api, library, query, expected):
    assert set(titles(api.search(query, library))) == expected


def test_one_character(api):
    """Within a run and alone; longer queries are none of single characters."""
    c = api.collection()
    for text in ("猫がいる。水を飲む車", "黒猫", "猫", "東京"):
        api.ready(c, text, title=text)
    assert set(titles(api.search("猫", c))) == {"猫がいる。水を飲む車", "黒猫", "猫"}
    assert titles(api.search("水", c)) == ["猫がいる。水を飲む車"] and titles(api.search("京", c)) == ["東京"]
    assert titles(api.search("黒猫", c)) == ["黒猫"] and api.search("京東", c)["hits"] == []
    hit = api.search("水", c, highlight=True)["hits"][0]
    assert [hit["text"][start:end] for start, end in hit["highlights"]] == ["水"], hit
    answer = api.post("/api/v1/ask", json={"question": "車", "collections": [c["id"]], "mode": "lexical"}).json()
    assert "水を飲む車" in answer["answer"], answer


def test_another_language(api):
    """Documents that are there follow, so that the same words are found as before and after."""
    c = api.collection(language="english")
    api.ready(c, "She was running past the houses.")
    given = api.post(api.path(c, "/documents"), json={"chunks": [{"text": "Houses are running out."}]}).json()
    assert api.settled(given["document"])["status"] == "ready"
    assert len(api.search("house run", c)["hits"]) == 2
    changed = api.patch(api.path(c), json={"language": "none"})
    assert changed.status_code == 200 and changed.json()["language"] == "none"
    jobs = api.get("/api/v1/jobs", params={"collection": c["id"], "type": "reprocess"}).json()["data"]
    assert len(jobs) == 1
    assert api.job_over(jobs[0])["status"] == "succeeded"
    for d in api.get(api.path(c, "/documents")).json()["data"]:
        assert api.settled(d)["status"] == "ready"
    assert len(api.search("running", c)["hits"]) == len(api.search("houses", c)["hits"]) == 2
    assert api.search("house run", c)["hits"] == []
    # The default is taken when it is named, and stays what it was.
    assert api.collection()["language"] == api.patch(api.path(c), json={"language": None}).json()["language"] == "english"


def test_nothing_found(api, library):
    result = api.search("zebra", library)
    assert result["hits"] == [] and result["total_estimate"] == 0
    assert api.search("!!! ???", library)["hits"] == []


def test_filters(api, library):
    def found(filter, query="the river mountain lake rhine"):
        return set(titles(api.search(query, library, filter=filter)))

    assert found({"type": "eq", "key": "kind", "value": "river"}) == {"Rhine", "Danube"}
    assert found({"type": "gt", "key": "n", "value": 2}) == {"Everest", "Lake"}
    assert found({"type": "or", "filters": [{"type": "eq", "key": "n", "value": 1}, {"type": "eq", "key": "n", "value": 4}]}) == {"Rhine", "Lake"}
    assert found({"type": "nin", "key": "kind", "value": ["river", "mountain"]}, "lake rhine river") == {"Lake"}
    assert found({"type": "eq", "key": "kind", "value": "desert"}) == set()


def test_paging_gives_every_hit_once(api, collection):
    for i in range(25):
        api.add(collection, f"paged passage {'very ' * (i % 7)}number {i}")
    documents = api.get(api.path(collection, "/documents?limit=50")).json()["data"]
    for d in documents:
        api.settled(d)
    whole = [hit["chunk_id"] for offset in (0, 20) for hit in api.search("passage", collection, top_k=20, offset=offset)["hits"]]
    pieces = [hit["chunk_id"] for offset in range(0, 28, 4) for hit in api.search("passage", collection, top_k=4, offset=offset)["hits"]]
    assert len(set(whole)) == 25 and pieces == whole
    assert api.search("passage", collection, offset=25)["hits"] == []


def test_highlights_are_spans_of_characters(api, library):
    for query, title, words in [("river rhine", "Rhine", {"river", "Rhine"}), ("首都", "Tokyo", {"首都"}), ("naive", "Cafe", {"naïve"})]:
        hit = next(h for h in api.search(query, library, highlight=True)["hits"] if h["title"] == title)
        marked = {hit["text"][start:end] for start, end in hit["highlights"]}
        assert marked == words
        assert hit["highlights"] == sorted(hit["highlights"])
    assert "highlights" not in api.search("river", library)["hits"][0]


def test_explanations(api, library):
    hit = api.search("river", library, explain=True)["hits"][0]
    assert hit["explain"]["terms"][0]["tf"] == 2
    assert abs(sum(t["contribution"] for t in hit["explain"]["terms"]) - hit["scores"]["bm25"]) < 1e-9
    assert "explain" not in api.search("river", library)["hits"][0]


def test_grouping_by_document(api, collection):
    text = "\n\n".join(f"The word albatross stands in paragraph {i}, with much other text around it to fill a chunk." * 20 for i in range(10))
    document = api.ready(collection, text, title="long")
    api.ready(collection, "One more albatross.", title="short")
    assert document["chunks"] > 1
    assert len(api.search("albatross", collection, top_k=20)["hits"]) > 2
    grouped = api.search("albatross", collection, top_k=20, group_by="document")["hits"]
    assert sorted(h["title"] for h in grouped) == ["long", "short"]


def test_min_score(api, library):
    best = api.search("river rhine", library)["hits"]
    cut = api.search("river rhine", library, min_score=best[0]["score"] - 1e-9)["hits"]
    assert [h["chunk_id"] for h in cut] == [best[0]["chunk_id"]]


def test_collections_are_separate_and_named_by_id_or_name(api, library, collection):
    api.ready(collection, "another river here", title="Other")
    assert titles(api.search("river", collection)) == ["Other"]
    assert set(titles(api.search("river", library, collection))) == {"Rhine", "Danube", "Other"}
    body = {"query": "river", "collections": [collection["name"]], "mode": "lexical"}
    assert titles(api.post("/api/v1/search", json=body).json()) == ["Other"]


def test_hybrid_without_an_embedder_says_so(api, library):
    body = {"query": "river", "collections": [library["id"]]}
    result = api.post("/api/v1/search", json=body).json()
    assert result["degraded"] == ["vectors"] and titles(result) == ["Rhine", "Danube"]


def test_metadata_mode_lists_only_what_can_be_shown(api, collection):
    # documents that have failed, or have not been read yet, take nobody's place
    for i in range(3):
        api.ready(collection, f"the quokka number {i}", title=f"Q{i}", metadata={"n": i})
    for i in range(12):
        broken = api.settled(api.upload(collection, f"{i}.pdf", f"%PDF-1.4 broken {i}".encode(), "application/pdf").json()["document"])
        assert broken["status"] == "failed"
    for mode in ({"mode": "metadata"}, {"mode": "metadata", "filter": {"type": "ne", "key": "n", "value": 7}}):
        result = api.search(None, collection, top_k=10, **mode)
        assert titles(result) == ["Q2", "Q1", "Q0"] and result["total_estimate"] == 3
        assert [titles(api.search(None, collection, top_k=1, offset=i, **mode)) for i in range(4)] == [["Q2"], ["Q1"], ["Q0"], []]


def test_metadata_mode_lists_what_the_filter_lets_through(api, library):
    def found(**members):
        result = api.search(None, library, mode="metadata", **members)
        return titles(result), result["total_estimate"]

    newest_first = [members["title"] for _, members in reversed(DOCUMENTS)]
    assert found() == (newest_first, len(DOCUMENTS))
    pages = [found(top_k=3, offset=offset)[0] for offset in range(0, len(DOCUMENTS), 3)]
    assert sum(pages, []) == newest_first
    assert found(filter={"type": "eq", "key": "kind", "value": "river"}) == (["Danube", "Rhine"], 2)
    hit = api.search(None, library, mode="metadata", top_k=1)["hits"][0]
    assert hit["scores"] == {"bm25": None, "cosine": None, "rrf": None, "ranks": {}} and hit["ordinal"] == 0 and hit["text"]


def test_context_is_the_text_around(api, collection):
    text = "\n\n".join(f"Paragraph {i} speaks of {'an ibex' if i == 30 else 'goats'}, at some length. " + "More of the same. " * 20 for i in range(60))
    document = api.ready(collection, text, title="long")
    whole = api.get(f"/api/v1/documents/{document['id']}/text").text
    for before, after in ((1, 1), (2, 0), (0, 3)):
        hit = api.search("ibex", collection, top_k=1, context={"before": before, "after": after})["hits"][0]
        start, end = hit["span"]["char_start"], hit["span"]["char_end"]
        assert whole[:start].split()[-20:] == hit["context"]["before"].split()[-20:] or not before
        assert whole[end:].split()[:20] == hit["context"]["after"].split()[:20] or not after
        assert bool(hit["context"]["before"]) == bool(before) and bool(hit["context"]["after"]) == bool(after)
    assert "context" not in api.search("ibex", collection)["hits"][0]
    short = api.ready(collection, "a lone chamois", title="short")
    hit = api.search("chamois", collection, context={"before": 10, "after": 10})["hits"][0]
    assert hit["document_id"] == short["id"] and hit["context"] == {"before": "", "after": ""}


def test_citations_are_verified(api, collection):
    document = api.ready(collection, "Grüße aus Köln. The dome is 157 m high.")
    hit = api.search("dome", collection)["hits"][0]
    path = f"/api/v1/documents/{document['id']}/chunks/{hit['chunk_id']}/verify"
    start = hit["text"].index("The dome")
    quote = hit["text"][start:]
    digest = hashlib.sha256(quote.encode()).hexdigest()
    place = {"char_start": hit["span"]["char_start"] + start, "char_end": hit["span"]["char_end"]}

    def verdict(**params):
        return api.get(path, params=place | params).json()

    for proof in ({"quote": quote}, {"sha256": digest}, {"quote": quote, "sha256": digest}):
        assert verdict(**proof) == {"valid": True, "reason": None}
    assert verdict(quote=quote.replace("157", "158"))["reason"] == "text_differs"
    assert verdict(sha256=digest.replace(digest[0], "0" if digest[0] != "0" else "1"))["reason"] == "hash_differs"
    assert verdict(quote=quote, char_start=place["char_start"] - 1)["reason"] == "text_differs"
    assert verdict(quote=quote, char_end=place["char_end"] + 1)["reason"] == "out_of_range"
    assert verdict(quote="", char_end=place["char_start"])["reason"] == "out_of_range"
    gone = api.get(f"/api/v1/documents/{document['id']}/chunks/{NO_ID}/verify", params=place | {"quote": quote}).json()
    assert gone == {"valid": False, "reason": "chunk_gone"}
    api.problem(api.get(path, params=place), 422, "validation", "quote")
    api.problem(api.get(path, params={"quote": quote}), 422, "validation", "char_start")
    api.problem(api.get(path, params=place | {"sha256": "12"}), 422, "validation", "sha256")
    api.problem(api.get(f"/api/v1/documents/{NO_ID}/chunks/{NO_ID}/verify", params=place | {"quote": "x"}), 404, "not_found")


def test_changes_show_at_once(api, collection):
    document = api.ready(collection, "the okapi is an animal", metadata={"a": 1})
    assert api.search("okapi", collection)["hits"][0]["metadata"] == {"a": 1}
    api.patch(f"/api/v1/documents/{document['id']}", json={"metadata": {"a": 2}})
    assert api.search("okapi", collection, filter={"type": "eq", "key": "a", "value": 2})["total_estimate"] == 1
    api.delete(f"/api/v1/documents/{document['id']}")
    assert api.search("okapi", collection)["hits"] == []


@pytest.mark.parametrize(
    "body, pointer",
    [
        ({}, "/query"),
        ({"query": ""}, "/query"),
        ({"query": "x" * 8193}, "/query"),
        ({"query": "x", "top_k": 0}, "/top_k"),
        ({"query": "x", "top_k": 21}, "/top_k"),
        ({"query": "x", "top_k": 1.5}, "/top_k"),
        ({"query": "x", "offset": -1}, "/offset"),
        ({"query": "x", "mode": "magic"}, "/mode"),
        ({"query": "x", "mode": "vector"}, "/mode"),
        ({"query": "x", "group_by": "page"}, "/group_by"),
        ({"mode": "lexical"}, "/query"),
        ({"query": "x", "weights": {"lexical": 0, "vector": 0}}, "/weights"),
        ({"query": "x", "weights": {"lexical": -1}}, "/weights/lexical"),
        ({"query": "x", "context": {"before": 11}}, "/context/before"),
        ({"query": "x", "context": {"above": 1}}, "/context/above"),
        ({"query": "x", "collections": [1]}, "/collections/0"),
        ({"query": "x", "filter": {"type": "eq"}}, None),
        ({"query": "x", "filter": {"type": "and", "filters": [{"type": "gt", "key": "a", "value": True}]}}, None),
        ({"query": "x", "fitler": {}}, "/fitler"),
    ],
)
def test_bad_searches(api, body, pointer):
    api.problem(api.post("/api/v1/search", json=body), 422, "validation", pointer)


def test_unknown_collections(api):
    for which in (NO_ID, "no such"):
        api.problem(api.post("/api/v1/search", json={"query": "x", "collections": [which]}), 404, "not_found", says=which)
