"""What the peers say to PostgreSQL: the statements that ragd itself uses for the same requests, on ragd's own tables, or,
where they write, on copies with the same indexes."""

import contextlib
import threading
import time

import httpx

COLUMNS = """d.id, d.external_id, d.filename, d.title, d.mime, d.bytes, d.sha256, d.pages, d.chunks, d.language, d.metadata,
 d.tags, d.state, d.version, d.content_version, d.updated_us, d.job"""

PEER_TABLES = [
    # The same rows under an integer key, since pgbench has no variables of type uuid.
    """CREATE TABLE peer_lookup AS SELECT row_number() OVER (ORDER BY d.id)::int AS k, d.*, c.id AS collection_id
       FROM documents d JOIN collections c ON c.no = d.collection WHERE c.id = '{collection}'""",
    "ALTER TABLE peer_lookup ADD PRIMARY KEY (k)",
    "CREATE TABLE peer_documents (LIKE documents INCLUDING ALL)",
    "CREATE TABLE peer_files (LIKE files INCLUDING ALL)",
    "CREATE TABLE peer_jobs (LIKE jobs INCLUDING ALL)",
    "VACUUM ANALYZE",
]
