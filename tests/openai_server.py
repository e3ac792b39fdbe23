#!/usr/bin/python3
"""A small server that speaks OpenAI's wire format, for tests: POST /v1/embeddings, POST /v1/chat/completions (whole or as
server-sent events), GET /v1/models. The same text always gives the same vector, and texts that share words are near each
other. Every fault that a provider may show can be ordered.

As a program it prints `port N` and ends when its standard input does:
    openai_server.py [--dimension 64] [--max-tokens 8192] [--key KEY] [--port N]
In Python: `with openai_server.running(dimension=32) as server:` gives an object with .url, .fault(), .state(), .set().

Control, also over HTTP (POST /control with an object, GET /control for what was seen):
    {"faults": [{"kind": K, "path": "embeddings" | "chat" | "", "times": N (1), "status": N, "retry_after": S, "seconds": S}]}
        K  status     answers `status`, with Retry-After if `retry_after` is given
           slow       answers after `seconds`
           hang       never answers, until the client goes or the server ends
           cut        closes the connection without an answer
           cut_body   closes it in the middle of the answer, or of the stream
           json       answers 200 with something that is no JSON
           dimension  embeddings of one dimension more
           missing    one embedding less than inputs
           nan        embeddings that contain null
    {"answer": TEXT, "dimension": N, "max_tokens": N, "key": KEY, "delay": SECONDS of every answer}
"""
import argparse
import base64
import contextlib
import hashlib
import http.server
import json
import re
import struct
import sys
import threading
import time

WORD = re.compile(r"\w+")
BUCKETS = 4  # that each word falls into


def words(text):
    return WORD.findall(text.lower())


def buckets(word, dimension):
    digest = hashlib.sha256(word.encode()).digest()
    for i in range(BUCKETS):
        at, sign = struct.unpack_from("<Ib", digest, 5 * i)
        yield at % dimension, 1.0 if sign >= 0 else -1.0


def embed(text, dimension):
    """Not of length 1, so that whoever needs that must see to it himself."""
    vector = [0.0] * dimension
    for word in words(text):
        for at, sign in buckets(word, dimension):
            vector[at] += sign
    vector[0] += 0.01
    return vector


class Model:
    """What the server knows; guarded by one lock."""

    def __init__(self, dimension=64, max_tokens=8192, key="", answer="", embed=embed):
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.dimension, self.max_tokens, self.key, self.answer, self.delay = dimension, max_tokens, key, answer, 0
        self.embed = embed  # (text, dimension) to a list of that length: another model than the toy above
        self.faults = []
        self.seen = {"requests": 0, "embeddings": 0, "chat": 0, "inputs": 0, "at_once": 0, "most_at_once": 0,
                     "largest_batch": 0, "last": None}

    def take_fault(self, path):
        with self.lock:
            for fault in self.faults:
                if fault.get("path", "") in ("", path):
                    fault["times"] = fault.get("times", 1) - 1
                    if fault["times"] <= 0:
                        self.faults.remove(fault)
                    return fault
        return {}

    def order(self, what):
        with self.lock:
            for name, value in what.items():
                if name == "faults":
                    self.faults.extend(value)
                elif name in ("answer", "dimension", "max_tokens", "key", "delay"):
                    setattr(self, name, value)


