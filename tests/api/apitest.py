"""A client that holds every answer against the server's own OpenAPI document.

    api = Api(server)
    document = api.add(collection, "some text")["document"]
    api.problem(api.get("/api/v1/documents/nope"), 404, "not_found")
"""

import itertools
import json
import re

import jsonschema

from ragdtest import wait_for

NUMBERS = itertools.count(1)
NO_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Api:
    def __init__(self, server):
        self.server = server
        self.openapi = server.get("/openapi.json").json()
        self.routes = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "$"), path) for path in self.openapi["paths"]]

    # -- requests

    def request(self, method, path, **kw):
        """Sends the request and checks the answer's status, type and body against the document."""
        response = self.server.request(method, path, **kw)
        self.check(method, response)
        return response

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, **kw):
        return self.request("POST", path, **kw)

    def put(self, path, **kw):
        return self.request("PUT", path, **kw)

    def patch(self, path, **kw):
        return self.request("PATCH", path, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)

    def check(self, method, response):
        if response.status_code >= 400 and response.headers.get("content-type") == "application/problem+json":
            return self.validate(response.json(), "Problem")
        template = self.template(response.url.raw_path.decode().partition("?")[0])
        answers = self.openapi["paths"][template][method.lower()]["responses"]
        answer = answers.get(str(response.status_code))
        assert answer, f"{method} {template} answers {response.status_code}, the document knows {list(answers)}"
        if not response.content:
            return None
        kind = response.headers["content-type"].split(";")[0]
        content = answer["content"].get(kind, answer["content"].get("application/octet-stream"))
        assert content is not None, f"{method} {template} answers {kind}, the document knows {list(answer['content'])}"
        if kind == "application/json" and "schema" in content:
            self.validate(response.json(), content["schema"]["$ref"].rpartition("/")[2])
        if kind == "application/x-ndjson":
            for line in lines(response):
                self.validate(line, content["schema"]["$ref"].rpartition("/")[2])

    def template(self, path):
        """The path of the document that a request's path belongs to; one without parameters first."""
        for pattern, template in sorted(self.routes, key=lambda route: route[1].count("{")):
            if pattern.match(path):
                return template
        raise AssertionError(f"no path of the OpenAPI document matches {path}")

    def validate(self, value, schema):
        root = {"$ref": f"#/components/schemas/{schema}", "components": self.openapi["components"]}
        jsonschema.Draft202012Validator(root, format_checker=jsonschema.FormatChecker()).validate(value)

    # -- what tests need again and again

    def collection(self, **members):
        body = {"name": f"test-{next(NUMBERS)}", **members}
        response = self.post("/api/v1/collections", json=body)
        assert response.status_code == 201, response.text
        return response.json()

    def path(self, collection, rest=""):
        return f"/api/v1/collections/{collection['id']}{rest}"

    def add(self, collection, text, **members):
        """Adds a document by JSON; does not wait for it."""
        response = self.post(self.path(collection, "/documents"), json={"text": text, **members})
        assert response.status_code in (200, 202), response.text
        return response.json()

    def upload(self, collection, name, content, kind="text/plain", headers=None, **fields):
        return self.post(self.path(collection, "/documents"), files={"file": (name, content, kind)}, data=fields, headers=headers)

    def document(self, document):
        return self.get(f"/api/v1/documents/{document['id']}").json()

    def settled(self, document):
        """The document once it is ready, failed or cancelled."""

        def state():
            now = self.document(document)
            return now if now["status"] in ("ready", "failed", "cancelled") else None

        return wait_for(state, f"document {document['id']} to settle")

    def ready(self, collection, text, **members):
        """Adds a document and waits until it can be searched."""
        document = self.settled(self.add(collection, text, **members)["document"])
        assert document["status"] == "ready", document
        return document

    def job_over(self, job):
        def state():
            now = self.get(f"/api/v1/jobs/{job['id']}").json()
            return now if now["status"] not in ("queued", "running") else None

        return wait_for(state, f"job {job['id']} to end")

    def search(self, query, *collections, **members):
        body = {"query": query, "collections": [c["id"] for c in collections], "mode": "lexical", **members}
        if query is None:
            del body["query"]
        response = self.post("/api/v1/search", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def problem(self, response, status, code, pointer=None, says=None):
        """The answer is this problem, with all that a client may rely on."""
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        body = response.json()
        self.validate(body, "Problem")
        assert body["status"] == status and body["code"] == code, body
        assert body["request_id"] == response.headers["x-request-id"]
        assert body["error"]["code"] == code and body["error"]["message"] == body["detail"]
        param = body["errors"][0]["pointer"].removeprefix("/").partition("/")[0] if "errors" in body else ""
        assert body["error"]["param"] == (param or None), body
        if pointer is not None:
            assert [e["pointer"] for e in body["errors"]] == [pointer], body
        if says is not None:
            assert says in body["detail"], body
        return body


def lines(response):
    """The objects of an NDJSON answer."""
    return [json.loads(line) for line in response.text.splitlines()]


def pages(api, path, **params):
    """Every object of a list, page by page, forwards."""
    found = []
    while True:
        page = api.get(path, params=params).json()
        found += page["data"]
        if not page["has_more"]:
            return found
        params["after"] = page["last_id"]
