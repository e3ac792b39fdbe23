"""Search and answers with an embedder and a model, end to end: ragd, a server that speaks OpenAI's wire format, and the
faults that it may show."""

import json

import pytest

import openai_server
from apitest import Api
from ragdtest import Ragd, wait_for
from test_ask import ask, events, verify

TEXTS = {
    "kettles.txt": "Descale the kettle with citric acid every month. Never use bleach.",
    "koeln.txt": "Grüße aus Köln. The cathedral of Köln is 157 m high.",
    "tea.txt": "Green tea wants water of 80 degrees. A boiling kettle is too hot.",
}
SETTINGS = {
    "server": {"workers": 1},
    "embedding": {"model": "test", "retries": 0, "retry_delay": "10ms", "breaker_failures": 1000},
    "llm": {"model": "test-chat", "retries": 0, "retry_delay": "10ms", "breaker_failures": 1000},
    "search": {"vector_timeout": "60s"},
    "cache": {"url": "memory:"},
}


@pytest.fixture(scope="module")
def model():
    with openai_server.running(dimension=48) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, model):
    config = {section: dict(keys) for section, keys in SETTINGS.items()}
    config["embedding"]["url"] = config["llm"]["url"] = model.url
    if request.param == "postgresql":
        config["database"] = {"url": request.getfixturevalue("postgres").new_database(), "auto_migrate": True}
    with Ragd(config) as ragd:
        api = Api(ragd)
        c = api.collection()
        for name, text in TEXTS.items():
            document = api.settled(api.upload(c, name, text.encode()).json()["document"])
            assert document["status"] == "ready", document
        yield api, c


def search(api, collection, query, **members):
    return api.search(query, collection, **{"mode": "hybrid", **members})


def names(result):
    return [hit["filename"] for hit in result["hits"]]


def test_hybrid_and_vector(world):
    api, c = world
    result = search(api, c, "descale kettle", explain=True)
    first = result["hits"][0]
    assert names(result)[0] == "kettles.txt" and result["degraded"] == [] and result["generation"] == 1
    assert first["scores"]["ranks"] == {"lexical": 1, "vector": 1} and first["score"] == 1
    assert first["explain"]["scorer"] == "shares" and first["explain"]["lexical_share"] > 0.5 and first["explain"]["vector"]["embedder"]
    result = search(api, c, "descale kettle", mode="vector")
    assert names(result)[0] == "kettles.txt" and len(result["hits"]) == 3
    assert result["hits"][0]["score"] == result["hits"][0]["scores"]["cosine"] and result["hits"][0]["scores"]["bm25"] is None
    only = search(api, c, "kettle", mode="vector", filter={"type": "eq", "key": "absent", "value": 1})
    assert only["hits"] == []


def test_a_cached_answer_is_never_stale(world):
    api, _ = world
    c = api.collection()

    def found(query="zebra crossing"):
        body = {"query": query, "collections": [c["id"]]}
        response = api.post("/api/v1/search", json=body)
        return response.headers["x-cache"], sorted(hit["title"] for hit in response.json()["hits"])

    first = api.ready(c, "a zebra crossing", title="A")
    assert [found(), found()] == [("miss", ["A"]), ("hit", ["A"])]
    second = api.ready(c, "another zebra crossing", title="B")
    assert [found(), found()] == [("miss", ["A", "B"]), ("hit", ["A", "B"])]
    api.patch(f"/api/v1/documents/{first['id']}", json={"title": "C"})
    assert [found(), found()] == [("miss", ["B", "C"]), ("hit", ["B", "C"])]
    api.delete(f"/api/v1/documents/{second['id']}")
    assert [found(), found()] == [("miss", ["C"]), ("hit", ["C"])]