class Refused(Exception):
    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status, self.code = status, code


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    @property
    def model(self):
        return self.server.model

    def reply(self, status, body, headers=(), cut=False, kind="application/json"):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        if cut:
            body, self.close_connection = body[:len(body) // 2], True
        self.wfile.write(head.encode() + body)

    def error(self, status, message, code=None, headers=()):
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}},
                   headers)

    def do_GET(self):
        if self.path == "/control":
            with self.model.lock:
                self.reply(200, dict(self.model.seen, faults=len(self.model.faults)))
        elif self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": "test", "object": "model", "owned_by": "tests"}]})
        else:
            self.error(404, "no such path")

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        paths = {"/v1/embeddings": ("embeddings", self.embeddings), "/v1/chat/completions": ("chat", self.chat)}
        if self.path == "/control":
            self.model.order(json.loads(text))
            return self.reply(200, {})
        if self.path not in paths:
            return self.error(404, "no such path")
        name, handle = paths[self.path]
        seen = self.model.seen
        with self.model.lock:
            seen["requests"] += 1
            seen[name] += 1
            seen["at_once"] += 1
            seen["most_at_once"] = max(seen["most_at_once"], seen["at_once"])
        try:
            self.work(name, handle, text)
        except Refused as refused:
            self.error(refused.status, str(refused), refused.code)
        finally:
            with self.model.lock:
                seen["at_once"] -= 1

    def work(self, name, handle, text):
        fault = self.model.take_fault(name)
        kind = fault.get("kind")
        if kind == "hang":
            while not self.model.stop.wait(0.05):
                self.connection.setblocking(False)
                try:
                    if self.connection.recv(1) == b"":
                        break
                except BlockingIOError:
                    pass
                finally:
                    self.connection.setblocking(True)
        if kind in ("hang", "cut"):
            self.close_connection = True
            return
        self.model.stop.wait(fault.get("seconds", 0) + self.model.delay)
        if kind == "status":
            after = [("Retry-After", fault["retry_after"])] if "retry_after" in fault else []
            return self.error(fault["status"], "ordered by the test", headers=after)
        if kind == "json":
            return self.reply(200, b'{"object": "list", "data": [{"embedding": [0.1, ')
        if self.model.key and self.headers.get("Authorization") != f"Bearer {self.model.key}":
            raise Refused(401, "Incorrect API key provided", "invalid_api_key")
        try:
            request = json.loads(text)
        except ValueError:
            raise Refused(400, "We could not parse the JSON body of your request") from None
        with self.model.lock:
            self.model.seen["last"] = request
        handle(request, kind)

    def embeddings(self, request, fault):
        texts = request.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(request.get("model"), str) or not isinstance(texts, list) or not texts:
            raise Refused(400, "you must provide a model and an input")
        for text in texts:
            if not isinstance(text, str) or not text:
                raise Refused(400, "'$.input' is invalid: it cannot be empty")
            if len(words(text)) > self.model.max_tokens:
                raise Refused(400, f"This model's maximum context length is {self.model.max_tokens} tokens, however you "
                              f"requested {len(words(text))} tokens. Please reduce your prompt.",
                              "context_length_exceeded")
        with self.model.lock:
            self.model.seen["inputs"] += len(texts)
            self.model.seen["largest_batch"] = max(self.model.seen["largest_batch"], len(texts))
        dimension = request.get("dimensions") or self.model.dimension
        data = []
        for i, text in enumerate(texts):
            vector = self.model.embed(text, dimension + (fault == "dimension"))
            if fault == "nan":
                vector[1] = None
            elif request.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            data.append({"object": "embedding", "index": i, "embedding": vector})
        if fault == "missing":
            data.pop()
        tokens = sum(len(words(text)) for text in texts)
        data.reverse()  # `index` says which is which, the order does not
        self.reply(200, {"object": "list", "data": data, "model": request["model"],
                         "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}, cut=fault == "cut_body")

    def chat(self, request, fault):
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "messages are missing")
        prompt = "\n".join(str(m.get("content")) for m in messages)
        answer = self.model.answer or "You asked: " + " ".join(str(messages[-1].get("content")).split()[-12:])
        usage = {"prompt_tokens": len(words(prompt)), "completion_tokens": len(words(answer)),
                 "total_tokens": len(words(prompt)) + len(words(answer))}
        whole = {"id": "chatcmpl-1", "created": int(time.time()), "model": request.get("model")}
        if not request.get("stream"):
            message = {"role": "assistant", "content": answer}
            return self.reply(200, {**whole, "object": "chat.completion", "usage": usage, "choices": [
                {"index": 0, "message": message, "finish_reason": "stop"}]}, cut=fault == "cut_body")
        pieces = re.findall(r"\s*\S+", answer)
        events = [{"role": "assistant", "content": ""}] + [{"content": piece} for piece in pieces]
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n, delta in enumerate(events):
            if fault == "cut_body" and n > len(events) // 2:
                self.close_connection = True
                return
            self.event({**whole, "object": "chat.completion.chunk",
                        "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.event({**whole, "object": "chat.completion.chunk",
                    "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (request.get("stream_options") or {}).get("include_usage"):
            self.event({**whole, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, value):
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port=0, **settings):
        super().__init__(("127.0.0.1", port), Handler)
        self.model = Model(**settings)
        self.port = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that has gone

    def fault(self, kind, **more):
        self.model.order({"faults": [{"kind": kind, **more}]})

    def set(self, **what):
        self.model.order(what)

    def state(self):
        with self.model.lock:
            return dict(self.model.seen, faults=len(self.model.faults))


@contextlib.contextmanager
def running(**settings):
    server = Server(**settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.model.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--key", default="")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    with running(dimension=args.dimension, max_tokens=args.max_tokens, key=args.key, port=args.port) as server:
        print(f"port {server.port}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
