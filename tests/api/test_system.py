"""Banner, probes, metrics, OpenAPI, documentation, and what every route has in common."""

import re

import pytest

from apitest import NO_ID
from ragdtest import Ragd, wait_for


def test_root(api):
    body = api.get("/").json()
    assert body["status"] == "running" and body["message"] == "ragd"


@pytest.mark.parametrize("path", ["/livez", "/health"])
def test_liveness(api, path):
    body = api.get(path).json()
    assert body["status"] == "ok" and body["uptime_s"] >= 0


def test_readiness(api):
    assert api.get("/readyz").json() == {"status": "ready"}
    verbose = api.get("/readyz?verbose").json()
    assert verbose["checks"]["db"]["ok"] is True
    assert verbose["status"] == "ready" and verbose["checks"]["disk"]["ok"] is True
    api.problem(api.get("/readyz?verbos"), 422, "validation", says="verbos")


def test_readiness_tells_that_disks_are_nearly_full():
    """It is degraded, not out of service: what is there can be read and searched."""
    with Ragd({"limits": {"free_disk": "1125899906842624"}}) as r:
        response = r.get("/readyz?verbose")
        disk = response.json()["checks"]["disk"]
        assert response.status_code == 200 and response.json()["status"] == "degraded" and not disk["ok"]
        assert re.fullmatch(rf"\d+ MB are free for the database in {r.dir}/ragd.db, less than limits.free_disk", disk["reason"])
        assert r.get("/readyz").json() == {"status": "ready"}
        r.write_config({"limits": {"free_disk": 0}})
        assert r.cli("reload").returncode == 0
        assert "disk" not in r.get("/readyz?verbose").json()["checks"]


def test_readiness_looks_where_files_will_be_made():
    with Ragd(env={"TMPDIR": "/nowhere/at/all"}) as r:
        assert r.get("/readyz?verbose").json()["checks"]["disk"]["ok"] is True


def test_request_ids_are_echoed_or_made(api):
    assert api.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = {api.get("/livez").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3


def test_unknown_paths(api):
    for path in ("/nope", "/api/v1/nope", "/api/v1", "/livez/", "/api/v1/documents"):
        api.problem(api.server.get(path), 404, "not_found")


def test_wrong_methods_name_the_right_ones(api):
    response = api.server.request("PUT", "/api/v1/collections")
    api.problem(response, 405, "method_not_allowed")
    assert {m.strip() for m in response.headers["allow"].split(",")} >= {"GET", "HEAD", "POST"}


def test_head_is_get_without_body(api, collection):
    got, head = api.get(api.path(collection)), api.server.request("HEAD", api.path(collection))
    assert head.status_code == 200 and head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"] and head.headers["etag"] == got.headers["etag"]


def test_options_tells_methods(api, collection):
    response = api.server.request("OPTIONS", api.path(collection))
    assert response.status_code == 204
    assert {"GET", "PATCH", "DELETE"} <= {m.strip() for m in response.headers["allow"].split(",")}


# -- the description of the API


def operations(openapi):
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_openapi_is_sound(api):
    document = api.openapi
    assert document["openapi"].startswith("3.1")
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) >= 36
    for path, _, operation in operations(document):
        named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path))
        assert operation["summary"] and operation["tags"] and operation["responses"]["default"]


def test_headers_are_described_where_they_work(api):
    """What the answers show: where If-Match is understood, nonsense in it is refused."""
    for path, method, operation in operations(api.openapi):
        headers = {p["name"] for p in operation["parameters"] if p["in"] == "header"}
        assert ("If-None-Match" in headers) == ("304" in operation["responses"] or method == "put"), path
        assert ("Range" in headers) == ("If-Range" in headers) == ("206" in operation["responses"]), path
        if method in ("put", "patch", "delete"):
            url = re.sub(r"\{\w+\}", NO_ID, path)
            response = api.server.request(method.upper(), url, headers={"If-Match": "x"}, json={})
            assert ("If-Match" in headers) == ("If-Match" in response.json().get("detail", "")), path
    modes = {s: api.openapi["components"]["schemas"][s]["properties"]["mode"]["enum"] for s in ("SearchRequest", "AskRequest")}
    assert modes == {"SearchRequest": ["hybrid", "lexical", "vector", "metadata"], "AskRequest": ["hybrid", "lexical", "vector"]}
    asked = api.server.request("POST", "/api/v1/ask", json={"question": "x", "mode": "metadata"})
    assert asked.status_code == 422 and asked.json()["errors"][0]["pointer"] == "/mode"


