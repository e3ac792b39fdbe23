"""Webhooks: their settings, what is delivered, how often, and to whom it is not."""

import re
import time

import pytest

from apitest import NO_ID, Api, pages
from ragdtest import ROOT, Ragd, wait_for
from receiver import Receiver

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
HOOKS = "/api/v1/webhooks"


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def hook(api, receiver):
    """Makes webhooks, and removes them at the end: the server is everybody's."""
    made = []

    def make(path="/ok", events=("document.ready",), **members):
        body = {"url": receiver.url + path, "events": list(events), "secret": SECRET, **members}
        response = api.post(HOOKS, json={k: v for k, v in body.items() if v is not None})
        assert response.status_code == 201, response.text
        made.append(response.json())
        return made[-1]

    yield make
    for webhook in made:
        assert api.delete(f"{HOOKS}/{webhook['id']}").status_code in (204, 404)


def now(api, webhook):
    return api.get(f"{HOOKS}/{webhook['id']}").json()


def deliveries(api, webhook):
    return api.get(f"{HOOKS}/{webhook['id']}/deliveries").json()["data"]


def try_it(api, webhook):
    response = api.post(f"{HOOKS}/{webhook['id']}/test")
    assert response.status_code == 201, response.text
    return response.json()


def ended(api, webhook, delivery):
    """The delivery once it is delivered or given up."""

    def look():
        found = [d for d in deliveries(api, webhook) if d["id"] == delivery["id"]]
        return found[0] if found and found[0]["status"] in ("delivered", "failed") else None

    return wait_for(look, lambda: f"an end of {deliveries(api, webhook)}", timeout=60)


# -- settings


def test_a_secret_is_shown_once(api, hook):
    webhook = hook(secret=None)
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", webhook["secret"])
    assert now(api, webhook)["secret"] == "********"
    new = api.patch(f"{HOOKS}/{webhook['id']}", json={"secret": None}).json()["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", new) and new != webhook["secret"]
    given = hook(headers={"Authorization": "Bearer hidden"})
    assert given["secret"] == "********" and given["headers"] == {"Authorization": "********"}
    for answer in (api.get(HOOKS), api.get(f"{HOOKS}/{given['id']}")):
        assert SECRET not in answer.text and "hidden" not in answer.text


def test_settings_change(api, hook):
    webhook = hook(headers={"X-A": "1", "X-B": "2"})
    path = f"{HOOKS}/{webhook['id']}"
    response = api.patch(path, json={"headers": {"X-A": None, "X-C": "3"}, "events": ["job.*"], "enabled": False})
    assert response.status_code == 200 and response.headers["etag"] == '"v2"'
    after = response.json()
    assert set(after["headers"]) == {"X-B", "X-C"} and after["events"] == ["job.*"] and after["enabled"] is False
    assert after["disabled_reason"] is None and after["url"] == webhook["url"]
    api.problem(api.patch(path, json={"enabled": True}, headers={"If-Match": '"v1"'}), 412, "version_mismatch")
    api.problem(api.post(path + "/test"), 409, "conflict", says="enabled")
    assert api.patch(path, json={"headers": None}).json()["headers"] == {}
    api.problem(api.delete(path, headers={"If-Match": '"v1"'}), 412, "version_mismatch")
    assert api.delete(path).status_code == 204
    for method, rest in (("get", ""), ("delete", ""), ("get", "/deliveries"), ("post", "/test")):
        api.problem(getattr(api, method)(path + rest), 404, "not_found")
    api.problem(api.patch(f"{HOOKS}/{NO_ID}", json={"enabled": True}), 404, "not_found")


def test_lists_have_pages(api, hook):
    made = [hook()["id"] for _ in range(3)]
    assert [w["id"] for w in pages(api, HOOKS, limit=2) if w["id"] in made] == made[::-1]
    webhook = hook()
    tests = [try_it(api, webhook)["id"] for _ in range(5)]
    listed = pages(api, f"{HOOKS}/{webhook['id']}/deliveries", limit=2)
    assert [d["id"] for d in listed] == tests[::-1]


