"""The watched folder: its files are documents, whatever happens to them, to the folder and to the workers."""

import contextlib
import os
import signal
import sqlite3
import subprocess

import pytest
from ragdtest import BIN, Ragd, children_of, clean_environ, wait_for

SETTINGS = {"watch_settle": "20ms", "watch_rescan": "1s", "poll": "100ms", "workers": 2}


class Watched:
    def __init__(self, tmp_path, **settings):
        self.folder = tmp_path / "watched"
        self.folder.mkdir(exist_ok=True)
        self.server = Ragd({"ingest": {"watch": str(self.folder), **SETTINGS, **settings}})

    def write(self, name, text):
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def collection(self, name="watched"):
        found = self.server.get("/api/v1/collections?limit=100").json()["data"]
        return next((c["id"] for c in found if c["name"] == name), None)

    def documents(self):
        """{external id: (state, content version, bytes)}"""
        one = self.collection()
        if not one:
            return {}
        items = self.server.get(f"/api/v1/collections/{one}/documents?limit=100").json()["data"]
        return {d["external_id"]: (d["status"], d["bytes"]) for d in items}

    def wait(self, *names):
        """Until exactly these are documents, and ready."""
        def there():
            found = self.documents()
            return found.keys() == set(names) and all(state == "ready" for state, _ in found.values())

        wait_for(there, lambda: f"{names}, not {self.documents()}; log:\n{self.server.log()}", 60, 0.05)

    def hits(self, word):
        body = {"query": word, "mode": "lexical"}
        return {h["external_id"] for h in self.server.post("/api/v1/search", json=body).json()["hits"]}


@pytest.fixture
def watched(tmp_path):
    one = Watched(tmp_path)
    one.write("a.md", "# Kettles\n\nDescale the kettle.\n")
    one.write("deep/er/b.txt", "A lighthouse.\n")
    one.server.start()
    yield one
    one.server.close()


def test_files_are_documents(watched, tmp_path):
    watched.wait("a.md", "deep/er/b.txt")
    watched.write("new/c.txt", "A foghorn.\n")  # in a folder that was not there
    watched.wait("a.md", "deep/er/b.txt", "new/c.txt")
    watched.write("a.md", "# Kettles\n\nPolish the samovar.\n")
    wait_for(lambda: watched.hits("samovar") == {"a.md"} and not watched.hits("descale"), "the new text", 60)
    os.rename(watched.folder / "deep", watched.folder / "moved")
    watched.wait("a.md", "moved/er/b.txt", "new/c.txt")
    os.unlink(watched.folder / "new/c.txt")
    watched.wait("a.md", "moved/er/b.txt")
    assert watched.hits("foghorn") == set()


