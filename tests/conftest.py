"""Fixtures for all Python tests. Everything else they share is in ragdtest.py."""

import pytest

from ragdtest import Postgres, figures


@pytest.fixture(scope="session")
def postgres():
    """One private PostgreSQL cluster for the whole run; ask it for a new_database()."""
    with Postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_to_kill():
    """Another one, for tests that kill it: the first one's users must not notice."""
    with Postgres() as cluster:
        yield cluster


# With pytest-xdist, figures are taken in the processes that run the tests, and printed by the one that started them.
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = figures


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    figures.extend(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter):
    if figures:
        terminalreporter.section("measured")
    for name, value in figures:
        terminalreporter.write_line(f"measured: {name}: {value}")