@pytest.mark.parametrize(
    "members, pointer",
    [
        ({"url": None}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": "http://127.0.0.1/" + "x" * 2048}, "/url"),
        ({"url": "http://127.0.0.1/\n"}, "/url"),
        ({"events": None}, "/events"),
        ({"events": []}, "/events"),
        ({"events": ["job.*", "document.made"]}, "/events/1"),
        ({"events": [3]}, "/events/0"),
        ({"secret": "secret"}, "/secret"),
        ({"secret": "whsec_c2hvcnQ="}, "/secret"),
        ({"secret": "whsec_%%%%"}, "/secret"),
        ({"headers": {"Host": "other"}}, "/headers/Host"),
        ({"headers": {"content-TYPE": "text/plain"}}, "/headers/content-TYPE"),
        ({"headers": {"Webhook-Id": "1"}}, "/headers/Webhook-Id"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "/headers/Transfer-Encoding"),
        ({"headers": {"X A": "1"}}, "/headers/X A"),
        ({"headers": {"X:A": "1"}}, "/headers/X:A"),
        ({"headers": {"": "1"}}, "/headers/"),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "/headers/X-A"),
        ({"headers": {"X-A": ""}}, "/headers/X-A"),
        ({"headers": {"X-A": "ü"}}, "/headers/X-A"),
        ({"headers": {"X-A": 1}}, "/headers/X-A"),
        ({"headers": {"X-A": "********"}}, "/headers/X-A"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers/X-A"),
        ({"headers": {f"X-{i}": "1" for i in range(17)}}, "/headers"),
        ({"name": "x"}, "/name"),
    ],
)
def test_bad_members(api, hook, members, pointer):
    body = {"url": "http://127.0.0.1:1/", "events": ["job.*"], **members}
    body = {k: v for k, v in body.items() if v is not None}
    api.problem(api.post(HOOKS, json=body), 422, "validation", pointer)
    if all(v is not None for v in members.values()):
        api.problem(api.patch(f"{HOOKS}/{hook()['id']}", json=members), 422, "validation", pointer)


@pytest.mark.parametrize(
    "url",
    ["http://10.255.255.1/", "http://[::1]:1/", "http://169.254.169.254/latest", "http://u:p@127.0.0.1/", "ftp://127.0.0.1/", "nonsense",
     "http://0x0a000001/"],
)  # fmt: skip
def test_other_addresses_are_refused(api, hook, url):
    api.problem(api.post(HOOKS, json={"url": url, "events": ["job.*"]}), 422, "blocked_url", "/url")
    api.problem(api.patch(f"{HOOKS}/{hook()['id']}", json={"url": url}), 422, "blocked_url", "/url")


def test_there_may_be_so_many():
    with Ragd({"webhooks": {"max": 1}, "outgoing": {"allow_networks": ["127.0.0.1"]}}) as ragd:
        api = Api(ragd)
        body = {"url": "http://127.0.0.1:1/", "events": ["job.*"]}
        assert api.post(HOOKS, json=body).status_code == 201
        api.problem(api.post(HOOKS, json=body), 507, "quota_exceeded", says="webhooks.max")


# -- what is delivered


def test_a_document_that_is_ready(api, collection, receiver, hook):
    hook("/ok?documents", ["document.ready", "document.failed"], headers={"X-Tenant": "a b", "Authorization": "Bearer t"})
    hook("/ok?jobs", ["job.*"])
    document = api.ready(collection, "webhooks tell of this", external_id="mine", metadata={"floor": 2}, tags=["x"])
    (told,) = wait_for(lambda: receiver.at("/ok?documents"), "a delivery")
    event = told.event()
    content = api.openapi["webhooks"]["event"]["post"]["requestBody"]["content"]["application/json"]
    api.validate(event, content["schema"]["$ref"].rpartition("/")[2])
    assert event["type"] == "document.ready" and event["id"] == told.id
    for name in ("id", "collection_id", "external_id", "filename", "title", "bytes", "sha256", "chunks", "status", "metadata", "tags"):
        assert event["data"]["document"][name] == document[name], name
    job = api.get(f"/api/v1/jobs/{document['job_id']}").json()
    assert {k: event["data"]["job"][k] for k in ("id", "type", "status")} == {"id": job["id"], "type": "ingest", "status": "succeeded"}
    assert told.headers["content-type"] == "application/json" and told.headers["user-agent"].startswith("ragd/")
    assert told.headers["x-tenant"] == "a b" and told.headers["authorization"] == "Bearer t"
    assert abs(int(told.headers["webhook-timestamp"]) - time.time()) < 300
    assert told.signed_by(SECRET) and not told.signed_by("whsec_" + "A" * 43 + "=")
    (of_job,) = wait_for(lambda: receiver.at("/ok?jobs"), "a delivery of the job")
    assert of_job.event()["type"] == "job.succeeded" and of_job.event()["data"] == event["data"]
    assert of_job.id != told.id


def test_a_document_that_failed(api, collection, receiver, hook):
    hook("/ok", ["document.failed"])
    response = api.upload(collection, "broken.pdf", b"%PDF-1.4 nothing of the kind", "application/pdf")
    document = api.settled(response.json()["document"])
    assert document["status"] == "failed"
    (told,) = wait_for(lambda: receiver.at("/ok"), "a delivery")
    event = told.event()
    api.validate(event, "Event")
    assert event["type"] == "document.failed" and event["data"]["document"]["id"] == document["id"]
    expected = {k: document["last_error"][k] for k in ("code", "stage", "message")}
    assert event["data"]["document"]["last_error"] == expected == event["data"]["job"]["error"]


def test_the_readme_verifies(api, receiver, hook):
    """The example in README.md is what is run here."""
    section = (ROOT / "README.md").read_text().partition("### Webhooks")[2]
    example = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    webhook = hook()
    try_it(api, webhook)
    (told,) = wait_for(lambda: receiver.at("/ok"), "a delivery")
    assert told.event()["type"] == "webhook.test"
    assert names["verify"](SECRET, told.headers, told.body) == told.event()
    for headers, body in (
        ({**told.headers, "webhook-id": NO_ID}, told.body),
        ({**told.headers, "webhook-timestamp": str(int(time.time()) - 3600)}, told.body),
        (told.headers, told.body + b" "),
    ):
        with pytest.raises(ValueError):
            names["verify"](SECRET, headers, body)


# -- tries


def test_it_is_tried_again(api, receiver, hook):
    webhook = hook("/then?500,302,204")
    done = ended(api, webhook, try_it(api, webhook))
    assert (done["status"], done["tries"], done["last_status"], done["last_error"]) == ("delivered", 3, 204, None)
    told = receiver.at("/then?500,302,204")
    assert len({(r.id, r.body) for r in told}) == 1 and len(told) == 3
    assert all(r.signed_by(SECRET) for r in told)
    after = now(api, webhook)
    assert (after["failures"], after["failing_since"], after["last_status"], after["last_error"]) == (0, None, 204, None)
    assert after["last_try_at"] and after["version"] == webhook["version"]


@pytest.mark.parametrize(
    "path, status, says",
    [("/500", 500, "status 500"), ("/404", 404, "status 404"), ("/moved", 307, "not followed"), ("/closed", None, "no whole answer")],
)
def test_it_is_given_up(api, receiver, hook, path, status, says):
    webhook = hook(path)
    done = ended(api, webhook, try_it(api, webhook))
    assert (done["status"], done["tries"], done["last_status"]) == ("failed", 3, status) and says in done["last_error"]
    assert len(receiver.at(path)) == 3 and not receiver.at("/ok")
    after = now(api, webhook)
    assert after["enabled"] and after["failures"] == 3 and after["failing_since"] and says in after["last_error"]


def test_who_is_gone_is_left_alone(api, receiver, hook):
    webhook = hook("/410")
    done = ended(api, webhook, try_it(api, webhook))
    assert (done["status"], done["tries"], done["last_status"]) == ("failed", 1, 410)
    after = now(api, webhook)
    assert after["enabled"] is False and after["disabled_reason"] == "gone"
    api.problem(api.post(f"{HOOKS}/{webhook['id']}/test"), 409, "conflict")
    again = api.patch(f"{HOOKS}/{webhook['id']}", json={"enabled": True, "url": receiver.url + "/ok"}).json()
    assert again["enabled"] and again["disabled_reason"] is None and again["failures"] == 0
    assert ended(api, webhook, try_it(api, webhook))["status"] == "delivered"


def test_retry_after_is_honoured(api, receiver, hook):
    webhook = hook("/later")
    assert ended(api, webhook, try_it(api, webhook))["tries"] == 2
    first, second = receiver.at("/later")
    assert second.at - first.at >= 2


def test_a_slow_receiver_keeps_nobody_waiting(api, receiver, hook):
    slow, fast = hook("/held"), hook("/ok")
    queued = [try_it(api, slow) for _ in range(6)]
    wait_for(lambda: receiver.holding == 2, "both places of the slow one to be taken")
    assert ended(api, fast, try_it(api, fast))["status"] == "delivered"
    assert receiver.holding == 2  # as many as a quarter of webhooks.concurrency
    receiver.release()
    assert all(ended(api, slow, d)["tries"] == 1 for d in queued)
    assert receiver.most == 2


def test_an_answer_may_be_long(api, hook, receiver):
    webhook = hook("/long")
    end = ended(api, webhook, try_it(api, webhook))
    assert (end["status"], end["tries"], end["last_status"]) == ("delivered", 1, 200)
    assert len(receiver.requests) == 1


def test_who_does_not_answer_in_time(receiver):
    config = {"webhooks": {"timeout": "1s", "max_tries": 1}, "outgoing": {"allow_networks": ["127.0.0.1"]}}
    with Ragd(config) as ragd:
        api = Api(ragd)
        webhook = api.post(HOOKS, json={"url": receiver.url + "/held", "events": ["job.*"]}).json()
        done = ended(api, webhook, try_it(api, webhook))
        assert (done["status"], done["tries"], done["last_status"]) == ("failed", 1, None)
        assert "did not answer in time" in done["last_error"]
        metrics = ragd.get("/metrics").text
        assert "ragd_webhooks_failed_total 1\n" in metrics and "ragd_webhooks_delivered_total 0\n" in metrics
        wait_for(lambda: 'ragd_webhook_deliveries{state="failed"} 1\n' in ragd.get("/metrics").text, "the count")


def test_addresses_are_checked_at_each_try(receiver):
    """What was permitted when the webhook was made is not asked when it is not any more."""
    with Ragd({"webhooks": {"max_tries": 1}, "outgoing": {"allow_networks": ["127.0.0.1"]}}) as ragd:
        api = Api(ragd)
        webhook = api.post(HOOKS, json={"url": receiver.url + "/ok", "events": ["job.*"]}).json()
        assert ended(api, webhook, try_it(api, webhook))["status"] == "delivered"
        ragd.stop()
        ragd.write_config({"outgoing": {"allow_networks": None}})
        ragd.start()
        done = ended(api, webhook, try_it(api, webhook))
        assert done["status"] == "failed" and "not public" in done["last_error"]
        assert len(receiver.requests) == 1
