"""Golden sets and runs over HTTP. How results are scored is tested in tests/unit/test_eval.c; here is what clients see."""

import json

import pytest

from apitest import NO_ID

SETS, RUNS = "/api/v1/eval/sets", "/api/v1/eval/runs"
TEXTS = {
    "kettles": "Descale the kettle with citric acid every month.",
    "tea": "Green tea wants water of 80 degrees, so let the kettle cool.",
    "koeln": "The cathedral of Köln is 157 m high.",
}
QUESTIONS = [
    {"id": "descale", "query": "how to descale a kettle", "relevant": ["kettles"]},
    {"query": "cathedral Köln", "relevant": [{"external_id": "koeln", "grade": 2}, {"external_id": "tea", "grade": 0}]},
    {"id": "lost", "query": "zeppelin", "relevant": ["tea"]},
]


@pytest.fixture(scope="module")
def library(api):
    c = api.collection()
    documents = {name: api.add(c, text, external_id=name)["document"] for name, text in TEXTS.items()}
    c["documents"] = {name: api.settled(document) for name, document in documents.items()}
    return c


@pytest.fixture
def golden(api, library):
    """A set that is gone after the test."""
    response = api.post(SETS, json={"name": f"golden of {library['name']}", "questions": QUESTIONS})
    assert response.status_code == 201, response.text
    yield response.json()
    api.delete(f"{SETS}/{response.json()['id']}")


def run(api, golden, **members):
    response = api.post(RUNS, json={"set": golden["name"], **members})
    assert response.status_code == 202, response.text
    api.job_over(response.json()["job"])
    done = api.get(response.headers["location"])
    assert done.status_code == 200, done.text
    return done.json()


def test_a_set_is_kept_as_it_was_sent(api, golden):
    assert golden["count"] == 3 and "questions" not in golden
    for which in (golden["id"], golden["name"]):
        assert api.get(f"{SETS}/{which}").json() == {**golden, "questions": QUESTIONS}
    listed = api.get(SETS, params={"limit": 1}).json()
    assert listed["data"] == [golden] and listed["first_id"] == golden["id"]
    api.problem(api.post(SETS, json={"name": golden["name"], "questions": QUESTIONS}), 409, "name_taken")
    assert api.delete(f"{SETS}/{golden['name']}").status_code == 204
    api.problem(api.get(f"{SETS}/{golden['id']}"), 404, "not_found")
    api.problem(api.delete(f"{SETS}/{golden['id']}"), 404, "not_found")


def test_pages_of_sets(api):
    ids = [api.post(SETS, json={"name": f"page {i}", "questions": QUESTIONS}).json()["id"] for i in range(3)]
    first = api.get(SETS, params={"limit": 2}).json()
    assert [s["id"] for s in first["data"]] == ids[:0:-1] and first["has_more"]
    rest = api.get(SETS, params={"limit": 2, "after": first["last_id"]}).json()
    assert rest["data"][0]["id"] == ids[0]
    back = api.get(SETS, params={"limit": 2, "before": ids[0]}).json()
    assert [s["id"] for s in back["data"]] == ids[:0:-1]
    for which in ids:
        api.delete(f"{SETS}/{which}")


@pytest.mark.parametrize(
    "questions, pointer",
    [
        ([], "/questions"),
        (["a"], "/questions/0"),
        ([QUESTIONS[0], {"query": "a"}], "/questions/1/relevant"),
        ([{"query": "", "relevant": ["a"]}], "/questions/0/query"),
        ([{"query": "a", "relevant": [7]}], "/questions/0"),
        ([{"query": "a", "relevant": [{"external_id": "a", "grade": 101}]}], "/questions/0/relevant/grade"),
        ([{"query": "a", "relevant": [{"external_id": "a", "chunk_id": NO_ID}]}], "/questions/0"),
        ([{"query": "a", "relevant": [{"external_id": "a", "grade": 0}]}], "/questions/0"),
        ([QUESTIONS[0], {"query": "a", "relevant": ["a"], "relevent": ["b"]}], "/questions/1/relevent"),
        ([{"query": "a" * 8193, "relevant": ["a"]}], "/questions/0/query"),
    ],
)
def test_wrong_sets_are_refused(api, questions, pointer):
    api.problem(api.post(SETS, json={"name": "wrong", "questions": questions}), 422, "validation", pointer)


def test_wrong_names_and_runs_are_refused(api, golden):
    for name in ("", "a/b", " a", NO_ID):
        api.problem(api.post(SETS, json={"name": name, "questions": QUESTIONS}), 422, "validation", "/name")
    for members, pointer in [({"mode": "metadata"}, "/mode"), ({"mode": "vector"}, "/mode"), ({"k": 0}, "/k"), ({"k": 21}, "/k"),
                             ({"base": "x"}, "/base"), ({"base": NO_ID}, "/base"), ({"more": 1}, "/more"),
                             ({"collections": []}, "/collections")]:
        api.problem(api.post(RUNS, json={"set": golden["id"], **members}), 422, "validation", pointer)
    api.problem(api.post(RUNS, json={}), 422, "validation", "/set")
    api.problem(api.post(RUNS, json={"set": "nobody"}), 404, "not_found")
    api.problem(api.post(RUNS, json={"set": golden["id"], "collections": [NO_ID]}), 404, "not_found")
    api.problem(api.get(f"{RUNS}/{NO_ID}"), 404, "not_found")
    other = api.post("/api/v1/admin/fsck").json()
    api.problem(api.get(f"{RUNS}/{other['id']}"), 404, "not_found")
    api.job_over(other)


