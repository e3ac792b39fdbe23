"""Documents that are named by a URL: an ingest job fetches them, from public addresses only (and from 127.0.0.1 here, which
the settings of these tests permit)."""

import threading

import pdf
import pytest

from ragdtest import wait_for
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
        elif path == "/slow":
            self.server.gate.wait(20)
            self.answer(200, b"slow words", Content_Type="text/plain")
        elif path == "/gone":  # after the first time
            self.answer(200 if seen.count(self.path) == 1 else 404, PAGE, Content_Type="text/html; charset=utf-8")
        elif path == "/returns":  # every second time
            self.answer(404 if seen.count(self.path) % 2 else 200, PAGE, Content_Type="text/html; charset=utf-8")
        elif path == "/unreadable":
            self.answer(200, pdf.encrypted(), Content_Type="application/pdf")
        elif path == "/counter":
            self.answer(200, b"this is visit number %d" % seen.count(self.path), Content_Type="text/plain")
        else:
            self.answer(404, b"nothing here")


@pytest.fixture(scope="module")
def site():
    with Server(Site) as site:
        site.server.seen, site.server.gate = [], threading.Event()
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


def is_found(api, collection, document):
    hits = api.search("ferry Rorschach", collection)["hits"]
    assert [hit["document_id"] for hit in hits] == [document["id"]]
    assert "Rorschach leaves at nine" in api.get(f"/api/v1/documents/{document['id']}/text").text
    assert len(api.get(f"/api/v1/documents/{document['id']}/chunks").json()["data"]) == 1


@pytest.mark.parametrize("path", ["/gone", "/nothing", "/empty"])
def test_what_is_there_stays_when_another_fetch_fails(api, collection, site, path):
    by_id = api.path(collection, "/documents/by-external-id/u")
    url = site.url + f"{path}?{collection['id']}"
    first = site.url + "/ferries.html" if path != "/gone" else url
    document = api.settled(api.put(by_id, json={"url": first}).json()["document"])
    is_found(api, collection, document)
    versions = document["versions"]
    response = api.put(by_id, json={"url": url, "title": "Other"})
    assert response.status_code == 200 and response.json()["job"]
    document = api.settled(response.json()["document"])
    assert (document["status"], document["last_error"]["stage"]) == ("failed", "fetch")
    assert (document["mime"], document["bytes"], document["versions"]) == ("text/html", len(PAGE), versions)
    is_found(api, collection, document)
    content = api.get(f"/api/v1/documents/{document['id']}/content")
    assert content.content == PAGE and content.headers["Content-Type"] == "text/html"

    # a retry asks the URL again, and reprocessing goes back to what is there
    assert api.job_over(api.post(f"/api/v1/jobs/{document['job_id']}/retry").json())["error"]["stage"] == "fetch"
    response = api.post(f"/api/v1/documents/{document['id']}/reprocess", json={})
    assert api.job_over(response.json())["status"] == "succeeded"
    document = api.document(document)
    assert (document["status"], document["last_error"], document["versions"]) == ("ready", None, versions)
    is_found(api, collection, document)


def test_a_fetched_content_that_cannot_be_read(api, collection, site):
    by_id = api.path(collection, "/documents/by-external-id/u")
    document = api.settled(api.put(by_id, json={"url": site.url + "/ferries.html"}).json()["document"])
    again = api.settled(api.put(by_id, json={"url": site.url + "/unreadable"}).json()["document"])
    assert (again["status"], again["last_error"]["code"]) == ("failed", "encrypted")
    assert again["versions"] == document["versions"] + 1
    is_found(api, collection, document)


def test_the_same_content_once_more_is_no_version(api, collection, site):
    by_id = api.path(collection, "/documents/by-external-id/u")
    document = api.settled(api.put(by_id, json={"url": site.url + "/ferries.html"}).json()["document"])
    for url in ("/ferries.html", "/moved"):
        response = api.put(by_id, json={"url": site.url + url, "tags": [url]})
        assert response.status_code == 200 and response.json()["job"]["id"] != document["job_id"]
        again = api.settled(response.json()["document"])
        assert (again["status"], again["versions"], again["tags"]) == ("ready", document["versions"], [url])
        is_found(api, collection, again)