def test_reindex_and_back(world):
    api, _ = world
    c = api.collection()
    api.ready(c, "a lighthouse")

    def generations():
        now = api.get(f"/api/v1/collections/{c['id']}").json()
        return now["generation"], now["previous"] and now["previous"]["generation"]

    for generation in (2, 3):
        job = api.post("/api/v1/admin/reindex", json={"collections": [c["name"]]})
        assert job.status_code == 202, job.text
        assert api.job_over(job.json())["result"] == {"collections": 1, "promoted": True}
        assert generations() == (generation, generation - 1)

    def flip(generation, what):
        return api.post(f"/api/v1/admin/generations/{generation}/{what}", json={"collection": c["id"]})

    api.problem(flip(3, "rollback"), 409, "conflict", says="go back to")  # it is searched
    api.problem(flip(2, "promote"), 409, "conflict", says="to promote")  # it is older
    for _ in range(2):  # the answer to the first may get lost
        assert flip(2, "rollback").status_code == 200
        assert generations() == (2, 3)
    api.problem(flip(3, "rollback"), 409, "conflict")  # it is newer
    for _ in range(2):
        assert flip(3, "promote").status_code == 200
        assert generations() == (3, 2)
    # the same by hand
    server = api.server
    command = server.cli("reindex", "--promote", c["name"])
    assert command.returncode == 1 and "to promote" in command.stderr, command
    for what, now in (("--rollback", (2, 3)), ("--promote", (3, 2))):
        assert server.cli("reindex", what, c["name"]).returncode == 0
        assert generations() == now
    assert server.cli("reindex", "--rollback", c["name"]).returncode == 0
    again = server.cli("reindex", "--rollback", c["name"])
    assert again.returncode == 1 and "go back to" in again.stderr and generations() == (2, 3), again


def test_a_gate_decides_about_promotion(world, tmp_path):
    api, c = world
    questions = [{"query": "descale kettle", "relevant": [{"document_id": d["id"]}]}
                 for d in api.get(api.path(c, "/documents")).json()["data"] if d["filename"] == "kettles.txt"]
    golden = api.post("/api/v1/eval/sets", json={"name": "gate", "questions": questions}).json()
    before = api.get(f"/api/v1/collections/{c['id']}").json()["generation"]

    def reindex(gate, **members):
        return api.post("/api/v1/admin/reindex", json={"collections": [c["id"]], "gate": gate, **members})

    def now():
        return api.get(f"/api/v1/collections/{c['id']}").json()

    done = api.job_over(reindex({"golden_set": "gate", "min_delta": 0.5}).json())
    assert done["status"] == "failed" and done["error"]["code"] == "gate_not_passed" and done["error"]["stage"] == "gate"
    says = done["error"]["message"]
    assert "nDCG@10 is 1.0000, that of the one that is searched 1.0000" in says and "less than +0.5000" in says, says
    assert now()["generation"] == before and now()["shadow"] == {**now()["shadow"], "generation": before + 1, "complete": True}
    assert names(search(api, c, "descale kettle"))[0] == "kettles.txt"

    server, name = api.server, now()["name"]
    command = server.cli("reindex", "--gate", "gate", "--min-delta", "0.5", name)
    assert command.returncode == 1 and "does not pass: nDCG@10 is 1.0000" in command.stderr, command
    file = tmp_path / "golden.ndjson"
    file.write_text('{"query": "x", "relevant": ["nobody"]}\n')
    command = server.cli("reindex", "--gate", str(file), name)
    assert command.returncode == 1 and "has no question" in command.stderr, command
    assert "no golden set" in server.cli("reindex", "--gate", "absent", name).stderr
    for wrong in (["--min-delta", "0"], ["--gate", "gate", "--promote"], ["--gate", "gate", "--min-delta", "2"]):
        assert server.cli("reindex", *wrong, name).returncode == 2

    assert api.job_over(reindex({"golden_set": golden["id"]}).json())["status"] == "succeeded"
    assert now()["generation"] == before + 1 and now()["shadow"] is None
    command = server.cli("reindex", "--gate", "gate", "--json", name)
    assert command.returncode == 0 and now()["generation"] == before + 2, command
    figures = {"recall@k": 1, "mrr": 1, "ndcg@10": 1}
    assert json.loads(command.stdout)[0]["gate"] == {"questions": 1, "before": figures, "after": figures}
    api.post(f"/api/v1/admin/generations/{before + 1}/rollback", json={"collection": c["id"]})
    wait_for(lambda: search(api, c, "descale kettle")["degraded"] == [], "what was gone back to to be compared")

    api.problem(reindex({"golden_set": "absent"}), 404, "not_found")
    api.problem(reindex({"min_delta": 0}), 422, "validation", "/gate/golden_set")
    api.problem(reindex({"golden_set": "gate", "min_delta": 2}), 422, "validation", "/gate/min_delta")
    api.problem(reindex({"golden_set": "gate"}, promote=False), 422, "validation", "/gate")
    api.delete(f"/api/v1/eval/sets/{golden['id']}")


