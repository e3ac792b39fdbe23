"""What takes a minute: the short forms of `make soak` and `make chaos`, and what shows only after many deaths. All but the
first go on at the same time, as most of it is waiting."""

import concurrent.futures
import time

import pytest

from chaos import Upgraded, chaos
from load import Load
from ragdtest import Ragd, report, wait_for
from soak import soak
from test_recycle import Watch, recycled
from watch import Pid1, cpu_seconds, needs_namespace, ready


def test_fifty_reloads_lose_no_request_and_leave_nothing():
    soak(50)


def crash_loop():
    """Four workers crash 50 ms after they are READY. With delays of 100, 200, 400 … ms, less a fifth, each of them is forked
    at most nine times within thirty seconds. Without delays there would be thousands of forks."""
    with Ragd({"server": {"workers": 4}}, args=["--role", "http"], env={"RAGD_FAULT_BOOT": "die:50"}) as r:
        begin, cpu = time.monotonic(), cpu_seconds(r.pid)
        time.sleep(30)  # not a wait for something: this is the loop itself
        share = (cpu_seconds(r.pid) - cpu) / (time.monotonic() - begin)
        deaths = r.log().count(" died: signal 11 (SEGV)")
        report("crash loop of 4 workers, deaths in 30 s", deaths)
        report("the same, share of a CPU that the master takes, percent", round(100 * share, 2))
        assert 4 * 3 <= deaths <= 40
        assert share < 0.5
        assert r.proc.poll() is None


def recycling():
    """A hundred requests a worker, 200 a second, two seconds for a boot: somebody is being replaced all the time."""
    config = {"server": {"workers": 4, "max_requests": 100, "max_requests_jitter": 20}}
    with Ragd(config, env={"RAGD_FAULT_BOOT": "delay:2000"}) as r:
        first = wait_for(lambda: len(ready(r)) == 4 and ready(r), "all workers")
        with Load(r, rate=200) as load, Watch(r) as watch:
            time.sleep(60)
            wait_for(lambda: recycled(r, "requests") >= 8, lambda: f"eight replacements:\n{r.log()}")
            wait_for(lambda: not set(ready(r)) & set(first), "the first workers to leave")
        assert load.errors == 0, load
        assert recycled(r, "lifetime") == recycled(r, "rss") == 0
        assert watch.samples > 100 and watch.ready >= 4 and watch.most <= 5, vars(watch)
        report("recycling for a minute under load, replaced, longest request in ms",
               f"{recycled(r, 'requests')}, {load.latency_ms['max']}")  # fmt: skip
        assert "asks to be replaced: requests" in r.log()
        assert "died" not in r.log()


@pytest.fixture(scope="module")
def long(postgres):
    url = postgres.new_database()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield {
            "chaos": pool.submit(chaos, 60, 1, Upgraded, url),
            "chaos as PID 1": pool.submit(chaos, 60, 1, Pid1),
            "crash loop": pool.submit(crash_loop),
            "recycling": pool.submit(recycling),
        }


@pytest.mark.parametrize("form", ["chaos", pytest.param("chaos as PID 1", marks=needs_namespace)])
def test_mishaps_cost_only_what_killed_workers_held(form, long):
    long[form].result()


def test_a_crash_loop_is_slowed_down(long):
    long["crash loop"].result()


def test_recycling_after_requests_is_not_felt(long):
    long["recycling"].result()
