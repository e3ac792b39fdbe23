"""Upkeep of the vector index over HTTP. What it does is tested in tests/contract; here is what clients see of it."""


def problem(response, status, code):
    assert response.status_code == status and response.json()["code"] == code, response.text


def test_fsck_answers_with_counts(api, collection):
    api.ready(collection, "Lines are doubled in winter.")
    job = api.post("/api/v1/admin/fsck", json={"repair": True})
    assert job.status_code == 202, job.text
    done = api.job_over(job.json())
    assert done["status"] == "succeeded" and done["type"] == "fsck"
    counts = ["spaces", "documents", "missing", "orphans", "mismatched", "aliases", "strays", "repaired"]
    assert done["result"] == dict.fromkeys(counts, 0)
    waited = api.post("/api/v1/admin/fsck", headers={"Prefer": "wait=30"})
    assert waited.status_code == 200 and waited.json()["result"]["missing"] == 0
    problem(api.post("/api/v1/admin/fsck", json={"repair": "yes"}), 422, "validation")


def test_reindex_needs_an_embedder(api, collection):
    problem(api.post("/api/v1/admin/reindex"), 409, "conflict")
    problem(api.post("/api/v1/admin/reindex", json={"collections": ["nobody"]}), 404, "not_found")
    problem(api.post("/api/v1/admin/reindex", json={"collections": []}), 422, "validation")


def test_generations_that_are_not_there(api, collection):
    body = {"collection": collection["id"]}
    for what in ("promote", "rollback"):
        problem(api.post(f"/api/v1/admin/generations/2/{what}", json=body), 409, "conflict")
        problem(api.post(f"/api/v1/admin/generations/1/{what}", json=body), 409, "conflict")  # nothing was embedded yet
        problem(api.post(f"/api/v1/admin/generations/x/{what}", json=body), 404, "not_found")
        problem(api.post(f"/api/v1/admin/generations/2/{what}", json={"collection": "nobody"}), 404, "not_found")
        problem(api.post(f"/api/v1/admin/generations/2/{what}", json={}), 422, "validation")
    assert collection["shadow"] is None and collection["previous"] is None
