"""Servers with certificates of a private authority: ragd trusts those of outgoing.ca_file, and names it in the log when it
trusts one not. Keys are never in the log."""

import os
import ssl
import subprocess

import pytest

import openai_server
from ragdtest import Ragd, wait_for
from services import Qdrant

KEYS = {"embedding": "hunter2-of-the-model", "vectors": "hunter2-of-qdrant"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A directory with ca.pem, and server.pem for localhost."""
    where = tmp_path_factory.mktemp("ca")
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    subprocess.run(["sh", "-ec", f"""
        {new} -x509 -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
        {new} -keyout key.pem -out req.pem -subj /CN=server
        echo subjectAltName=DNS:localhost >ext
        openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem
        cat cert.pem key.pem >server.pem"""], cwd=where, check=True, capture_output=True)  # fmt: skip
    return where


class SecureQdrant(Qdrant):
    def __init__(self, pem):
        super().__init__()
        self.pem = pem

    def command(self):
        return [*super().command()[:3], KEYS["vectors"], str(self.port), str(self.pem)]


@pytest.fixture(scope="module")
def servers(authority):
    missing = Qdrant.missing()
    assert not (missing and os.environ.get("CI")), missing
    if missing:
        pytest.skip(missing)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "server.pem")
    key = KEYS["embedding"]
    with openai_server.running(key=key) as plain, openai_server.running(key=key) as model:
        model.socket = tls.wrap_socket(model.socket, server_side=True)
        with SecureQdrant(authority / "server.pem") as qdrant:
            yield {"embedding": f"https://localhost:{model.port}/v1", "vectors": f"https://localhost:{qdrant.port}"}, plain


def settings(urls, **outgoing):
    return {
        "log": {"level": "debug"},
        "outgoing": {"connect_timeout": "60s", **outgoing},
        "embedding": {"url": urls["embedding"], "api_key": KEYS["embedding"], "model": "test"},
        "vectors": {"url": urls["vectors"], "api_key": KEYS["vectors"]},
        "search": {"vector_timeout": "60s"},
    }


def a_document(ragd):
    collection = ragd.post("/api/v1/collections", json={"name": "kettles"}).json()["id"]
    added = ragd.post(f"/api/v1/collections/{collection}/documents", json={"text": "Descale the kettle."})
    assert added.status_code == 202, added.text
    return f"/api/v1/documents/{added.json()['document']['id']}"


def keys_in(text):
    return [key for key in KEYS.values() if key in text]


def test_a_private_authority_is_trusted_when_it_is_named(servers, authority):
    urls, _ = servers
    with Ragd(settings(urls, ca_file=str(authority / "ca.pem"))) as ragd:
        document = a_document(ragd)
        wait_for(lambda: ragd.get(document).json()["status"] == "ready", lambda: ragd.log())
        found = ragd.post("/api/v1/search", json={"query": "kettle", "mode": "vector"}).json()
        assert len(found["hits"]) == 1 and found["degraded"] == [], found
        assert not keys_in(ragd.log() + ragd.access_log())


@pytest.mark.parametrize("stranger", ["embedding", "vectors"])
def test_the_log_names_the_setting_for_a_stranger(servers, stranger):
    urls, plain = servers
    urls = {**urls, "embedding": urls["embedding"] if stranger == "embedding" else plain.url}
    with Ragd(settings(urls)) as ragd:
        document = a_document(ragd)
        line = ragd.wait_log("outgoing.ca_file names the authorities to trust")
        assert urls[stranger].removesuffix("/v1") in line and "certificate" in line
        assert ragd.get(document).json()["status"] != "ready"
        assert not keys_in(ragd.log() + ragd.access_log())
