"""The image and the compose file, as a user builds and runs them. The base image is a Debian made here by debootstrap
from the mirror that this machine's apt uses, so that no registry is needed; it and the stage with the compilers are
kept, as a cache. Everything else that a test makes, it removes."""

import json
import os
import pathlib
import shutil
import subprocess
import urllib.parse
import uuid

import httpx
import pytest
import yaml

from ragdtest import BIN, ROOT, free_port, wait_for

BASE = "ragd-test-base:bookworm"
TOOLS = "ragd-test-tools:bookworm"
STRAY_TOOLS = ["gcc", "cc", "make", "pkg-config", "python3", "curl"]


def sh(*argv, check=True, timeout=900, **kw):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, **kw)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def docker(*argv, **kw):
    return sh("docker", *argv, **kw)


def docker_answers():
    return docker("info", check=False).returncode == 0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A docker that answers: this machine's, or, where none runs, a private one without a bridge."""
    if not shutil.which("docker"):
        pytest.skip("needs docker")
    if docker_answers():
        yield
        return
    if not shutil.which("dockerd") or os.getuid() != 0:
        pytest.skip("docker does not answer, and starting one needs dockerd and root")
    dir = tmp_path_factory.mktemp("docker")
    theirs = pathlib.Path("/etc/docker/daemon.json")
    config = json.loads(theirs.read_text()) if theirs.exists() else {}
    config.update({"data-root": f"{dir}/data", "exec-root": f"{dir}/exec", "pidfile": f"{dir}/pid", "bridge": "none",
                   "hosts": [f"unix://{dir}/sock"], "iptables": False, "ip6tables": False, "ip-forward": False})
    (dir / "daemon.json").write_text(json.dumps(config))
    os.environ["DOCKER_HOST"] = f"unix://{dir}/sock"
    with open(dir / "log", "wb") as log:
        proc = subprocess.Popen(["dockerd", "--config-file", str(dir / "daemon.json")], stdout=log, stderr=log)
    try:
        def up():
            assert proc.poll() is None, (dir / "log").read_text()
            return docker_answers()

        wait_for(up, lambda: (dir / "log").read_text(), every=0.2)
        yield
    finally:
        proc.terminate()
        proc.wait(60)
        del os.environ["DOCKER_HOST"]
        sh("rm", "-rf", str(dir), check=False)


def mirror():
    """Where this machine gets Debian from."""
    targets = sh("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    found = {line.split()[0] for line in targets.stdout.splitlines() if line.split()[1:] == ["bookworm", "main"]}
    if not found:
        pytest.skip("apt knows no mirror of Debian 12")
    return sorted(found)[0]


@pytest.fixture(scope="module")
def base(daemon, tmp_path_factory):
    if docker("image", "inspect", BASE, check=False).returncode:
        if not shutil.which("debootstrap") or os.getuid() != 0:
            pytest.skip("making a base image needs debootstrap and root")
        root = tmp_path_factory.mktemp("base") / "root"
        sh("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root), mirror())
        proxy = sh("apt-config", "dump", "--format", '%f "%v";%n', "Acquire::http::Proxy", "Acquire::https::Proxy")
        (root / "etc/apt/apt.conf.d/90proxy").write_text(proxy.stdout)
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            docker("import", "-", BASE, stdin=tar.stdout)
        assert tar.returncode == 0
        shutil.rmtree(root)
    return BASE


@pytest.fixture(scope="module")
def image(base):
    """The image, built from what git knows of the tree."""
    name = f"ragd-test-{uuid.uuid4().hex[:12]}"
    # The builder uses the host's network, whatever that is; apt needs nothing else. Stages get names, too, so that they
    # can be removed.
    build = ["build", "--network=host", "--force-rm", "--build-arg", f"BASE={base}"]
    try:
        docker(*build, "--target", "tools", "-t", TOOLS, str(ROOT))
        docker(*build, "--target", "build", "-t", f"{name}-build", str(ROOT))
        docker(*build, "-t", name, str(ROOT))
        yield name
    finally:
        docker("rmi", "--force", name, f"{name}-build", check=False)


@pytest.fixture
def volume():
    name = f"ragd-test-{uuid.uuid4().hex[:12]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name)


class Container:
    """One running container of the image."""

    def __init__(self, image, *args):
        self.port = free_port()
        network = ["--publish", f"127.0.0.1:{self.port}:8000"]
        if docker("network", "inspect", "bridge", check=False).returncode:
            network = ["--network", "host", "--env", f"PORT={self.port}"]
        self.id = docker("run", "--detach", *network, "--health-interval", "1s", *args, image).stdout.strip()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        docker("rm", "--force", "--volumes", self.id)

    def state(self):
        return json.loads(docker("inspect", self.id).stdout)[0]["State"]

    def logs(self):
        done = docker("logs", self.id)
        return done.stdout + done.stderr

    def wait_healthy(self):
        def healthy():
            state = self.state()
            assert state["Running"], self.logs()
            return state["Health"]["Status"] == "healthy"

        wait_for(healthy, lambda: f"a healthy container: {self.state()['Health']}\n{self.logs()}", every=0.2)
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)


def test_image_is_small_and_unprivileged(image):
    info = json.loads(docker("image", "inspect", image).stdout)[0]
    base_size = json.loads(docker("image", "inspect", BASE).stdout)[0]["Size"]
    config = info["Config"]
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["/usr/bin/ragd"] and config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/ragd", "health"]
    # Half of it is pdftotext, with the libraries for images and fonts that it brings along.
    assert info["Size"] - base_size < 75e6, f"ragd adds {(info['Size'] - base_size) / 1e6:.0f} MB to its base"
    look = "id -u; pwd; for t in %s; do command -v $t; done; ls /var/lib/apt/lists; test -w /usr && echo writable /usr"
    seen = docker("run", "--rm", "--entrypoint", "/bin/sh", image, "-c", look % " ".join(STRAY_TOOLS), check=False)
    assert seen.stdout.split() == ["1000", "/app"]
    assert docker("run", "--rm", image, "version").stdout.startswith("ragd ")


def test_serves_searches_stops_and_keeps_its_data(image, volume):
    keep = ("--volume", f"{volume}:/app/data")
    with Container(image, *keep) as c, c.wait_healthy() as http:
        assert http.get("/readyz").json()["status"] == "ready"
        made = http.post("/api/v1/collections", json={"name": "handbook"})
        assert made.status_code == 201, made.text + c.logs()
        collection = made.json()["id"]
        text = "# Kettles\n\nDescale the kettle with citric acid every month.\n"
        made = http.post(f"/api/v1/collections/{collection}/documents",
                         files={"file": ("kettle.md", text.encode(), "text/markdown")})
        assert made.status_code == 202, made.text
        document = made.json()["document"]["id"]
        wait_for(lambda: http.get(f"/api/v1/documents/{document}").json()["status"] == "ready", "the document")
        query = {"query": "citric acid", "mode": "lexical", "collections": [collection]}
        assert http.post("/api/v1/search", json=query).json()["hits"][0]["document_id"] == document
        assert docker("exec", c.id, "ragd", "health").returncode == 0
        docker("stop", "--time", "25", c.id)
        assert c.state()["ExitCode"] == 0, c.logs()
    with Container(image, *keep) as c, c.wait_healthy() as http:
        assert http.get(f"/api/v1/documents/{document}/content").content == text.encode()


def test_stop_lets_a_request_finish(image):
    with Container(image, "--env", "RAGD_DEBUG_FAULTS=true") as c, c.wait_healthy() as http:
        client = subprocess.Popen(["/usr/bin/python3", "-c", f"""
import httpx
r = httpx.get("http://127.0.0.1:{c.port}/debug/sleep?ms=3000", timeout=20)
print(r.status_code)
"""], stdout=subprocess.PIPE, text=True)
        wait_for(lambda: "ragd_in_flight 2" in "\n".join(in_flight(http)), "the slow request", every=0.05)
        docker("stop", "--time", "25", c.id)
        assert client.communicate(timeout=30)[0].strip() == "200"
        assert c.state()["ExitCode"] == 0, c.logs()


def in_flight(http):
    """The gauge of requests in flight: the slow one and the one that asks."""
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("ragd_") and "in_flight" in line]
    total = sum(float(line.split()[-1]) for line in lines)
    return [f"ragd_in_flight {total:.0f}"]