def test_nothing_from_outside_and_nothing_unfinished(watched, tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("A treasure.\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.txt").write_text("A treasure, too.\n")
    os.symlink(outside, watched.folder / "link.txt")
    os.symlink("../secret.txt", watched.folder / "up.txt")
    os.symlink(tmp_path / "more", watched.folder / "folder")
    os.symlink("a.md", watched.folder / "inside.md")
    os.mkfifo(watched.folder / "pipe.txt")
    watched.write(".hidden.txt", "Half of a treasure.\n")
    watched.write("empty.txt", "")
    watched.write("last.txt", "The end.\n")
    watched.wait("a.md", "deep/er/b.txt", "inside.md", "last.txt")
    assert watched.hits("treasure") == set()
    watched.server.wait_log("empty.txt: is empty")


def test_what_a_file_no_longer_holds_is_not_found(tmp_path):
    watched = Watched(tmp_path)
    watched.server.write_config({"limits": {"upload": 1024}})
    watched.write("emptied.txt", "A lighthouse.\n")
    watched.write("grown.txt", "A foghorn.\n")
    try:
        watched.server.start()
        watched.wait("emptied.txt", "grown.txt")
        watched.write("emptied.txt", "")
        watched.write("grown.txt", "A buoy. " * 200)
        watched.wait()
        assert not watched.hits("lighthouse") and not watched.hits("foghorn")
        watched.write("emptied.txt", "A harbour.\n")
        watched.wait("emptied.txt")
        assert watched.hits("harbour") == {"emptied.txt"}
    finally:
        watched.server.close()


def test_a_file_that_is_being_written_waits(tmp_path):
    watched = Watched(tmp_path, watch_settle="3s")
    try:
        watched.write("other.txt", "A buoy.\n")
        watched.server.start()
        with open(watched.folder / "slow.txt", "w") as slow:
            for word in ("one", "two", "three"):
                slow.write(word + "\n")
                slow.flush()
        watched.wait("other.txt", "slow.txt")
        assert watched.documents()["slow.txt"] == ("ready", 14)
        one = watched.collection()
        document = watched.server.get(f"/api/v1/collections/{one}/documents?external_id=slow.txt").json()["data"][0]
        versions = watched.server.get(f"/api/v1/documents/{document['id']}/versions").json()
        assert len(versions["data"]) == 1
    finally:
        watched.server.close()


def test_what_happens_while_nobody_watches(watched):
    watched.wait("a.md", "deep/er/b.txt")
    one = watched.collection()
    made = watched.server.post(f"/api/v1/collections/{one}/documents",
                               json={"text": "By hand.", "external_id": "hand", "filename": "hand.txt"})  # fmt: skip
    assert made.status_code == 202, made.text
    watched.server.stop()
    os.unlink(watched.folder / "a.md")
    watched.write("deep/er/b.txt", "A windmill.\n")
    watched.write("later.txt", "A sluice.\n")
    watched.server.start()
    watched.wait("deep/er/b.txt", "hand", "later.txt")  # what did not come from the folder stays
    wait_for(lambda: watched.hits("windmill") == {"deep/er/b.txt"}, "the new text", 60)


def test_a_folder_that_is_not_mounted_removes_nothing(watched, tmp_path):
    watched.wait("a.md", "deep/er/b.txt")
    watched.folder.rename(tmp_path / "away")
    watched.server.wait_log("No such file", 60)
    watched.folder.mkdir()  # the empty place where it is mounted
    wait_for(lambda: watched.server.log().count("watches ") >= 2, "the new folder", 60)
    assert watched.documents().keys() == {"a.md", "deep/er/b.txt"}
    watched.folder.rmdir()
    (tmp_path / "away").rename(watched.folder)
    watched.write("back.txt", "A tide.\n")
    watched.wait("a.md", "deep/er/b.txt", "back.txt")


def test_a_file_that_cannot_be_stored_holds_no_other_up(watched):
    watched.wait("a.md", "deep/er/b.txt")
    with contextlib.closing(sqlite3.connect(watched.server.dir / "ragd.db", timeout=30)) as db:
        db.execute("CREATE TRIGGER spell BEFORE INSERT ON documents WHEN NEW.external_id = 'b/cursed.txt' "
                   "BEGIN SELECT RAISE(ABORT, 'a spell'); END")  # fmt: skip
        os.unlink(watched.folder / "a.md")
        watched.write("b/cursed.txt", "A curse.\n")
        watched.write("d/" + "long" * 60 + "/" + "name" * 10, "Too long a path.\n")
        watched.write("e.txt", "A blessing.\n")
        watched.wait("deep/er/b.txt", "e.txt")
        os.unlink(watched.folder / "e.txt")
        watched.wait("deep/er/b.txt")
        for line in ("b/cursed.txt has to wait", "its path has more than 256 bytes"):
            watched.server.wait_log(line)
            assert watched.server.log().count(line) == 1
        db.execute("DROP TRIGGER spell")
    watched.wait("b/cursed.txt", "deep/er/b.txt")


def test_a_collection_that_is_made_anew_gets_all_files(watched):
    watched.wait("a.md", "deep/er/b.txt")
    one = watched.collection()
    assert watched.server.request("DELETE", f"/api/v1/collections/{one}").status_code == 202
    wait_for(lambda: watched.collection() not in (None, one), "the new collection", 60)
    watched.wait("a.md", "deep/er/b.txt")


def test_another_worker_takes_over(watched):
    watched.wait("a.md", "deep/er/b.txt")
    assert watched.server.log().count("watches ") == 1
    for pid in children_of(watched.server.pid):
        os.kill(pid, signal.SIGKILL)
    watched.write("after.txt", "A crane.\n")
    wait_for(lambda: watched.server.log().count("watches ") == 2, "another worker", 60)
    watched.wait("a.md", "deep/er/b.txt", "after.txt")


def test_check_names_a_folder_that_is_not_there(tmp_path):
    done = subprocess.run([BIN, "check", "--set", f"ingest.watch={tmp_path}/absent"], env=clean_environ({}),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 78 and "ingest.watch: " in done.stderr and "make the folder" in done.stderr
