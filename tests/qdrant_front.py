"""A small front over Qdrant's real engine (qdrant-edge-py, in this process), for tests: the part of the REST interface
that ragd uses, each request checked by the models of qdrant-client, which know no member that Qdrant does not know.

usage: qdrant_front.py DIRECTORY [API_KEY [PORT [CERTIFICATE_AND_KEY]]]

Prints its port, and ends when stdin does. What it has confirmed is in DIRECTORY, and there again after kill -9.
POST /front {"status": 503, "times": 2, "retry_after": 1} makes the next requests fail; {"update": "acknowledged"} makes the
next change claim only that. GET /front tells the ordering of the last change.
"""
import glob
import http.server
import json
import os
import re
import ssl
import sys
import threading
import time
import urllib.parse

import pydantic
import qdrant_edge as edge
from qdrant_client.http import models

ROUTES = []


class Problem(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status, self.text = status, text


def route(method, pattern, model=None):
    def add(fn):
        ROUTES.append((method, re.compile(pattern + "$"), model, fn))
        return fn
    return add


class Collection:
    def __init__(self, path, wanted):
        (self.name, params), = wanted["vectors"].items()
        self.wanted, self.path = wanted, path
        vector = edge.EdgeVectorParams(size=params["size"], distance=getattr(edge.Distance, params["distance"]))
        config = edge.EdgeConfig(vectors={self.name: vector})
        self.shard = edge.EdgeShard.load(path, config) if os.path.exists(path) else edge.EdgeShard.create(path, config)

    def change(self, operation):
        self.shard.update(operation)
        self.shard.flush()


def member(payload, path):
    for part in (p.strip('"') for p in path.split(".")):
        payload = payload.get(part) if isinstance(payload, dict) else None
    return payload


def condition(shard, c):
    if "key" not in c:
        return filter_of(shard, c)
    match, span = c.get("match"), c.get("range")
    if match and isinstance(match.get("value"), bool):  # the bindings take true for 1: look for the points here
        points, _ = shard.scroll(edge.ScrollRequest(limit=100000, with_payload=True))
        same = [p.id for p in points if member(p.payload, c["key"]) is match["value"]]
        return edge.HasIdCondition(set(same))
    if match:
        match = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
    if span:
        span = edge.RangeFloat(**{k: float(v) for k, v in span.items()})
    return edge.FieldCondition(key=c["key"], match=match, range=span)


def filter_of(shard, f):
    clauses = {k: [condition(shard, c) for c in f[k]] for k in ("must", "should", "must_not") if f.get(k) is not None}
    return edge.Filter(**clauses)


class Front:
    def __init__(self, directory):
        self.directory, self.collections, self.lock = directory, {}, threading.Lock()
        self.fault, self.update, self.requests, self.query, self.ordering = {}, None, 0, {}, None
        self.aliases_file = os.path.join(directory, "aliases")
        self.aliases = {}
        if os.path.exists(self.aliases_file):
            with open(self.aliases_file) as f:
                self.aliases = json.load(f)
        for file in glob.glob(os.path.join(directory, "*.json")):
            with open(file) as f:
                self.collections[os.path.basename(file)[:-5].rpartition(".")[0]] = Collection(file[:-5], json.load(f))

    def keep_aliases(self, aliases):
        with open(self.aliases_file + ".new", "w") as f:
            json.dump(aliases, f)
        os.rename(self.aliases_file + ".new", self.aliases_file)
        self.aliases = aliases

    def get(self, name):
        name = self.aliases.get(name, name)
        if name not in self.collections:
            raise Problem(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def done(self):
        waited = "completed" if self.query.get("wait") == "true" else "acknowledged"
        self.ordering = models.WriteOrdering(self.query.get("ordering", "weak")).value
        status, self.update = self.update or waited, None
        return {"operation_id": self.requests, "status": status}

    @route("GET", r"/readyz")
    def ready(self, _):
        return "all shards are ready"

    @route("POST", r"/front")
    def front(self, body):
        self.fault, self.update = body, body.get("update")
        return True

    @route("GET", r"/front")
    def last(self, _):
        return {"ordering": self.ordering}

    @route("PUT", r"/collections/([\w-]+)", models.CreateCollection)
    def create(self, body, name):
        if name in self.collections:
            raise Problem(409, f"Wrong input: Collection `{name}` already exists!")
        path = os.path.join(self.directory, f"{name}.{time.time_ns()}")
        self.collections[name] = Collection(path, body)
        with open(path + ".new", "w") as f:
            json.dump(body, f)
        os.rename(path + ".new", path + ".json")
        return True

    @route("DELETE", r"/collections/([\w-]+)")
    def drop(self, _, name):
        c = self.collections.pop(name, None)
        if c:
            self.keep_aliases({a: to for a, to in self.aliases.items() if to != name})
            os.unlink(c.path + ".json")
        return True

    @route("POST", r"/collections/aliases", models.ChangeAliasesOperation)
    def change_aliases(self, body):
        aliases = dict(self.aliases)
        for action in body["actions"]:
            (verb, action), = action.items()
            if verb == "delete_alias":
                aliases.pop(action["alias_name"], None)
            elif action["collection_name"] not in self.collections:
                raise Problem(404, f"Not found: Collection `{action['collection_name']}` doesn't exist!")
            elif action["alias_name"] in self.collections:
                raise Problem(409, f"Wrong input: Collection `{action['alias_name']}` already exists!")
            else:
                aliases[action["alias_name"]] = action["collection_name"]
        self.keep_aliases(aliases)
        return True

    @route("GET", r"/collections/([\w-]+)/aliases")
    def aliases_of(self, _, name):
        return {"aliases": [a for a in self.all_aliases(_)["aliases"] if a["collection_name"] == name]}

    @route("GET", r"/aliases")
    def all_aliases(self, _):
        return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self.aliases.items()]}

    @route("GET", r"/collections")
    def names(self, _):
        return {"collections": [{"name": name} for name in self.collections]}

    @route("GET", r"/collections/([\w-]+)")
    def info(self, _, name):
        c = self.get(name)
        schema = {k: {"data_type": v.data_type.name.lower() if hasattr(v.data_type, "name") else str(v.data_type),
                      "points": v.points} for k, v in c.shard.info().payload_schema.items()}  # fmt: skip
        return {"status": "green", "config": {"params": c.wanted}, "payload_schema": schema}

    @route("PUT", r"/collections/([\w-]+)/index", models.CreateFieldIndex)
    def index(self, body, name):
        schema = dict(body["field_schema"])
        kinds = {"keyword": edge.KeywordIndexParams, "integer": edge.IntegerIndexParams}
        params = kinds[schema.pop("type")](**schema)
        self.get(name).change(edge.UpdateOperation.create_field_index(body["field_name"], params))
        return self.done()

    @route("PUT", r"/collections/([\w-]+)/points", models.PointsList)
    def upsert(self, body, name):
        c = self.get(name)
        size = c.wanted["vectors"][c.name]["size"]
        for p in body["points"]:
            if len(p["vector"][c.name]) != size:
                raise Problem(400, f"Wrong input: Vector dimension error: expected dim: {size}")
        points = [edge.Point(id=p["id"], vector=p["vector"], payload=p["payload"]) for p in body["points"]]
        c.change(edge.UpdateOperation.upsert_points(points))
        return self.done()

    @route("POST", r"/collections/([\w-]+)/points/delete", models.FilterSelector)
    def delete(self, body, name):
        c = self.get(name)
        c.change(edge.UpdateOperation.delete_points_by_filter(filter_of(c.shard, body["filter"])))
        return self.done()

    @route("POST", r"/collections/([\w-]+)/points/payload", models.SetPayload)
    def payload(self, body, name):
        c = self.get(name)
        c.change(edge.UpdateOperation.set_payload_by_filter(filter_of(c.shard, body["filter"]), body["payload"]))
        return self.done()

    @route("POST", r"/collections/([\w-]+)/points/query", models.QueryRequest)
    def query(self, body, name):
        shard = self.get(name).shard
        request = edge.QueryRequest(limit=body["limit"], query=edge.Query.Nearest(body["query"], using=body["using"]),
                                    filter=filter_of(shard, body["filter"]), with_payload=body["with_payload"])  # fmt: skip
        found = shard.query(request)
        return {"points": [{"id": str(p.id), "version": 0, "score": p.score, "payload": p.payload} for p in found]}

    @route("POST", r"/collections/([\w-]+)/points/scroll", models.ScrollRequest)
    def scroll(self, body, name):
        shard = self.get(name).shard
        by = body.get("order_by")
        order = edge.OrderBy(by["key"], direction=edge.Direction.Asc) if by else None
        request = edge.ScrollRequest(limit=body["limit"], filter=filter_of(shard, body["filter"]), order_by=order,
                                     with_payload=body["with_payload"])  # fmt: skip
        found, _ = shard.scroll(request)
        return {"points": [{"id": str(p.id), "payload": p.payload} for p in found], "next_page_offset": None}

    @route("POST", r"/collections/([\w-]+)/points/count", models.CountRequest)
    def count(self, body, name):
        shard = self.get(name).shard
        request = edge.CountRequest(exact=body["exact"], filter=filter_of(shard, body["filter"]))
        return {"count": shard.count(request)}

    def answer(self, method, target, headers, text, key):
        """(status, further headers, body)"""
        self.requests += 1
        if key and headers.get("api-key") != key:
            return 401, {}, "Must provide an API key or an Authorization bearer token"
        if self.fault.get("times", 0) > 0 and target.path != "/front":
            self.fault["times"] -= 1
            more = {"Retry-After": str(self.fault["retry_after"])} if "retry_after" in self.fault else {}
            return self.fault["status"], more, {"status": {"error": "on order"}, "time": 0.0}
        self.query = dict(urllib.parse.parse_qsl(target.query))
        for verb, pattern, model, fn in ROUTES:
            match = pattern.match(target.path)
            if verb != method or not match:
                continue
            try:
                body = json.loads(text) if text else None
                if model:
                    model.model_validate(body)
                return 200, {}, {"result": fn(self, body, *match.groups()), "status": "ok", "time": 0.0}
            except pydantic.ValidationError as e:
                print(f"{method} {target.path}: {e}", file=sys.stderr)
                return 422, {}, {"status": {"error": str(e)}, "time": 0.0}
            except Problem as e:
                return e.status, {}, {"status": {"error": e.text}, "time": 0.0}
        print(f"{method} {target.path}: no such route", file=sys.stderr)
        return 404, {}, {"status": {"error": "no such route"}, "time": 0.0}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front = key = None

    def handle_one(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.front.lock:
            status, headers, body = self.front.answer(
                self.command, urllib.parse.urlsplit(self.path), self.headers, text, self.key)
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = handle_one

    def log_message(self, *_):
        pass


def main():
    Handler.front = Front(sys.argv[1])
    Handler.key = sys.argv[2] if len(sys.argv) > 2 else None
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if len(sys.argv) > 4:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[4])
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
