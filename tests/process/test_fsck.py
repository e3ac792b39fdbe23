"""`ragd fsck` on the embedded index: files that belong to no collection."""

import shutil

import pytest

import openai_server
from ragdtest import Ragd, wait_for

GONE = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture(scope="module")
def world():
    with openai_server.running(dimension=48) as model:
        with Ragd({"embedding": {"model": "test", "url": model.url}}) as ragd:
            id = ragd.post("/api/v1/collections", json={"name": "mine"}).json()["id"]
            document = ragd.post(f"/api/v1/collections/{id}/documents", json={"text": "A kettle"}).json()["document"]["id"]
            wait_for(lambda: ragd.get(f"/api/v1/documents/{document}").json()["status"] == "ready", ragd.log)
            yield ragd, id, ragd.dir / "vectors"


def test_files_of_no_collection_are_taken_away(world):
    """And no others, however alike they look."""
    ragd, id, dir = world
    assert ragd.cli("fsck").returncode == 0
    mine = dir / f"{id}.1.vec"
    theirs = [f"{GONE}.1.vec.old", f"{GONE}.01.vec", f"{GONE.upper()}.1.vec", f"{GONE}.-1.vec", f"{GONE}.0.vec", "notes.txt", f"{id}.vec"]
    strays = [f"{GONE}.1.vec", f"{GONE}.12.vec", f"{id}.7.vec"]
    for name in theirs + strays:
        shutil.copy(mine, dir / name)
    done = ragd.cli("fsck")
    assert done.returncode == 1 and " 3 strays" in done.stdout and all((dir / name).exists() for name in strays), done
    done = ragd.cli("fsck", "--repair")
    assert done.returncode == 0 and " 3 strays, 3 repaired" in done.stdout, done
    assert {p.name for p in dir.iterdir()} == {mine.name, *theirs}
    assert ragd.cli("fsck").returncode == 0
    assert ragd.post("/api/v1/search", json={"query": "kettle", "mode": "vector"}).json()["hits"]


def test_a_directory_that_cannot_be_read_is_told(world):
    ragd, id, dir = world
    dir.rename(dir.with_name("away"))
    try:
        dir.write_text("a file")
        done = ragd.cli("fsck")
        assert done.returncode == 1 and "vector index" in done.stderr, done
    finally:
        dir.unlink()
        dir.with_name("away").rename(dir)