def test_the_limit_of_sets(api, golden):
    """limits.eval_sets is 5 here."""
    made = []
    while len(made) < 10:
        response = api.post(SETS, json={"name": f"one more {len(made)}", "questions": QUESTIONS})
        if response.status_code != 201:
            break
        made.append(response.json()["id"])
    assert len(made) == 4
    api.problem(response, 507, "quota_exceeded", says="limits.eval_sets")
    many = [QUESTIONS[0]] * 51
    api.problem(api.post(SETS, json={"name": "many", "questions": many}), 422, "validation", "/questions")
    for which in made:
        api.delete(f"{SETS}/{which}")


def test_a_run_and_its_diff(api, library, golden):
    first = run(api, golden, collections=[library["name"]], k=5)
    assert first["set_id"] == golden["id"] and first["base"] is None and first["collections"] == [library["id"]]
    result = first["result"]
    assert result["n"] == 3 and result["k"] == 5 and result["mode"] == "hybrid"
    assert [q["id"] for q in result["questions"]] == ["descale", "cathedral Köln", "lost"]
    assert [q["rr"] for q in result["questions"]] == [1, 1, 0]
    assert result["mrr"] == result["recall@k"] == pytest.approx(2 / 3) and result["ndcg@10"] == pytest.approx(2 / 3)
    assert first["job"]["result"]["ndcg@10"] == result["ndcg@10"] and first["job"]["type"] == "eval"
    assert "base_ndcg@10" not in result and result["absent"] == 0

    api.put(api.path(library, "/documents/by-external-id/tea"), json={"text": "One zeppelin."})
    api.settled(library["documents"]["tea"])
    second = run(api, golden, collections=[library["id"]], base=first["id"])
    assert second["base"] == first["id"] and second["result"]["base_ndcg@10"] == result["ndcg@10"]
    assert (second["result"]["better"], second["result"]["worse"], second["result"]["new"]) == (1, 0, 0)
    lost = second["result"]["questions"][2]
    assert (lost["base_ndcg@10"], lost["ndcg@10"]) == (0, 1)

    listed = api.get("/api/v1/jobs", params={"type": "eval", "limit": 2}).json()["data"]
    assert [job["id"] for job in listed] == [second["id"], first["id"]]
    assert api.delete(f"{SETS}/{golden['id']}").status_code == 204
    assert api.get(f"{RUNS}/{second['id']}").json()["result"] is None, "results go with their set"


def test_a_run_of_documents_and_chunks_by_id(api, library):
    document = library["documents"]["koeln"]["id"]
    chunk = api.get(f"/api/v1/documents/{document}/chunks").json()["data"][0]["id"]
    questions = [{"query": "cathedral", "relevant": [{"document_id": document}]},
                 {"id": "chunk", "query": "cathedral", "relevant": [{"chunk_id": chunk}]}]
    golden = api.post(SETS, json={"name": "by id", "questions": questions}).json()
    response = api.post(RUNS, json={"set": golden["id"], "mode": "lexical", "collections": [library["id"]]},
                        headers={"Prefer": "wait=30"})
    assert response.status_code == 200 and response.json()["result"]["ndcg@10"] == 1, response.text
    api.delete(f"{SETS}/{golden['id']}")


def test_only_some_results_are_kept(api, library, golden):
    """limits.eval_results is 2 here."""
    runs = [run(api, golden, mode="lexical", collections=[library["id"]])["id"] for _ in range(3)]
    kept = [api.get(f"{RUNS}/{which}").json()["result"] is not None for which in runs]
    assert kept == [False, True, True]
    api.problem(api.post(RUNS, json={"set": golden["id"], "base": runs[0]}), 422, "validation", "/base")


def test_a_set_from_a_file_of_the_command(api, server, golden, tmp_path):
    """The command and the API take the same questions and give the same result."""
    file = tmp_path / "golden.ndjson"
    file.write_text("".join(json.dumps(q) + "\n" for q in api.get(f"{SETS}/{golden['id']}").json()["questions"]))
    told = server.cli("eval", "--json", str(file))
    assert told.returncode == 0, told.stderr
    mine, theirs = json.loads(told.stdout), run(api, golden)["result"]
    assert mine["questions"] == theirs["questions"] and mine["ndcg@10"] == theirs["ndcg@10"]
    named = server.cli("eval", "--json", golden["name"])
    assert named.returncode == 0 and json.loads(named.stdout)["questions"] == theirs["questions"], named.stderr
    assert "no golden set" in server.cli("eval", "absent").stderr


def test_what_is_not_there_is_counted(api):
    """By external id, document and chunk; also what is in another collection than those that are searched."""
    shelf = api.collection()
    api.ready(shelf, "green tea", external_id="tea")
    koeln = api.ready(shelf, "the cathedral")
    elsewhere = api.ready(api.collection(), "a kettle, too", external_id="elsewhere")
    chunk = api.get(f"/api/v1/documents/{elsewhere['id']}/chunks").json()["data"][0]
    names = ["tea", "nowhere", "elsewhere", {"document_id": NO_ID}, {"document_id": elsewhere["id"]}, {"chunk_id": NO_ID}, {"chunk_id": chunk["id"]},
             {"document_id": koeln["id"]}]  # fmt: skip
    made = api.post(SETS, json={"name": "absent", "questions": [{"query": "tea", "relevant": names}]}).json()
    here = run(api, made, collections=[shelf["name"]])["result"]
    assert here["absent"] == 6 and here["recall@k"] == 1 / 8
    assert run(api, made)["result"]["absent"] == 3
    api.delete(f"{SETS}/{made['id']}")
