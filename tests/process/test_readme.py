"""The README's commands work as printed."""

import os
import re
import shutil
import subprocess

from ragdtest import BIN, ROOT, Ragd, clean_environ, free_port, wait_for

README = (ROOT / "README.md").read_text()


def shell_blocks(heading):
    section = re.search(rf"^## {heading}$(.*?)^## ", README, re.M | re.S).group(1)
    return re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)


def bash(script, **kw):
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, timeout=60, **kw)


def test_use(tmp_path):
    over_http, over_shell = shell_blocks("Use")
    (tmp_path / "build").mkdir()
    os.symlink(BIN, tmp_path / "build" / "ragd")
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data").mkdir()
    with Ragd({"database": {"url": f"sqlite:{tmp_path}/data/ragd.db"}}) as server:
        environ = server.environ()
        done = bash(over_http.replace("http://127.0.0.1:8000", server.url), cwd=tmp_path, env=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "citric acid" in done.stdout.splitlines()[-1]
        done = bash(over_shell, cwd=tmp_path, env=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "LICENSE" in done.stdout and "[1]" in done.stdout


def test_make_run_serves(tmp_path):
    """`make run` in a copy of the tree, with the objects that are built already."""
    listing = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in files.split("\0")[:-1]:
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(os.path.dirname(BIN), tmp_path / "build", ignore=shutil.ignore_patterns("tests", "corpus", "retrieval", "venv*"))
    port = free_port()
    (tmp_path / ".env").write_text(f"RAGD_SERVER_BIND=127.0.0.1:{port}\nRAGD_SERVER_WORKERS=1\n")
    keep = {k: v for k, v in clean_environ().items() if not k.startswith(("BUILD", "MAKE"))}
    version = (tmp_path / "build" / "gen" / "version.h").read_text()
    keep["COMMIT"] = re.search(r'RAGD_COMMIT "(.*)"', version).group(1)  # else the copy, no repository, is compiled anew
    with open(tmp_path / "log", "wb") as log:
        make = subprocess.Popen(["make", "run"], cwd=tmp_path, env=keep, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        def answered():
            assert make.poll() is None, (tmp_path / "log").read_text()
            return bash(f"curl -sf http://127.0.0.1:{port}/health").returncode == 0

        wait_for(answered, lambda: (tmp_path / "log").read_text(), timeout=120, every=0.2)
        assert (tmp_path / "data" / "ragd.db").exists()
    finally:
        make.terminate()
        make.wait(30)
