"""Fixtures for all Python tests. Everything else they share is in ragdtest.py."""

import pytest

from ragdtest import Postgres


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
