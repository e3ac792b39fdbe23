#!/usr/bin/python3
"""Runs test suites and prints, alone on the last line, `N passed, N failed, N skipped`; above it, what failed once more.

usage: run.py [--build DIR] SUITE...

SUITE is a name of SUITES, optionally `suite@DIR` to run it with another build directory (build-asan, say). Each program
has a time limit. Exit 1 when something failed; with CI=true a skip counts as a failure, because there everything that
a test needs is installed.
"""
import argparse
import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

RECAP_LINES, RECAP_CHARS = 40, 1000  # of each failure, at the end
CI = os.environ.get("CI") == "true"
SAN_OPTIONS = {"ASAN_OPTIONS": "detect_stack_use_after_return=0:abort_on_error=1:detect_leaks=1",
               "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
BY_FILES = ["-n", "3", "--dist", "loadfile"]  # three at the same time, where most of a test is waiting
VALGRIND = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite",
            "--show-leak-kinds=definite", "--child-silent-after-fork=yes", "--suppressions=tests/valgrind.supp"]


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []  # (name, output)

    def add(self, passed=0, failed=0, skipped=0):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped


def run(argv, build, seconds, env=None):
    """(exit code or None when the time was up, output). What the program started ends with it."""
    full = dict(os.environ, **SAN_OPTIONS, BUILD=os.path.abspath(build),
                RAGD_BIN=os.path.abspath(os.path.join(build, "ragd")), PYTHONDONTWRITEBYTECODE="1", **(env or {}))
    proc = subprocess.Popen(argv, env=full, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True)
    try:
        out, _ = proc.communicate(timeout=seconds)
        return proc.returncode, out.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(proc.pid, signal.SIGKILL)
        out, _ = proc.communicate()
        return None, out.decode(errors="replace") + f"\nended after {seconds} s\n"


