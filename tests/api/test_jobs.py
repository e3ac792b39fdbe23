"""Jobs: lists, cancel, retry, and the stream of their events."""

import json

import httpx
import pytest

from apitest import NO_ID, pages
from ragdtest import Ragd, wait_for


def events(response):
    """(event, id, data) of a stream of server-sent events, until it ends."""
    found, current = [], {}
    for line in response.iter_lines():
        line = line.rstrip("\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            current[name] = value
        elif current:
            found.append((current.get("event"), current.get("id"), json.loads(current["data"])))
            current = {}
    return found


def test_get_and_list(api, collection):
    added = [api.add(collection, f"job text {i}") for i in range(5)]
    for a in added:
        api.settled(a["document"])
    listed = pages(api, "/api/v1/jobs", collection=collection["id"], limit=2)
    assert [j["id"] for j in listed] == [a["job"]["id"] for a in added][::-1]
    assert {j["status"] for j in listed} == {"succeeded"}
    job = listed[0]
    assert api.get(f"/api/v1/jobs/{job['id']}").json() == job
    assert job["type"] == "ingest" and job["finished_at"] >= job["started_at"] >= job["created_at"]
    one = api.get("/api/v1/jobs", params={"document": added[2]["document"]["id"]}).json()["data"]
    assert [j["id"] for j in one] == [added[2]["job"]["id"]]
    assert api.get("/api/v1/jobs", params={"collection": collection["name"], "status": "failed"}).json()["data"] == []
    assert api.get("/api/v1/jobs", params={"collection": collection["id"], "type": "delete_collection"}).json()["data"] == []


@pytest.mark.parametrize("query", ["status=nope", "document=x", "tpye=ingest", "limit=0"])
def test_bad_queries(api, query):
    api.problem(api.get(f"/api/v1/jobs?{query}"), 422, "validation")


def test_missing_jobs(api):
    for which in (NO_ID, "x"):
        for method, rest in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")):
            api.problem(api.request(method, f"/api/v1/jobs/{which}{rest}"), 404, "not_found")
    api.problem(api.get("/api/v1/jobs?collection=no-such"), 404, "not_found")


def test_events_tell_the_end(api, collection):
    job = api.add(collection, "watched")["job"]
    with api.server.http().stream("GET", f"/api/v1/jobs/{job['id']}/events") as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["cache-control"] and response.headers["x-accel-buffering"] == "no"
        seen = events(response)
    assert [e[0] for e in seen[:-1]] == ["progress"] * (len(seen) - 1)
    name, last, data = seen[-1]
    assert name == "end" and data["status"] == "succeeded" and data["id"] == job["id"]
    for _, _, data in seen:
        api.validate(data, "Job")
    ids = [int(e[1]) for e in seen]
    assert ids == sorted(set(ids))
    # Whoever has seen the end is not told again, and an EventSource stops asking.
    again = api.get(f"/api/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": last})
    assert again.status_code == 204
    with api.server.http().stream("GET", f"/api/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "0"}) as response:
        assert [e[0] for e in events(response)] == ["end"]


def test_finished_jobs_cannot_be_cancelled_or_retried(api, collection):
    document = api.ready(collection, "done already")
    for verb in ("cancel", "retry"):
        api.problem(api.post(f"/api/v1/jobs/{document['job_id']}/{verb}"), 409, "conflict")


def test_failed_jobs_can_be_retried(api, collection):
    document = api.settled(api.upload(collection, "x.png", b"\x89PNG\r\n\x1a\n\0\0\0\0").json()["document"])
    assert document["status"] == "failed"
    response = api.post(f"/api/v1/jobs/{document['job_id']}/retry")
    assert response.status_code == 202 and response.json()["status"] in ("queued", "running", "failed")
    assert response.headers["location"] == f"/api/v1/jobs/{document['job_id']}"
    assert api.job_over(response.json())["status"] == "failed"
    api.problem(api.post(f"/api/v1/jobs/{document['job_id']}/retry", json={"force": True}), 422, "validation", "/force")


@pytest.fixture(scope="module")
def idle():
    """A server without ingest workers: what is queued stays queued."""
    with Ragd(args=["--role", "http"]) as ragd:
        yield ragd


def test_cancel_and_retry_of_a_queued_job(idle):
    collection = idle.post("/api/v1/collections", json={"name": "a"}).json()
    added = idle.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": "waits"}).json()
    path = f"/api/v1/jobs/{added['job']['id']}"
    assert idle.post(f"{path}/retry").status_code == 409
    cancelled = idle.post(f"{path}/cancel")
    assert cancelled.status_code in (200, 202) and cancelled.json()["status"] == "cancelled"
    assert idle.get(f"/api/v1/documents/{added['document']['id']}").json()["status"] == "cancelled"
    assert idle.post(f"{path}/cancel").status_code == 409
    retried = idle.post(f"{path}/retry")
    assert retried.status_code == 202 and retried.json()["status"] == "queued"
    assert idle.get(f"/api/v1/documents/{added['document']['id']}").json()["status"] == "queued"


def test_waiting_ends_with_the_clients_patience(idle):
    collection = idle.post("/api/v1/collections", json={"name": "b"}).json()
    response = idle.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": "never"}, headers={"Prefer": "wait=1"})
    assert response.status_code == 202 and response.json()["job"]["status"] == "queued"


def test_reprocess_is_busy_while_a_job_waits(idle):
    collection = idle.post("/api/v1/collections", json={"name": "c"}).json()
    document = idle.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": "queued"}).json()["document"]
    response = idle.post(f"/api/v1/documents/{document['id']}/reprocess")
    assert response.status_code == 409 and response.json()["code"] == "busy"
    assert idle.get(f"/api/v1/documents/{document['id']}/text").status_code == 409


def test_a_stream_of_events_lasts_while_the_job_does(idle):
    collection = idle.post("/api/v1/collections", json={"name": "d"}).json()
    job = idle.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": "streamed"}).json()["job"]
    with idle.http().stream("GET", f"/api/v1/jobs/{job['id']}/events") as response:
        lines = response.iter_lines()
        first = [next(lines) for _ in range(3)]
        assert any(line.startswith("event: progress") for line in first)
        assert httpx.post(f"{idle.url}/api/v1/jobs/{job['id']}/cancel").status_code in (200, 202)
        rest = "\n".join(lines)
        assert "event: end" in rest and '"status":"cancelled"' in rest
    wait_for(lambda: idle.get("/livez").status_code == 200, "the server to live on")


def test_a_document_deleted_while_it_is_worked_on_is_no_news_for_the_log():
    with Ragd({"log": {"level": "debug"}}) as ragd:
        path = ragd.post("/api/v1/collections", json={"name": "c"}).headers["location"] + "/documents"
        texts = iter(range(10**6))

        def delete_at_work():
            body = {"text": f"{next(texts)} " + "some words " * 200000}
            document = ragd.post(path, json=body).headers["location"]
            wait_for(lambda: ragd.get(document).json()["status"] in ("indexing", "ready"), "the job to write")
            assert ragd.request("DELETE", document).status_code == 204
            return "was overtaken" in ragd.log()

        wait_for(delete_at_work, "a deletion that overtakes a job", 120)
        assert not [line for line in ragd.log().splitlines() if " warn " in line and "] job " in line]
