"""Fixtures for all Python tests. Everything else they share is in ragdtest.py."""

import pytest

from ragdtest import Postgres


@pytest.fixture(scope="session")
def postgres():
    """One private PostgreSQL cluster for the whole run; ask it for a new_database()."""
    with Postgres() as cluster:
        yield cluster
