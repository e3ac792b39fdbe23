"""The short form of `make chaos-retrieval`, on what is embedded and on the services, both at the same time."""

import concurrent.futures
import os

import pytest

from retrieval_chaos import chaos
from services import Qdrant


@pytest.fixture(scope="module")
def runs():
    missing = Qdrant.missing()
    assert not (missing and os.environ.get("CI")), missing
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield {services: pool.submit(chaos, 60, 1, services) for services in ([False] if missing else [False, True])}


@pytest.mark.parametrize("services", [False, True], ids=["embedded", "services"])
def test_kills_cost_no_document_and_no_wrong_answer(services, runs):
    if services not in runs:
        pytest.skip(Qdrant.missing())
    runs[services].result()
