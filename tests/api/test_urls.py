"""Documents that are named by a URL: an ingest job fetches them, from public addresses only (and from 127.0.0.1 here, which
the settings of these tests permit)."""

import pytest

from receiver import Handler, Server

PAGE = b"<html><head><title>Ferries</title></head><body><h1>Ferries</h1><p>The ferry to Rorschach leaves at nine.</p></body></html>"


class Site(Handler):
    def do_GET(self):
        path, seen = self.path.split("?")[0], self.server.seen
        seen.append(self.path)
        if path == "/ferries.html":
            self.answer(200, PAGE, Content_Type="text/html; charset=utf-8")
        elif path == "/moved":
            self.answer(302, Location="/ferries.html")
        elif path == "/inside":
            self.answer(302, Location="http://10.255.255.1/secret")
        elif path == "/circle":
            self.answer(302, Location="/circle")
        elif path == "/plain%20notes.txt":
            self.answer(200, b"plain notes about lighthouses", Content_Type="application/octet-stream")
        elif path == "/large":
            self.answer(200, b"lighthouse " * 400000)
        elif path == "/long":
            self.answer(200, b"lighthouses blink in the night. " * 50000, Content_Type="text/plain")
        elif path == "/empty":
            self.answer(200, b"")
        elif path == "/once":
            self.answer(503 if seen.count(self.path) == 1 else 200, b"answered at last", Content_Type="text/plain")
        elif path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
        elif path == "/counter":
            self.answer(200, b"this is visit number %d" % seen.count(self.path), Content_Type="text/plain")
        else:
            self.answer(404, b"nothing here")


@pytest.fixture(scope="module")
def site():
    with Server(Site) as site:
        site.server.seen = []
        yield site


def add(api, collection, url, **members):
    response = api.post(api.path(collection, "/documents"), json={"url": url, **members})
    assert response.status_code == 202, response.text
    return response.json()


def test_a_page_is_fetched(api, collection, site):
    url = site.url + "/ferries.html"
    added = add(api, collection, url, metadata={"a": 1}, tags=["boats"])
    document = api.settled(added["document"])
    assert document["status"] == "ready" and document["id"] == added["document"]["id"]
    assert document["external_id"] == url and document["filename"] == "ferries.html"
    assert document["mime"] == "text/html" and document["bytes"] == len(PAGE) and document["title"] == "Ferries"
    assert document["metadata"] == {"a": 1} and document["tags"] == ["boats"]
    assert api.get(f"/api/v1/documents/{document['id']}/content").content == PAGE
    assert api.get(f"/api/v1/jobs/{added['job']['id']}").json()["status"] == "succeeded"
    assert api.search("ferry Rorschach", collection)["hits"][0]["document_id"] == document["id"]
    api.problem(api.post(api.path(collection, "/documents"), json={"url": url}), 409, "conflict")


def test_redirects_names_and_given_members(api, collection, site):
    document = api.settled(add(api, collection, site.url + "/moved", external_id="m", title="Mine")["document"])
    assert (document["status"], document["external_id"], document["title"]) == ("ready", "m", "Mine")
    assert document["filename"] == "ferries.html"
    document = api.settled(add(api, collection, site.url + "/plain%20notes.txt?q=1")["document"])
    assert (document["status"], document["filename"], document["mime"]) == ("ready", "plain notes.txt", "text/plain")


def test_a_file_of_several_parts(api, collection, site):
    document = api.settled(add(api, collection, site.url + "/long")["document"])
    assert document["status"] == "ready" and document["bytes"] == 50000 * 32


def test_a_passing_fault_is_tried_again(api, collection, site):
    document = api.settled(add(api, collection, site.url + f"/once?{collection['id']}")["document"])
    assert document["status"] == "ready" and document["bytes"] == len(b"answered at last")


@pytest.mark.parametrize(
    "path, code, says",
    [
        ("/nothing", "fetch_refused", "status 404"),
        ("/inside", "blocked_url", "not public"),
        ("/circle", "fetch_refused", "redirected"),
        ("/large", "too_large", "larger than"),
        ("/empty", "empty_file", "empty"),
        ("/cut", "provider_error", "no whole answer"),
    ],
)
def test_what_cannot_be_fetched_says_why(api, collection, site, path, code, says):
    document = api.settled(add(api, collection, site.url + path)["document"])
    error = document["last_error"]
    assert (document["status"], error["code"], error["stage"]) == ("failed", code, "fetch")
    assert says in error["message"]


@pytest.mark.parametrize("url", ["http://10.255.255.1/", "http://[::1]:1/", "http://169.254.169.254/latest", "https://u:p@127.0.0.1/"])
def test_other_addresses_are_not_asked(api, collection, url):
    document = api.settled(add(api, collection, url)["document"])
    assert document["last_error"]["code"] == "blocked_url" and document["last_error"]["stage"] == "fetch"


def test_put_fetches_again(api, collection, site):
    url = site.url + f"/counter?{collection['id']}"
    path = api.path(collection, "/documents/by-external-id/visits")
    first = api.settled(api.put(path, json={"url": url}).json()["document"])
    again = api.settled(api.put(path, json={"url": url}).json()["document"])
    assert again["id"] == first["id"] and again["status"] == "ready"
    assert api.get(f"/api/v1/documents/{again['id']}/content").content == b"this is visit number 2"


def test_an_import_may_name_urls(api, collection, site):
    line = f'{{"url": "{site.url}/ferries.html"}}\n'
    answer = api.post(api.path(collection, "/import"), content=line, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    assert api.settled({"id": answer.json()["document_id"]})["status"] == "ready"


@pytest.mark.parametrize(
    "members, pointer",
    [
        ({"url": "ftp://example.com/"}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": "http://example.com/" + "x" * 2048}, "/url"),
        ({"url": "http://example.com/", "text": "both"}, "/url"),
        ({"url": "http://example.com/", "mime": "text/html"}, "/mime"),
        ({"text": "http://example.com/", "mime": "application/vnd.ragd.url"}, "/mime"),
    ],
)
def test_bad_members(api, shared, members, pointer):
    api.problem(api.post(api.path(shared, "/documents"), json=members), 422, "validation", pointer)
