"""Servers that ragd asks: what they have in common, and one that webhooks deliver to. What it answers is told by the path:

    /ok /500 /410 …    that status, always        /then?500,500,200   those, one after the other, for each webhook-id
    /closed            no answer                  /later              503 with Retry-After: 2, then 204
    /moved             307 to /ok                 /held               204, once release() was called
    /long              200 and 4 MB"""

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time


class Request:
    def __init__(self, path, headers, body):
        self.path, self.headers, self.body, self.at = path, headers, body, time.monotonic()
        self.id = headers.get("webhook-id")

    def event(self):
        return json.loads(self.body)

    def signed_by(self, secret):
        """As the standard says it; nothing of ragd's is used."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        text = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        mine = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        return f"v1,{mine}" in self.headers["webhook-signature"].split(" ")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"ok", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Deliveries(Handler):
    def do_POST(self):
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.path, self.headers, body)
        earlier = receiver.take(request)
        what, _, more = self.path.lstrip("/").partition("?")
        try:
            if what.isdigit():
                self.answer(int(what))
            elif what == "then":
                statuses = more.split(",")
                self.answer(int(statuses[min(earlier, len(statuses) - 1)]))
            elif what == "long":
                self.answer(200, bytes(4 << 20))
            elif what == "closed":
                self.close_connection = True
            elif what == "moved":
                self.answer(307, Location="/ok")
            elif what == "later":
                self.answer(204 if earlier else 503, **({} if earlier else {"Retry_After": "2"}))
            elif what == "held":
                with receiver.changed:
                    receiver.holding += 1
                    receiver.most = max(receiver.most, receiver.holding)
                    receiver.changed.wait_for(lambda: receiver.released)
                    receiver.holding -= 1
                self.answer(204)
            else:
                self.answer(200)
        except OSError:
            pass  # whoever asked is gone


class Server:
    """`self.server` answers by `handler` until the end of the with statement."""

    def __init__(self, handler):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Receiver(Server):
    def __init__(self):
        self.requests = []
        self.holding = self.most = 0
        self.released = False
        self.changed = threading.Condition()
        super().__init__(Deliveries)
        self.server.receiver = self

    def take(self, request):
        """Notes the request; how many of its webhook-id came before."""
        with self.changed:
            earlier = sum(r.id == request.id for r in self.requests)
            self.requests.append(request)
            return earlier

    def at(self, path):
        with self.changed:
            return [r for r in self.requests if r.path == path]

    def release(self):
        with self.changed:
            self.released = True
            self.changed.notify_all()

    def __exit__(self, *_):
        self.release()
        super().__exit__()