def know_the_tree():
    """Lints and tests ask git which files are the project's: also where the tree belongs to another user, or is an
    unpacked archive."""
    os.environ.update(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
    if not os.path.exists(".git"):
        os.environ.update(GIT_DIR=os.path.abspath("build/files.git"), GIT_WORK_TREE=os.getcwd())
        subprocess.run(["git", "init", "-q"], check=True)


def indented(text):
    return "     | " + text.rstrip().replace("\n", "\n     | ")


def report(tally, name, took, out, passed=0, failed=0, skipped=0):
    tally.add(passed, failed, skipped)
    word = "FAIL" if failed else "skip" if skipped and not passed else "ok"
    print(f"{word:4} {name:44} {passed:4} passed {failed:3} failed {skipped:3} skipped {took:6.1f} s")
    if failed or (skipped and CI):
        tally.failures.append((name, out))
        print(indented(out))
    else:
        for line in re.findall(r"^measured: .*$", out, re.M):
            print("     | " + line)
    sys.stdout.flush()


def lint(tally, name, build):
    """Each script is one test; exit 77 is a skip."""
    for script in sorted(glob.glob("tests/lint/*.sh") + glob.glob("tests/lint/*.py")):
        began = time.time()
        code, out = run([script], build, 300)
        report(tally, f"{name}: {os.path.basename(script)}", time.time() - began, out,
               passed=code == 0, failed=code not in (0, 77), skipped=code == 77)


def cmocka(tally, name, build, folder, wrapper=(), seconds=120):
    """Each test program speaks TAP. One that dies, or ends without a plan, is one more failure. Two run at a time."""
    sources = sorted(glob.glob(f"{folder}/test_*.c"))

    def one(source):
        began = time.time()
        code, out = run([*wrapper, os.path.join(build, source[:-2])], build, seconds, {"CMOCKA_MESSAGE_OUTPUT": "TAP"})
        return code, out, time.time() - began

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for source, (code, out, took) in zip(sources, pool.map(one, sources)):
            passed = len(re.findall(r"^ok \d+ ", out, re.M))
            skipped = len(re.findall(r"^(?:not )?ok \d+ # SKIP", out, re.M))
            failed = len(re.findall(r"^not ok \d+ ", out, re.M)) - skipped
            planned = sum(int(n) for n in re.findall(r"^1\.\.(\d+)$", out, re.M))
            if planned != passed + failed + skipped or planned == 0 or (code != 0 and failed == 0):
                failed += 1
                out += f"\nexit code {code}, {planned} tests planned, {passed + failed + skipped - 1} reported\n"
            report(tally, f"{name}: {os.path.basename(source)[:-2]}", took, out, passed, failed, skipped)
    if not sources:
        report(tally, f"{name}: no test programs in {folder}", 0, "", failed=1)


def pytest(tally, name, build, folder, seconds=3600, more=()):
    began = time.time()
    xml_file = os.path.abspath(os.path.join(build, f"junit-{name.split('@')[0]}.xml"))
    if os.path.exists(xml_file):
        os.unlink(xml_file)
    code, out = run([sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", f"--junitxml={xml_file}",
                     *more, folder], build, seconds)
    try:
        suite = xml.etree.ElementTree.parse(xml_file).getroot().find("testsuite").attrib
        failed = int(suite["failures"]) + int(suite["errors"])
        skipped = int(suite["skipped"])
        passed = int(suite["tests"]) - failed - skipped
    except (OSError, xml.etree.ElementTree.ParseError):
        passed = skipped = failed = 0
    if code != 0 and failed == 0:
        failed = 1
    report(tally, name, time.time() - began, out, passed, failed, skipped)


def fuzz(tally, name, build):
    """Replays the seed corpus of each target, then lets it search for FUZZ_SECONDS."""
    seconds = int(os.environ.get("FUZZ_SECONDS", "5"))
    for source in sorted(glob.glob("tests/fuzz/fuzz_*.c")):
        began = time.time()
        target = os.path.basename(source)[5:-2]
        program, seeds = os.path.join(build, source[:-2]), f"tests/fuzz/corpus/{target}"
        found = os.path.join(build, "corpus", target)
        os.makedirs(found, exist_ok=True)
        limits = ["-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={found}-", "-print_final_stats=1"]
        dictionary = f"tests/fuzz/{target}.dict"
        if os.path.exists(dictionary):
            limits.append(f"-dict={dictionary}")
        code, out = run([program, "-runs=0", *limits, seeds], build, 120)
        if code == 0:
            code, out = run([program, f"-max_total_time={seconds}", *limits, found, seeds], build, seconds + 120)
        report(tally, f"{name}: {target}", time.time() - began, out[-6000:], passed=code == 0, failed=code != 0)


def valgrind(tally, name, build):
    cmocka(tally, name, build, "tests/unit", VALGRIND, 600)


SUITES = {
    "lint": lint,
    "unit": lambda t, n, b: cmocka(t, n, b, "tests/unit"),
    "contract": lambda t, n, b: cmocka(t, n, b, "tests/contract", ["tests/with_postgres.sh"], 300),
    "api": lambda t, n, b: pytest(t, n, b, "tests/api"),
    "process": lambda t, n, b: pytest(t, n, b, "tests/process", more=BY_FILES),
    "container": lambda t, n, b: pytest(t, n, b, "tests/container"),
    "fuzz": fuzz,
    "valgrind": valgrind,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("suites", nargs="+", metavar="SUITE")
    args = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    know_the_tree()
    tally = Tally()
    for name in args.suites:
        suite, _, build = name.partition("@")
        if suite not in SUITES:
            parser.error(f"no suite {suite}; there are {' '.join(SUITES)}")
        SUITES[suite](tally, name, build or args.build)
    for name, out in tally.failures:  # where only the end of a long log is read
        lines = out.rstrip().splitlines()
        told = [line[:RECAP_CHARS] for line in lines if re.match(r"E  |FAILED |ERROR |not ok |#  |SUMMARY: |==\d+==ERROR", line)]
        print(f"FAILED {name}\n{indented(chr(10).join((told or lines)[-RECAP_LINES:]))}")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or tally.passed == 0 or (CI and tally.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
