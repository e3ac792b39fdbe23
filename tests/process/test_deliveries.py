"""Deliveries of webhooks are made at least once: kill -9 between a try and its end. They keep no document waiting."""

import os
import signal

import psycopg
import pytest

from kills import kill_master, kill_worker
from ragdtest import Ragd, wait_for
from receiver import Receiver

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def kill_all(ragd):
    for worker in ragd.workers():
        os.kill(worker, signal.SIGKILL)
    kill_master(ragd)


@pytest.mark.parametrize("product, victim", [("sqlite", "ingest"), ("sqlite", "all"), ("postgresql", "ingest")])
def test_a_try_that_was_cut_off_is_made_again(request, product, victim):
    config = {
        "outgoing": {"allow_networks": ["127.0.0.1"]},
        "webhooks": {"timeout": "10s", "max_tries": 1},  # the last one is not lost either
        "server": {"min_uptime": "0s"},
    }
    if product == "postgresql":
        cluster = request.getfixturevalue("postgres")
        config["database"] = {"url": cluster.new_database(), "auto_migrate": True}
    with Receiver() as receiver, Ragd(config) as ragd:
        hook = {"url": receiver.url + "/held", "events": ["document.ready"], "secret": SECRET}
        webhook = ragd.post("/api/v1/webhooks", json=hook).json()
        collection = ragd.post("/api/v1/collections", json={"name": "c"}).json()
        added = ragd.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": "told twice"}).json()
        wait_for(lambda: receiver.holding == 1, "the first try")
        kill_all(ragd) if victim == "all" else kill_worker(ragd, "ingest")
        receiver.release()
        first, second = wait_for(lambda: len(receiver.requests) > 1 and receiver.requests[:2], "the second try", 120)
        assert first.id == second.id and first.body == second.body and second.signed_by(SECRET)
        assert second.event()["data"]["document"]["id"] == added["document"]["id"]

        def delivered():
            (delivery,) = ragd.get(f"/api/v1/webhooks/{webhook['id']}/deliveries").json()["data"]
            return delivery if delivery["status"] == "delivered" else None

        assert wait_for(delivered, "the delivery to end")["tries"] == 2
        assert len(receiver.requests) == 2


def test_documents_do_not_wait_for_the_end_of_a_delivery(postgres):
    """The row of a webhook is everybody's. Who waits for it, maybe for a worker that waits for another row, waits alone."""
    database = postgres.new_database()
    config = {"outgoing": {"allow_networks": ["127.0.0.1"]}, "database": {"url": database, "auto_migrate": True}}
    with Receiver() as receiver, Ragd(config) as ragd, psycopg.connect(database) as other, psycopg.connect(database) as look:
        look.autocommit = True
        hook = {"url": receiver.url + "/ok", "events": ["job.cancelled"], "secret": SECRET}
        webhook = ragd.post("/api/v1/webhooks", json=hook).json()
        collection = ragd.post("/api/v1/collections", json={"name": "c"}).json()
        other.execute("SELECT 1 FROM webhooks FOR NO KEY UPDATE")
        assert ragd.post(f"/api/v1/webhooks/{webhook['id']}/test").status_code == 201
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_for(lambda: look.execute(waiting).fetchone()[0], "the end of the delivery to wait", 60)
        added = ragd.post(f"/api/v1/collections/{collection['id']}/documents", json={"text": "not kept"}).json()
        path = f"/api/v1/documents/{added['document']['id']}"
        wait_for(lambda: ragd.get(path).json()["status"] == "ready", "the document", 60)
        assert look.execute(waiting).fetchone()[0] == 1
        other.commit()
        state = "SELECT state FROM webhook_deliveries"
        wait_for(lambda: look.execute(state).fetchall() == [(2,)], "the end of the delivery", 60)
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("product", ["sqlite", "postgresql"])
def test_what_waits_is_bounded_and_what_is_deleted_goes(request, product):
    """The sweep looks some seconds after the start, and at once for all that there is to do."""
    config = {
        "outgoing": {"allow_networks": ["127.0.0.1"]},
        "webhooks": {"max_waiting": 100, "concurrency": 4, "timeout": "120s"},
        "ingest": {"workers": 1},
    }
    if product == "postgresql":
        config["database"] = {"url": request.getfixturevalue("postgres").new_database(), "auto_migrate": True}
    with Receiver() as receiver, Ragd(config) as ragd:

        def a_webhook(path):
            hook = {"url": receiver.url + path, "events": ["job.*"], "secret": SECRET}
            webhook = ragd.post("/api/v1/webhooks", json=hook).json()
            return f"/api/v1/webhooks/{webhook['id']}"

        away, deleted = a_webhook("/held"), a_webhook("/held?deleted")
        made = [ragd.post(f"{away}/test").json()["id"] for _ in range(104)]
        assert ragd.post(f"{deleted}/test").status_code == 201
        wait_for(lambda: receiver.holding == 2, "the first delivery of both")
        assert ragd.request("DELETE", deleted).status_code == 204
        wait_for(lambda: ragd.get(away).json()["dropped"], "what is too much to be dropped", 60)
        now = ragd.get(away).json()
        assert now["dropped"] == 3 and now["last_dropped_at"] and now["last_error"] is None and now["enabled"]
        kept = ragd.get(f"{away}/deliveries?limit=100&after={made[103]}").json()["data"]
        assert [d["id"] for d in kept] == made[102:3:-1] + made[:1]  # the first was under way, the next were the oldest
        wait_for(lambda: "ragd_webhooks_dropped_total 3\n" in ragd.get("/metrics").text, lambda: ragd.get("/metrics").text)
        assert "3 deliveries are dropped" in ragd.log()
        receiver.release()
        all_ended = 'ragd_webhook_deliveries{state="delivered"} 101\n'
        wait_for(lambda: all_ended in ragd.get("/metrics").text, lambda: ragd.get("/metrics").text, 60)