def imported(api, c, *lines):
    content = "".join(json.dumps(line) + "\n" for line in lines)
    response = api.post(api.path(c, "/import"), content=content, headers={"Content-Type": "application/x-ndjson"})
    return [json.loads(line) for line in response.text.splitlines()]


def vector(text, dimension=48):
    return [3 * x for x in openai_server.embed(text, dimension)]  # any length will do


def test_vectors_that_came_with_the_documents(world, model):
    """They are found by what their vectors say, not by what their texts do, and the embedder saw none of the texts."""
    api, _ = world
    c = api.collection()
    asked = model.model.seen["inputs"]
    answers = imported(
        api, c,
        {"text": "first", "title": "A", "vector": vector("walnut")},
        {"title": "B", "chunks": [{"text": "second", "vector": vector("harbour")}, {"text": "third", "page": 2, "vector": vector("glacier")}]},
        {"text": "fourth", "title": "C", "vector": vector("walnut")[:3]},
        {"text": "fifth", "title": "D", "vector": vector("meadow")},
    )  # fmt: skip
    assert [a["status"] for a in answers] == ["created", "created", "error", "created"], answers
    error = answers[2]["error"]
    assert answers[2]["line"] == 3 and error["code"] == "validation" and error["pointer"] == "/vector"
    assert error["message"] == "The vector has 3 dimensions, those of the collection 48"
    documents = [api.settled({"id": a["document_id"]}) for a in answers if "document_id" in a]
    assert {d["status"] for d in documents} == {"ready"}, documents
    assert model.model.seen["inputs"] == asked
    now = api.get(f"/api/v1/collections/{c['id']}").json()
    assert now["embedder"] == {"name": "test", "dim": 48} and now["counts"]["chunks"] == 4
    for query, title, text in [("walnut", "A", "first"), ("glacier", "B", "third"), ("meadow", "D", "fifth")]:
        hit = search(api, c, query, mode="vector")["hits"][0]
        assert (hit["title"], hit["text"]) == (title, text) and hit["score"] > 0.99
    file = api.get(f"/api/v1/documents/{documents[1]['id']}/content")
    assert file.json() == [{"text": "second"}, {"text": "third", "page": 2}]

    # Known lengths bind also the first line of another import, and other ways in.
    answers = imported(api, c, {"text": "x", "vector": [1, 2]}, {"text": "sixth", "vector": vector("comet")})
    assert [a["status"] for a in answers] == ["error", "created"] and "those of the collection 48" in answers[0]["error"]["message"]
    wrong = api.post(api.path(c, "/documents"), json={"chunks": [{"text": "x", "vector": [1, 2]}]})
    api.problem(wrong, 422, "validation", "/chunks", says="has 2 dimensions, those of the collection 48")
    # A chunk without one is embedded.
    asked = model.model.seen["inputs"]
    mixed = api.post(api.path(c, "/documents"), json={"chunks": [{"text": "seventh", "vector": vector("tin")}, {"text": "lantern"}]})
    assert api.settled(mixed.json()["document"])["status"] == "ready" and model.model.seen["inputs"] == asked + 1
    assert search(api, c, "tin", mode="vector")["hits"][0]["text"] == "seventh"


