"""Measuring: CPU and memory of process trees, one run of wrk, one run of pgbench, medians and ratios over rounds."""

import os
import re
import statistics
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
UNIT_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def stat_fields(pid):
    """/proc/PID/stat behind the name: [0] is the state, [1] the parent; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()
    except OSError:
        return None


def tree(pid):
    """The process and all its descendants."""
    parents = {int(d): stat_fields(d) for d in os.listdir("/proc") if d.isdigit()}
    found = [pid]
    for p in found:
        found += [child for child, fields in parents.items() if fields and int(fields[1]) == p]
    return found


def cpu_seconds(root):
    """CPU time of a tree, with that of its ended processes (a database backend, a cage), which who waited for them has."""
    fields = [stat_fields(pid) for pid in tree(root)]
    return sum(int(n) for f in fields if f for n in f[11:15]) / TICK


def memory(root):
    """Bytes of a tree: RSS, PSS (a page shared by N processes counts 1/N) and private."""
    sums = {"Rss": 0, "Pss": 0, "Private": 0}
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                lines = f.read().splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            key, value = line.split()[:2]
            for name in sums:
                if key == name + ":" or (name == "Private" and key in ("Private_Clean:", "Private_Dirty:")):
                    sums[name] += int(value) * 1024
    return sums


def connections_of(root, port):
    """{pid: established connections that it holds on its side of `port`}."""
    inodes = set()
    with open("/proc/net/tcp") as f:
        for line in f.readlines()[1:]:
            fields = line.split()
            if fields[3] == "01" and int(fields[1].partition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    counts = {}
    for pid in tree(root):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        counts[pid] = sum(link in inodes for link in links)
    return counts


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * UNIT_MS[unit]


class Wrk:
    """wrk with one thread against one server. `cpu` names trees whose CPU time is charged to the requests."""

    def __init__(self, url, connections, seconds, script=None, env=None, cpu=None):
        argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
        argv += ["-s", script] if script else []
        self.cpu = dict(cpu or {})
        self.before = {name: cpu_seconds(root) for name, root in self.cpu.items()}
        self.limit = seconds + 30
        self.proc = subprocess.Popen([*argv, url], env={**os.environ, **(env or {})}, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def result(self):
        try:
            out, _ = self.proc.communicate(timeout=self.limit)
        except BaseException:
            self.proc.kill()
            raise
        if "Requests/sec" not in out:
            raise RuntimeError(f"wrk: {out}")
        count = int(re.search(r"(\d+) requests in", out).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        found = {
            "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "p50": milliseconds(re.search(r"(?m)^\s+50%\s+(\S+)", out).group(1)),
            "p99": milliseconds(re.search(r"(?m)^\s+99%\s+(\S+)", out).group(1)),
            "errors": (int(bad.group(1)) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0),
        }
        for name, root in self.cpu.items():
            found[name] = (cpu_seconds(root) - self.before[name]) / max(count, 1) * 1e6
        return found


def pgbench(cluster, database, script, clients, seconds, each=1):
    """One run; `each` is how many statements of interest a script has. Latency is per script."""
    root = cluster.proc.pid
    before = cpu_seconds(root)
    done = subprocess.run(
        [str(cluster.bin / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds),
         "-f", script, "-h", str(cluster.dir), "-p", str(cluster.port), "-U", "postgres", database],
        capture_output=True, text=True, timeout=seconds + 60)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"pgbench: {done.stdout}{done.stderr[:1000]}")
    rate = float(re.search(r"tps = ([\d.]+) \(without", done.stdout).group(1)) * each
    time.sleep(0.1)  # the postmaster reaps its backends, whose CPU time is asked for
    return {"rate": rate, "p50": float(re.search(r"latency average = ([\d.]+)", done.stdout).group(1)), "errors": 0,
            "postgres": (cpu_seconds(root) - before) / max(rate * seconds, 1) * 1e6}  # fmt: skip


def median(rows, key):
    values = [row[key] for row in rows if key in row]
    return statistics.median(values) if values else None


def ratio(mine, other, key="rate"):
    """The median over rounds of mine/other, each pair from one round."""
    return statistics.median(a[key] / b[key] for a, b in zip(mine, other) if b.get(key))
