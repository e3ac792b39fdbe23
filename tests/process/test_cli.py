"""The commands that touch data, run as a user runs them: the real binary, with and without a server, on both stores."""

import hashlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading

import pytest
from ragdtest import BIN, Postgres, Ragd, children_of, clean_environ, alive, free_port, wait_for

DATA_COMMANDS = ["migrate", "seed", "ingest", "search", "ask", "eval", "cache", "health"]
COMMANDS = ["serve", "check", "dump", "status", "version", *DATA_COMMANDS]


class Cli:
    """Runs commands in a folder of their own, on one database."""

    def __init__(self, folder, url):
        self.folder = folder
        self.url = url

    def environ(self):
        return clean_environ({"DATABASE_URL": self.url})

    def start(self, *args, **kw):
        return subprocess.Popen([BIN, *args], cwd=self.folder, env=self.environ(), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)  # fmt: skip

    def run(self, *args, code=0):
        done = subprocess.run([BIN, *args], cwd=self.folder, env=self.environ(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "a worker died" not in done.stderr and "Sanitizer" not in done.stderr, done.stderr
        return done

    def json(self, *args, code=0):
        return json.loads(self.run(*args, "--json", code=code).stdout)


@pytest.fixture(params=["sqlite", "postgresql"])
def cli(request, tmp_path):
    if request.param == "sqlite":
        return Cli(tmp_path, f"sqlite:{tmp_path}/ragd.db")
    one = Cli(tmp_path, request.getfixturevalue("postgres").new_database())
    one.run("migrate")
    return one


@pytest.fixture
def lite(tmp_path):
    return Cli(tmp_path, f"sqlite:{tmp_path}/ragd.db")


def words(folder, n, text="harbour"):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        (folder / f"{i:04d}.txt").write_text(f"{text} number {i}, a line of its own\n")
    return folder


def refusals(outcome):
    return {os.path.basename(one["path"]): one for one in outcome["refused"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(lite, command):
    text = lite.run(command, "--help").stdout
    assert text.startswith(f"usage: ragd {command}")


@pytest.mark.parametrize("command", DATA_COMMANDS)
def test_wrong_usage_is_2_and_bad_configuration_78(lite, command):
    assert "--nonsense" in lite.run(command, "--nonsense", code=2).stderr
    (lite.folder / "bad.yaml").write_text("server:\n  wrokers: 3\n")
    assert "bad.yaml:2:3:" in lite.run(command, "-c", "bad.yaml", "x", code=78).stderr


def test_migrate(cli):
    cli.run("migrate")
    assert cli.json("migrate") == {"applied": 0}


def test_migrate_says_how_many(postgres, tmp_path):
    cli = Cli(tmp_path, postgres.new_database())
    assert cli.json("migrate")["applied"] > 0
    assert cli.json("migrate") == {"applied": 0}


def test_migrate_waits_for_a_database_that_is_not_there_yet(tmp_path):
    port = free_port()
    cli = Cli(tmp_path, f"postgresql://u@127.0.0.1:{port}/d")
    assert "ragd migrate:" in cli.run("migrate", code=1).stderr
    with socket.create_server(("127.0.0.1", port)) as server:
        running = cli.start("migrate", "--wait", "30")
        for _ in range(2):  # it comes back after a refusal
            server.settimeout(30)
            server.accept()[0].close()
        running.kill()
        running.communicate(timeout=30)


def test_seed_twice(cli):
    first = cli.json("seed")
    assert first["documents"] == first["ready"] == first["created"] >= 12
    again = cli.json("seed")
    assert (again["ready"], again["created"], again["updated"]) == (first["ready"], 0, 0)


def test_search(cli):
    cli.run("seed")
    found = cli.json("search", "--top-k", "3", "puffins", "burrow")
    hit = found["hits"][0]
    assert hit["filename"] == "newsletter.html" and "puffins" in hit["text"]
    start, end = hit["highlights"][0]
    assert hit["text"].encode()[start:end].decode().lower().startswith("puffin")
    human = cli.run("search", "--collection", "sample", "anemometer").stdout
    assert human.startswith("1. Instruments")
    assert "sample/instruments.md" in human
    assert "\033" not in human  # no colours into a pipe
    assert cli.json("search", "観測")["hits"][0]["filename"] == "welcome-ja.md"
    assert cli.run("search", "xylophone", code=1).stdout == "nothing found\n"
    assert "no collection" in cli.run("search", "--collection", "absent", "x", code=1).stderr
    cli.run("search", code=2)
    cli.run("search", "--top-k", "0", "x", code=2)


def test_eval(cli):
    cli.run("seed")
    golden = cli.folder / "golden.ndjson"
    golden.write_text("\n".join(json.dumps(q) for q in (
        {"id": "birds", "query": "puffins burrow", "relevant": ["sample/newsletter.html"]},
        {"query": "anemometer", "relevant": [{"external_id": "sample/instruments.md", "grade": 2}, "sample/absent"]},
        {"id": "never", "query": "xylophone", "relevant": ["sample/soup.md"]})))  # fmt: skip
    args = ("eval", "--collection", "sample", "--mode", "lexical")
    run = cli.json(*args, "--save", "base.json", str(golden))
    one = {q["id"]: q for q in run["questions"]}
    assert one["birds"] == {"id": "birds", "recall@k": 1, "rr": 1, "ndcg@10": 1}
    assert one["anemometer"]["recall@k"] == 0.5 and one["anemometer"]["rr"] == 1
    assert one["never"] == {"id": "never", "recall@k": 0, "rr": 0, "ndcg@10": 0}
    assert run["absent"] == 1 and "1 relevant documents" in cli.run(*args, str(golden)).stdout
    assert run["n"] == 3 and run["mrr"] == pytest.approx(2 / 3) and run["passed"] is True
    assert json.loads((cli.folder / "base.json").read_text()) == run

    # The same state against itself, and against a base that was better.
    same = cli.json(*args, "--base", "base.json", "--max-drop", "0", str(golden))
    assert (same["better"], same["worse"], same["new"]) == (0, 0, 0)
    better = {**run, "ndcg@10": 1, "questions": [{"id": "never", "ndcg@10": 1}]}
    (cli.folder / "better.json").write_text(json.dumps(better))
    lost = cli.run(*args, "--base", "better.json", "--max-drop", "0.01", str(golden), code=1).stdout
    assert "1.000 -> 0.000  never" in lost and "NOT PASSED: nDCG@10" in lost and "2 not in it" in lost
    assert cli.json(*args, "--base", "better.json", "--max-drop", "0.9", str(golden))["worse"] == 1
    assert cli.json(*args, "--min-ndcg", "0.9", str(golden), code=1)["problem"].startswith("nDCG@10 is 0.")
    cli.run(*args, "--min-recall", "0.5", "--k", "5", str(golden))

    # A chunk can be meant, too.
    hit = cli.json("search", "puffins")["hits"][0]
    golden.write_text(json.dumps({"query": "puffins burrow", "relevant": [{"chunk_id": hit["chunk_id"]}]}))
    assert cli.json("eval", str(golden))["ndcg@10"] == 1

    # Ten that are perfect are not a little less than perfect together.
    golden.write_text("".join(json.dumps({"query": "puffins burrow", "id": str(i), "relevant": ["sample/newsletter.html"]}) + "\n"
                              for i in range(10)))  # fmt: skip
    best = cli.json(*args, "--min-recall", "1", "--min-ndcg", "1", str(golden))
    assert (best["n"], best["recall@k"], best["mrr"], best["ndcg@10"]) == (10, 1, 1, 1)

    golden.write_text('{"query": "x", "relevant": ["a"]}\n{"query": "y"}\n')
    assert "golden.ndjson: line 2: " in cli.run("eval", str(golden), code=1).stderr
    assert "no collection" in cli.run("eval", "--collection", "absent", "base.json", code=1).stderr
    cli.run("eval", code=2)
    cli.run("eval", "--max-drop", "0.1", "x", code=2)
    cli.run("eval", "--min-ndcg", "7", "x", code=2)


def test_search_modes(lite):
    lite.run("seed")
    assert lite.json("search", "--mode", "lexical", "puffins")["degraded"] is False
    assert lite.json("search", "puffins")["degraded"] is True  # hybrid, and there is no embedder
    assert "embedding.url" in lite.run("search", "--mode", "vector", "puffins", code=1).stderr
    assert "--mode" in lite.run("search", "--mode", "magic", "puffins", code=2).stderr


def test_ask(cli):
    cli.run("seed")
    answer = cli.json("ask", "--collection", "sample", "What does the anemometer measure?")
    assert answer["grounded"] and answer["model"] is None and answer["citations"][0]["quote"] in answer["answer"]
    human = cli.run("ask", "--extractive", "What does the anemometer measure?").stdout
    assert human.startswith(answer["answer"]) and "\n[1] " in human
    assert cli.run("ask", "xylophone", code=1).stdout.startswith("Nothing was found")
    assert "no collection" in cli.run("ask", "--collection", "absent", "x", code=1).stderr
    cli.run("ask", code=2)
    cli.run("ask", "--mode", "metadata", "x", code=2)


def test_ingest_resumes(cli):
    folder = words(cli.folder / "in", 30)
    first = cli.json("ingest", "in")
    assert (first["files"], first["ready"], first["refused"]) == (30, 30, [])
    (folder / "0003.txt").write_text("another lighthouse\n")
    (folder / "new.md").write_text("# New\n\nA foghorn.\n")
    second = cli.json("ingest", "in")
    assert (second["ready"], second["updated"], second["unchanged"]) == (1, 1, 29)
    hit = cli.json("search", "--collection", "default", "lighthouse")["hits"]
    assert [h["external_id"] for h in hit] == [str(folder / "0003.txt")]
    assert cli.json("search", "harbour", "--top-k", "100")["total"] == 29


def test_ingest_refuses_what_is_no_document(cli):
    folder = words(cli.folder / "in", 2)
    (folder / "empty").touch()
    (folder / "binary.bin").write_bytes(bytes(range(256)) * 64)
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(folder / "sock"))
    (folder / "device").symlink_to("/dev/null")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "self").symlink_to("self")
    (folder / "up").symlink_to("..")
    (folder / "link.txt").symlink_to("0000.txt")
    (folder / "below").mkdir()
    (folder / "below" / "loop").symlink_to("..")
    with open(folder / "huge", "wb") as f:
        f.truncate(3 << 20)
    outcome = cli.json("ingest", "--set", "limits.upload=2M", "in")
    assert outcome["ready"] == 3  # two files and the link to one of them
    assert outcome["files"] == 3 + len(outcome["refused"])
    reasons = {name: one["reason"] for name, one in refusals(outcome).items()}
    expected = {
        "empty": "is empty", "pipe": "named pipe", "sock": "socket", "device": "character device", "binary.bin": "binary",
        "dangling": "symbolic link to nothing", "self": "loop of symbolic links", "up": "link to a folder",
        "loop": "link to a folder", "huge": "limits.upload is 2097152",
    }  # fmt: skip
    assert set(reasons) == set(expected)
    for name, text in expected.items():
        assert text in reasons[name]
    plain = cli.run("ingest", "--set", "limits.upload=2M", "in").stdout
    assert f"refused  {folder}/pipe: is a named pipe\n" in plain
    assert "0 ready, 3 skipped (unchanged), 10 refused" in plain


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="needs another user")
def test_ingest_refuses_what_it_may_not_read(lite):
    folder = words(lite.folder / "in", 1)
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0)
    (folder / "closed").mkdir(mode=0)
    command = [BIN, "ingest", "--json", "in"]
    if os.geteuid() == 0:  # root may read everything
        os.chmod(lite.folder, 0o777)
        for parent in lite.folder.parents:
            if parent != pathlib.Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    done = subprocess.run(command, cwd=lite.folder, env=lite.environ(), capture_output=True, text=True, timeout=60)
    (folder / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["ready"] == 1
    assert {name: one["reason"] for name, one in refusals(outcome).items()} == {
        "secret": "Permission denied", "closed": "Permission denied"}  # fmt: skip


def test_a_named_path_that_is_refused_is_a_failure(lite):
    words(lite.folder / "in", 1)
    outcome = lite.json("ingest", "in", "absent", code=1)
    assert outcome["ready"] == 1
    assert refusals(outcome)["absent"]["reason"] == "No such file or directory"
    lite.run("ingest", code=2)
    lite.run("ingest", "--jobs", "0", "in", code=2)


def test_overlapping_paths_are_taken_once(lite):
    words(lite.folder / "in", 5)
    outcome = lite.json("ingest", "in", "in/0001.txt", "in", f"{lite.folder}/in/../in")
    assert (outcome["files"], outcome["ready"]) == (5, 5)


def test_ingest_takes_large_files_and_strange_names(cli):
    folder = cli.folder / "in"
    folder.mkdir()
    (folder / "large.txt").write_text("a bollard stands here\n" * 100_000)
    with open(os.fsencode(folder) + b"/caf\xe9\n.txt", "wb") as f:
        f.write("a quay\n".encode())
    outcome = cli.json("ingest", "in")
    assert (outcome["ready"], outcome["refused"]) == (2, [])
    assert cli.json("search", "quay")["hits"][0]["external_id"] == f"{folder}/caf%E9\n.txt"
    assert cli.json("search", "bollard")["total"] > 1
    assert cli.json("ingest", "in")["unchanged"] == 2


def test_ingest_takes_long_paths(cli):
    """Longer than an external id may be: its hash takes the place of the path, and the name stays what it is."""
    folder = cli.folder.resolve() / "in"
    while len(str(folder)) < 190:
        folder /= "a" * 10
    folder.mkdir(parents=True)
    room = 256 - len(str(folder)) - len("/.txt")
    fits, long = (folder / ("b" * n + ".txt") for n in (room, room + 1))
    fits.write_text("a quay just above")
    long.write_text("a quay at the very end")
    assert cli.json("ingest", "in")["ready"] == 2
    assert cli.json("ingest", "in")["unchanged"] == 2
    lines = [json.loads(line) for line in cli.run("export", "--collection", "default").stdout.splitlines()]
    documents = {d["filename"]: d["external_id"] for d in lines if "filename" in d}
    digest = hashlib.sha256(str(long).encode()).hexdigest()
    assert documents == {fits.name: str(fits), long.name: f"path:sha256:{digest}"}
    long.write_text("another quay")
    again = cli.json("ingest", "in")
    assert again["updated"] == 1 and again["unchanged"] == 1, again


def test_ingest_draws_a_bar_on_a_terminal(lite):
    words(lite.folder / "in", 50)
    master, terminal = os.openpty()
    running = subprocess.Popen([BIN, "ingest", "in"], cwd=lite.folder, env=lite.environ(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=terminal, text=True)  # fmt: skip
    os.close(terminal)
    shown = b""
    while chunk := read_terminal(master):
        shown += chunk
    os.close(master)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert b"\r[" in shown and b" of 50 files, 0 refused, " in shown and b"ETA " in shown
    assert shown.endswith(b"\r\x1b[K")  # the bar is wiped at the end
    assert "50 files into default: 50 ready" in out


def read_terminal(fd):
    try:
        return os.read(fd, 65536)
    except OSError:  # EIO: the other end is closed
        return b""


def test_no_wait_leaves_the_work_to_the_server(tmp_path):
    words(tmp_path / "in", 5)
    with Ragd() as server:
        done = server.cli("ingest", "--no-wait", "--json", str(tmp_path / "in"), check=True)
        assert json.loads(done.stdout)["queued"] == 5

        def ready():
            found = server.cli("search", "--json", "--top-k", "10", "harbour")
            return json.loads(found.stdout)["total"] == 5

        wait_for(ready, "five ready documents", every=0.2)


def test_ingest_beside_a_running_server(tmp_path):
    words(tmp_path / "in", 60)
    with Ragd() as server:
        done = server.cli("ingest", "--json", "--jobs", "2", str(tmp_path / "in"), check=True)
        assert json.loads(done.stdout)["ready"] == 60
        found = json.loads(server.cli("search", "--json", "harbour").stdout)
        assert found["total"] == 60  # each document once, whoever did the work


def test_ingest_survives_the_death_of_its_workers(cli):
    words(cli.folder / "in", 200)
    running = cli.start("ingest", "--json", "--jobs", "2", "--set", "ingest.lease=1s", "in")

    def hands():
        return [pid for keeper in children_of(running.pid) for pid in children_of(keeper)]

    killed = 0
    while killed < 3 and running.poll() is None:
        for pid in hands()[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    outcome = json.loads(out)
    assert (outcome["ready"], outcome["refused"]) == (200, [])
    assert cli.json("search", "harbour")["total"] == 200


def test_ingest_gives_up_when_its_workers_cannot_live(lite):
    words(lite.folder / "in", 400)
    running = lite.start("ingest", "--jobs", "1", "--set", "ingest.lease=1h", "in")
    killed = 0
    while running.poll() is None:
        for keeper in children_of(running.pid):
            for pid in children_of(keeper):
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
    out, err = running.communicate(timeout=30)
    assert running.returncode == 1, out
    assert killed >= 50 and "die as soon as they begin" in err
    assert "a worker died: Killed; another takes its place" in err
    assert "unfinished: run it again to go on" in out


def test_a_killed_ingest_leaves_nothing_behind_and_is_taken_up(cli):
    words(cli.folder / "in", 300)
    running = cli.start("ingest", "--jobs", "2", "in")
    family = []

    def grown():
        keepers = children_of(running.pid)
        family[:] = keepers + [pid for keeper in keepers for pid in children_of(keeper)]
        return len(family) == 3 or running.poll() is not None

    wait_for(grown, "the workers")
    running.kill()
    running.communicate(timeout=30)
    wait_for(lambda: not any(alive(pid) for pid in family), "the end of the workers")
    outcome = cli.json("ingest", "in")
    assert outcome["ready"] + outcome["unchanged"] == 300
    assert cli.json("search", "harbour")["total"] == 300


def test_ingest_survives_a_crash_of_the_database(tmp_path):
    words(tmp_path / "in", 300)
    with Postgres() as database:
        cli = Cli(tmp_path, database.url())
        cli.run("migrate")
        running = cli.start("ingest", "--json", "--jobs", "2", "in")

        def documents():
            return database.execute("SELECT count(*) FROM documents")[0][0]

        wait_for(lambda: documents() >= 30, "the first documents")
        database.kill()
        database.start()
        out, err = running.communicate(timeout=120)
        assert running.returncode == 0, err
        assert json.loads(out)["refused"] == []
        assert documents() == 300
        assert cli.json("search", "harbour")["total"] == 300


def test_a_database_that_is_away_ends_the_command(tmp_path):
    cli = Cli(tmp_path, f"postgresql://u@127.0.0.1:{free_port()}/d")
    words(tmp_path / "in", 1)
    for command in (["search", "x"], ["seed"], ["ingest", "in"]):
        assert f"ragd {command[0]}: " in cli.run(*command, code=1).stderr


class Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"because")

    def log_message(self, *args):
        pass


class Unix(http.server.HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "unix", 0

    def get_request(self):
        return self.socket.accept()[0], ("unix", 0)


@pytest.fixture
def answering(tmp_path):
    servers = []

    def start(kind, address, status=200):
        server = kind(address, Answer)
        server.paths, server.status = [], status
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0", "", "[::]", "localhost"])
def test_health_asks_where_the_server_listens(lite, answering, bind):
    kind = http.server.HTTPServer
    if bind == "[::]":
        kind = type("V6", (kind,), {"address_family": socket.AF_INET6})
    server = answering(kind, ("::1" if bind == "[::]" else "127.0.0.1", 0))
    where = f"server.bind={bind}:{server.server_address[1]}"
    assert lite.run("health", "--set", where).stdout == "alive\n"
    lite.run("health", "--ready", "--set", where, "--set", "server.base_path=/rag")
    assert server.paths == ["/livez", "/rag/readyz"]
    server.status = 503
    assert "answered 503: because" in lite.run("health", "--set", where, code=1).stderr


def test_health_over_a_unix_socket(lite, answering):
    answering(Unix, str(lite.folder / "s"))
    lite.run("health", "--set", f"server.bind=unix:{lite.folder}/s")
    assert "Connection refused" in lite.run("health", "--set", f"server.bind=127.0.0.1:{free_port()}", code=1).stderr
    lite.run("health", "--set", f"server.bind=127.0.0.1:{free_port()},unix:{lite.folder}/s")  # one of them answers


def test_health_does_not_wait_for_ever(lite):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"server.bind=127.0.0.1:{silent.getsockname()[1]}"
        assert "no answer in time" in lite.run("health", "--timeout", "1", "--set", where, code=1).stderr


def test_health_of_a_real_server():
    with Ragd() as server:
        assert server.cli("health").stdout == "alive\n"
        assert server.cli("health", "--ready").stdout == "ready\n"
        assert server.stop() == 0
        assert server.cli("health").returncode == 1


def test_version(lite):
    assert lite.run("version").stdout.startswith("ragd ")
    (lite.folder / ".env").write_text("RAGD_NONSENSE=1\n")  # no configuration is needed to say the version
    version = lite.json("version")
    assert {"version", "commit", "compiler", "libraries"} <= set(version)
    assert {"libevent", "libpq", "sqlite", "openssl"} <= set(version["libraries"])