def test_every_documented_route_exists(api):
    """Asked for objects that are not there, with no body: every route answers, none with 405 or 5xx."""
    for path, method, operation in operations(api.openapi):
        if path.startswith("/debug/"):
            continue
        url = re.sub(r"\{\w+\}", NO_ID, path)
        response = api.server.request(method.upper(), url)
        assert response.status_code < 500 and response.status_code != 405, f"{method} {path}: {response.text}"
        if "{" in path:
            assert response.status_code in (404, 415, 422, 400), f"{method} {path}: {response.status_code}"


def test_docs_page_names_every_route(api):
    response = api.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "<script" not in response.text and "http://" not in response.text and "https://" not in response.text
    for path in api.openapi["paths"]:
        if not path.startswith("/debug/"):
            assert f"<code>{path}</code>" in response.text
    for schema in api.openapi["components"]["schemas"]:
        assert f"id={schema}>" in response.text


def test_debug_routes_only_when_asked_for(api):
    assert api.get("/debug/sleep?ms=1").json()["status"] == "done"
    with Ragd({"debug": {"faults": False}}) as plain:
        assert plain.get("/debug/sleep?ms=1").status_code == 404
        assert "/debug/sleep" not in plain.get("/openapi.json").json()["paths"]


def test_base_path():
    ragd = Ragd({"server": {"base_path": "/rag"}})
    try:
        ragd.start("/rag/readyz")
        assert ragd.get("/livez").status_code == 404
        made = ragd.post("/rag/api/v1/collections", json={"name": "a"})
        assert made.headers["location"] == f"/rag/api/v1/collections/{made.json()['id']}"
        assert ragd.get(made.headers["location"]).json() == made.json()
        assert ragd.get("/rag/openapi.json").json()["servers"] == [{"url": "/rag"}]
        assert ragd.get("/rag/").json()["docs"] == "/rag/docs"
        assert ragd.get("/rag/api/v1/documents/x").json()["instance"] == "/rag/api/v1/documents/x"
    finally:
        ragd.close()


# -- metrics


SAMPLE = re.compile(r'^(ragd_[a-z_]+)(?:\{((?:[a-z_][a-z0-9_]*="[^"]*",?)*)\})? (-?[0-9.e+]+|\+Inf|NaN)$')


def scrape(api):
    """{(name, labels): value}; fails on anything that is not the Prometheus text format."""
    response = api.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples, types = {}, {}
    for line in response.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} is told twice"
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, f"not a sample: {line}"
            name, labels, value = match.groups()
            family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in types else name
            assert family in types, f"{name} has no TYPE"
            assert (name, labels) not in samples, f"{line} is told twice"
            samples[name, labels] = float(value)
    return samples


def test_metrics_parse_and_add_up(api):
    route = 'method="GET",route="/livez"'
    before = scrape(api)
    for _ in range(20):
        api.get("/livez")
    counted = ("ragd_requests_total", f'{route},code="2xx"')
    after = wait_for(lambda: (s := scrape(api)).get(counted, 0) >= before.get(counted, 0) + 20 and s, "20 more requests")
    assert after[counted] == before.get(counted, 0) + 20
    assert after["ragd_request_duration_seconds_count", route] == after[counted]
    buckets = [v for (name, labels), v in after.items() if name.endswith("_bucket") and labels.startswith(route + ",le")]
    assert buckets == sorted(buckets) and buckets[-1] == after[counted]
    assert after["ragd_bytes_sent_total", None] > before["ragd_bytes_sent_total", None]
    assert after["ragd_store_calls_total", None] > 0
    assert after["ragd_workers", 'role="http",state="READY"'] == 2
    assert any(name == "ragd_worker_rss_bytes" and value > 1e6 for (name, _), value in after.items())
    anon = {worker: value for (name, worker), value in after.items() if name == "ragd_worker_anon_bytes"}
    assert max(anon.values()) > 1e6 and all(value <= after["ragd_worker_rss_bytes", worker] for worker, value in anon.items())


def test_metrics_count_jobs(api, collection):
    before = scrape(api)["ragd_jobs", 'state="succeeded"']
    api.ready(collection, "a document that is counted")
    wait_for(lambda: scrape(api)["ragd_jobs", 'state="succeeded"'] > before, "the job to be counted", every=0.2)