def compose_config(tmp_path, settings=ROOT / ".env.example"):
    if not shutil.which("docker-compose"):
        pytest.skip("needs docker-compose")
    out = sh("docker-compose", "-f", str(ROOT / "docker-compose.yml"), "--env-file", str(settings), "config")
    return yaml.safe_load(out.stdout)


def test_compose_file_is_accepted_and_safe(tmp_path):
    config = compose_config(tmp_path)
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert not {"version", "name"} & set(raw) and not any("develop" in s for s in raw["services"].values())
    services = config["services"]
    assert set(services) == {"ragd", "postgres", "redis", "qdrant"}
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert tag[0].isdigit() or tag[0] == "v", f"{name} is not pinned: {service['image']}"
        assert service["stop_grace_period"] and service["volumes"], name
        assert name == "ragd" or "healthcheck" in service, name
        assert all("127.0.0.1" in str(port) for port in service.get("ports", [])), name
    assert {d["condition"] for d in services["ragd"]["depends_on"].values()} == {"service_healthy"}
    assert set(services["ragd"]["depends_on"]) == {"postgres", "redis", "qdrant"}


def test_ragd_of_the_compose_file_uses_what_it_starts(tmp_path):
    env = {"PATH": os.environ["PATH"], **compose_config(tmp_path)["services"]["ragd"]["environment"]}
    config = json.loads(sh(BIN, "dump", "--json", env=env, cwd=tmp_path).stdout)
    urls = [urllib.parse.urlsplit(config[section]["url"]) for section in ("database", "cache", "vectors")]
    assert [(u.scheme, u.hostname, u.port) for u in urls] == [
        ("postgresql", "postgres", 5432), ("redis", "redis", 6379), ("http", "qdrant", 6333)]
    assert config["embedding"]["url"] == config["llm"]["url"] == "none:"
    (tmp_path / "env").write_text("POSTGRES_PASSWORD=x\nRAGD_EMBEDDING_URL=http://models/v1\nEMBEDDING_MODEL=small\n")
    env |= compose_config(tmp_path, tmp_path / "env")["services"]["ragd"]["environment"]
    config = json.loads(sh(BIN, "dump", "--json", env=env, cwd=tmp_path).stdout)
    assert (config["embedding"]["url"], config["embedding"]["model"]) == ("http://models/v1", "small")


def test_compose_file_wants_a_password(tmp_path):
    if not shutil.which("docker-compose"):
        pytest.skip("needs docker-compose")
    (tmp_path / "env").write_text("POSTGRES_USER=x\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith("POSTGRES_")}
    done = sh("docker-compose", "-f", str(ROOT / "docker-compose.yml"), "--env-file", str(tmp_path / "env"), "config",
              check=False, env=env, cwd=tmp_path)
    assert done.returncode != 0 and "POSTGRES_PASSWORD" in done.stderr