def test_a_url_takes_the_place_of_a_text(api, collection, site):
    by_id = api.path(collection, "/documents/by-external-id/u")
    document = api.settled(api.put(by_id, json={"text": "words of a lighthouse"}).json()["document"])
    again = api.settled(api.put(by_id, json={"url": site.url + "/ferries.html"}).json()["document"])
    assert (again["id"], again["status"], again["mime"], again["versions"]) == (document["id"], "ready", "text/html", 2)
    is_found(api, collection, again)
    assert not api.search("lighthouse", collection)["hits"]


@pytest.mark.parametrize("newer", [{"url": "/ferries.html"}, {"text": PAGE.decode(), "mime": "text/html"}], ids=["url", "text"])
def test_a_slow_fetch_replaces_nothing_newer(api, collection, site, newer):
    by_id = api.path(collection, "/documents/by-external-id/u")
    slow = f"/slow?{collection['id']}"
    site.server.gate.clear()
    document = api.settled(api.put(by_id, json={"text": "first"}).json()["document"])
    job = api.put(by_id, json={"url": site.url + slow}).json()["job"]
    wait_for(lambda: slow in site.server.seen, "the fetch")
    newer = {**newer, "url": site.url + newer["url"]} if "url" in newer else newer
    assert api.put(by_id, json=newer).status_code == 200
    if "url" in newer:
        is_found(api, collection, api.settled(document))
    site.server.gate.set()
    ended = api.job_over(job)
    document = api.settled(document)
    assert (document["status"], document["mime"], document["versions"]) == ("ready", "text/html", 2)
    is_found(api, collection, document)
    if "url" in newer:
        assert (ended["status"], ended["error"]["code"]) == ("failed", "superseded")


def test_a_fetch_is_called_off_by_what_was_there_before(api, collection, site):
    by_id = api.path(collection, "/documents/by-external-id/u")
    slow = f"/slow?again{collection['id']}"
    site.server.gate.clear()
    document = api.settled(api.put(by_id, json={"text": "words of a lighthouse"}).json()["document"])
    fetch = api.put(by_id, json={"url": site.url + slow}).json()["job"]
    wait_for(lambda: slow in site.server.seen, "the fetch")
    answer = api.put(by_id, json={"text": "words of a lighthouse"})
    assert answer.status_code == 200 and answer.json()["job"]["id"] != fetch["id"]
    site.server.gate.set()
    assert api.job_over(fetch)["error"]["code"] == "superseded"
    document = api.settled(document)
    assert (document["status"], document["mime"], document["versions"]) == ("ready", "text/plain", 1)
    assert api.search("lighthouse", collection)["hits"]


def test_the_same_url_again(api, collection, site):
    path = api.path(collection, "/documents")
    url = site.url + f"/counter?{collection['id']}"
    document = api.settled(add(api, collection, url)["document"])
    response = api.post(path, json={"url": url, "title": "Other"})
    assert response.status_code == 200 and response.json()["job"] is None
    assert response.json()["duplicate_of"] == document["id"] and response.json()["document"] == document
    for on_duplicate in ("link", "reject"):
        api.problem(api.post(path, json={"url": url, "on_duplicate": on_duplicate}), 409, "conflict", says="of this URL")
    again = add(api, collection, url, on_duplicate="version")
    assert again["document"]["id"] == document["id"] and again["job"]
    again = api.settled(again["document"])
    assert again["status"] == "ready" and again["versions"] == document["versions"] + 1
    assert api.get(f"/api/v1/documents/{again['id']}/content").content == b"this is visit number 2"
    assert api.settled(add(api, collection, url, external_id="mine")["document"])["status"] == "ready"
    api.problem(api.post(path, json={"url": url + "&x", "external_id": "mine"}), 409, "conflict", says="PUT")


@pytest.mark.parametrize("on_duplicate", ["skip", "version"])
def test_a_failed_url_is_fetched_again(api, collection, site, on_duplicate):
    url = site.url + f"/returns?{collection['id']}"
    failed = api.settled(add(api, collection, url)["document"])
    assert failed["status"] == "failed"
    again = add(api, collection, url, on_duplicate=on_duplicate)
    assert again["document"]["id"] == failed["id"]
    document = api.settled(again["document"])
    is_found(api, collection, document)

    # and one that was there, but not the last time
    again = api.settled(add(api, collection, url, on_duplicate="version")["document"])
    assert again["status"] == "failed"
    is_found(api, collection, again)
    again = api.settled(add(api, collection, url, on_duplicate=on_duplicate)["document"])
    assert (again["status"], again["versions"]) == ("ready", document["versions"])


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
