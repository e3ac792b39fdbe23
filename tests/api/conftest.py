"""Every test of this folder runs against two servers, one on SQLite and one on PostgreSQL, with small limits."""

import pytest

from apitest import Api
from ragdtest import Ragd

LIMITS = {
    "limits": {
        "upload": "3M", "json_body": "64K", "json_depth": 16, "metadata": "1K", "import_line": "32K", "page": 50, "top_k": 20,
        "eval_sets": 5, "eval_questions": 50, "eval_results": 2,
    },
    "http": {"max_request_line": "2K", "max_headers_size": "8K"},
    "server": {"workers": 2},
    "ingest": {"workers": 1, "max_attempts": 2, "retry_delay": "50ms", "poll": "200ms"},
    "webhooks": {"retry_delay": "50ms", "max_tries": 3, "concurrency": 8},
    "outgoing": {"allow_networks": ["127.0.0.1"]},
}  # fmt: skip


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request):
    config = {section: dict(keys) for section, keys in LIMITS.items()}
    if request.param == "postgresql":
        cluster = request.getfixturevalue("postgres")
        config["database"] = {"url": cluster.new_database(), "auto_migrate": True}
    with Ragd(config) as ragd:
        yield ragd


@pytest.fixture(scope="session")
def api(server):
    return Api(server)


@pytest.fixture
def collection(api):
    """A fresh collection, of one test."""
    return api.collection()


@pytest.fixture(scope="module")
def shared(api):
    """A collection for all tests of a file that do not mind each other."""
    return api.collection()


@pytest.fixture(scope="module")
def patched(api, shared):
    return api.ready(shared, "a document that is patched again and again")