def test_what_is_no_vector(world):
    api, _ = world
    c = api.collection()
    good = {"text": "x", "vector": vector("x")}
    cases = [
        ({"text": "x", "vector": []}, "/vector", "1 to 16384"),
        ({"text": "x", "vector": 7}, "/vector", "1 to 16384"),
        ({"text": "x", "vector": ["a"]}, "/vector", "numbers"),
        ({"text": "x", "vector": [0, 0]}, "/vector", "may be 0"),
        ({"text": "x", "vector": [1e308, 1e308]}, "/vector", "so large"),
        ({"text": "x" * 70000, "vector": [1]}, "/text", "text"),
        ({"url": "http://example.com/", "vector": [1]}, "/vector", "goes with 'text'"),
        ({"chunks": [{"text": "x"}], "vector": [1]}, "/vector", "goes with 'text'"),
        ({"chunks": [{"text": "x", "vector": [1, 0]}, {"text": "y", "vector": [1]}]}, "/chunks/1/vector", "1 dimensions, the one before it 2"),
        ({"chunks": [{"text": "x", "vector": [None]}]}, "/chunks/0/vector", "numbers"),
        ({"chunks": [{"vector": [1]}]}, "/chunks/0/text", "text"),
        ({"chunks": [{"vector": [1]}, *[{"text": "x", "vector": [1] * 4096}] * 16]}, "/chunks/1/vector", "4096 dimensions, the one before it 1"),
    ]
    answers = imported(api, c, *(line for line, _, _ in cases), good)
    for (line, pointer, says), answer in zip(cases, answers):
        error = answer.get("error", {})
        assert error.get("code") == "validation" and error["pointer"] == pointer and says in error["message"], (line, answer)
    assert answers[-1]["status"] == "created"


def test_without_the_embedder_answers_are_lexical(world, model):
    api, c = world
    for i, (kind, more) in enumerate([("status", {"status": 500}), ("json", {}), ("nan", {})]):
        model.fault(kind, path="embeddings", **more)
        body = {"query": f"kettle fault{i}", "collections": [c["id"]]}
        response = api.post("/api/v1/search", json=body)
        assert response.json()["degraded"] == ["embedder"] and "kettles.txt" in names(response.json())
        assert response.json()["hits"][0]["scores"]["cosine"] is None
        again = api.post("/api/v1/search", json=body)  # the degraded one was not kept
        assert again.headers["x-cache"] == "miss" and again.json()["degraded"] == []
    model.fault("status", path="embeddings", status=500)
    response = api.post("/api/v1/search", json={"query": "kettle in vectors", "collections": [c["id"]], "mode": "vector"})
    assert response.status_code in (502, 503), response.text
    checks = api.get("/readyz?verbose").json()
    assert checks["checks"]["embedder"]["ok"] in (True, False) and checks["status"] in ("ready", "degraded")


def test_an_answer_by_the_model(world, model):
    api, c = world
    model.set(answer="Use citric acid [1]. It also sings [42]. Do it monthly [1][2].")
    a = ask(api, c, "How do I descale the kettle?", history=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
            max_tokens=77, model="other")
    assert a["answer"] == "Use citric acid [1]. It also sings. Do it monthly [1][2]."
    assert a["answered_by"] == "llm" and a["model"] == "other" and a["grounded"] and a["degraded"] == []
    assert a["usage"]["total_tokens"] == a["usage"]["prompt_tokens"] + a["usage"]["completion_tokens"] > 0
    assert [c["n"] for c in a["citations"]] == [1, 2]
    first = a["citations"][0]
    assert [a["answer"][start:end] for start, end in first["answer_spans"]] == ["Use citric acid", "Do it monthly"]
    verify(api, a["citations"])
    asked = model.state()["last"]
    assert asked["max_tokens"] == 77 and asked["model"] == "other" and "tools" not in asked
    assert [m["role"] for m in asked["messages"]] == ["system", "user", "assistant", "user"]
    assert "<source 1 " in asked["messages"][-1]["content"] and first["quote"] in asked["messages"][-1]["content"]
    model.set(answer="I cannot tell.")
    assert ask(api, c, "How do I descale the kettle?")["grounded"] is False
    before = model.state()["chat"]
    assert ask(api, c, "How do I descale the kettle?", answer="extractive")["answered_by"] == "extractive"
    assert model.state()["chat"] == before


def test_an_answer_by_the_model_as_a_stream(world, model):
    api, c = world
    model.set(answer="Use citric acid [1]. Not bleach [9] [2].")
    body = {"question": "How do I descale the kettle?", "collections": [c["id"]], "stream": True}
    response = api.post("/api/v1/ask", json=body)
    got = list(events(response.text))
    kinds = [name for name, _ in got]
    assert kinds[:2] == ["meta", "citations"] and kinds[-2:] == ["usage", "done"]
    done = got[-1][1]
    api.validate(done, "Answer")
    assert done["answer"] == "Use citric acid [1]. Not bleach [2]." and done["answered_by"] == "llm"
    assert "".join(data["text"] for name, data in got if name == "delta") == done["answer"]
    assert [data["n"] for name, data in got if name == "citation"] == [1, 2]
    verify(api, got[1][1])
    verify(api, done["citations"])


def test_without_the_model_answers_are_sentences(world, model):
    api, c = world
    question = {"question": "How do I descale the kettle?", "collections": [c["id"]]}
    for fault in ({"kind": "status", "status": 500}, {"kind": "status", "status": 401}, {"kind": "json"}):
        model.fault(path="chat", **fault)
        a = api.post("/api/v1/ask", json=question).json()
        assert a["degraded"] == ["llm"] and a["answered_by"] == "extractive" and a["grounded"], fault
        verify(api, a["citations"])
    model.fault("status", path="chat", status=500)
    got = list(events(api.post("/api/v1/ask", json={**question, "stream": True}).text))
    assert [name for name, _ in got].count("citations") == 2 and got[-1][0] == "done" and got[-1][1]["degraded"] == ["llm"]
    model.fault("status", path="chat", status=500)
    refused = api.post("/api/v1/ask", json={**question, "answer": "llm"})
    assert refused.status_code in (502, 503), refused.text
    model.set(answer="Use citric acid [1]. " * 20)
    model.fault("cut_body", path="chat")  # its beginning has been shown: no other answer can take its place
    got = list(events(api.post("/api/v1/ask", json={**question, "stream": True}).text))
    assert got[-1][0] == "error" and got[-1][1]["status"] in (502, 503)


def test_a_reader_who_leaves_ends_the_call(world, model):
    api, c = world
    model.set(answer="word " * 20)
    model.fault("hang", path="chat")
    body = {"question": "How do I descale the kettle?", "collections": [c["id"]], "stream": True}
    with api.server.client.stream("POST", "/api/v1/ask", json=body) as response:
        for line in response.iter_lines():
            if line.strip() == "event: citations":
                break
        wait_for(lambda: model.state()["at_once"] == 1, "the model to be asked")
    wait_for(lambda: model.state()["at_once"] == 0, "the call to the model to end")


def test_readiness_tells_of_each(world):
    api, c = world
    search(api, c, "something that was not asked before")
    ask(api, c, "How do I descale the kettle?")
    verbose = wait_for(lambda: (v := api.get("/readyz?verbose").json())["status"] == "ready" and v, "everything to be well")
    assert {"db", "vectors", "cache", "embedder", "llm"} <= set(verbose["checks"])
    assert all(check["ok"] for check in verbose["checks"].values())
