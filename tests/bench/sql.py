"""What the peers say to PostgreSQL: the statements that ragd itself uses for the same requests, on ragd's own tables or,
where they write, on copies with the same indexes."""

import json
import statistics
import time
import urllib.parse

import httpx

COLUMNS = """d.no, d.id, c.id AS collection_id, d.external_id, d.filename, d.title, d.mime, d.language, d.metadata, d.tags,
 d.sha256, d.bytes, d.pages, d.chunks, d.tokens, d.state, d.progress_done, d.progress_total, d.error_code, d.error_stage,
 d.error_message, d.error_page, d.version, d.content_version, d.updated_us, d.job"""
COLLECTION = "JOIN collections c ON c.no = d.collection AND NOT c.deleted"
NO = "(SELECT no FROM collections WHERE id = {collection})"
FIRST = "00000000-0000-0000-0000-000000000000"
PAGE = f"""SELECT {COLUMNS} FROM documents d {COLLECTION} WHERE (d.collection, d.id) > ({NO}, '{FIRST}'::uuid)
 AND (d.collection, d.id) < ({NO}, {{after}}) ORDER BY d.collection DESC, d.id DESC LIMIT {{limit}}"""

# For FastAPI: $1 document; $1 collection, $2 document, $3 limit.
PEER_GET = f"SELECT {COLUMNS} FROM documents d {COLLECTION} WHERE d.id = $1"
PEER_LIST = PAGE.format(collection="$1", after="$2", limit="$3")

PEER_TABLES = [
    # The same rows under an integer key, since pgbench has no variables of type uuid.
    "CREATE TABLE peer_lookup AS SELECT row_number() OVER (ORDER BY d.id)::int AS k, d.* FROM documents d",
    "ALTER TABLE peer_lookup ADD PRIMARY KEY (k)",
    "CREATE TABLE peer_documents (LIKE documents INCLUDING ALL)",
    "CREATE TABLE peer_files (LIKE files INCLUDING ALL)",
    "CREATE TABLE peer_jobs (LIKE jobs INCLUDING ALL)",
    "VACUUM ANALYZE",
]

# $1 id, $2 title, $3 filename, $4 hash, $5 length, $6 tags, $7 metadata, $8 job
DOCUMENT = """INSERT INTO peer_documents (id, collection, filename, title, mime, language, metadata, tags, sha256, bytes,
 content_us, updated_us, job, dedup) VALUES ({id}, 2, {filename}, {title}, 'text/plain', '', {metadata}, {tags}, {sha256},
 {bytes}, 1700000000000000, 1700000000000000, {job}, {sha256})"""
PEER_INSERT = DOCUMENT.format(id="$1", title="$2", filename="$3", sha256="$4", bytes="$5", tags="$6", metadata="$7", job="$8")

CLEAN = [
    "DELETE FROM jobs WHERE collection = '{scratch}'",
    "DELETE FROM documents d USING collections c WHERE c.no = d.collection AND c.id = '{scratch}'",
    "DELETE FROM files f WHERE NOT EXISTS (SELECT FROM documents d WHERE d.sha256 = f.sha256)",
    "TRUNCATE peer_documents, peer_files, peer_jobs",
]

# work: (name, script, clients, statements of interest in a script)
PGBENCH = {
    "b": [("pgbench", "one.sql", 64, 1), ("pgbench pipelined 16", "pipeline.sql", 8, 16)],
    "c": [("pgbench", "page.sql", 64, 1)],
    "d": [("pgbench", "insert.sql", 64, 1), ("pgbench three rows", "three.sql", 64, 1)],
}


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def pgbench_scripts(load):
    """{file name: script}."""
    count = len(load.ids)
    one = f"SELECT {COLUMNS} FROM peer_lookup d {COLLECTION} WHERE d.k = :k;\n"
    pick = f"\\set k random(1, {count})\n"
    body = json.loads((load.tmp / "body").read_text())
    # A colon would begin a variable of pgbench.
    document = DOCUMENT.format(
        id="gen_random_uuid()", title=literal(body["title"]), filename=literal(body["filename"]), bytes=len(body["text"]),
        sha256="sha256(int8send(:n::bigint))", tags=literal(json.dumps(body["tags"])), job="gen_random_uuid()",
        metadata=literal(json.dumps(body["metadata"]).replace(": ", " : ")))  # fmt: skip
    number = "\\set n random(1, 4611686018427387904)\n"
    file = f"INSERT INTO peer_files VALUES (sha256(int8send(:n::bigint)), 0, {literal(body['text'])}, 1700000000000000)"
    job = """INSERT INTO peer_jobs (id, type, document, collection, updated_us) VALUES (gen_random_uuid(), 'ingest',
 gen_random_uuid(), gen_random_uuid(), 1700000000000000)"""
    first, last = (int(load.ids[i].replace("-", "")[:12], 16) for i in (0, -1))  # milliseconds of UUIDv7
    after = "(lpad(to_hex(:ms::bigint), 12, '0') || '7fff8fffffffffffffff')::uuid"
    page = PAGE.format(collection=literal(load.collection), after=after, limit=21)
    return {
        "one.sql": pick + one,
        "pipeline.sql": "\\startpipeline\n" + (pick + one) * 16 + "\\endpipeline\n",
        "page.sql": f"\\set ms random({first}, {last})\n{page};\n",
        "insert.sql": f"{number}{document};\n",
        "three.sql": f"{number}WITH f AS ({file}), j AS ({job}) {document};\n",
    }


class Slow:
    """A query that takes ten milliseconds of time and none of the processor."""

    def __init__(self, url):
        self.url = url
        with httpx.Client(trust_env=False, timeout=30) as http:
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert http.get(url).status_code == 200
                took.append((time.monotonic() - began) * 1e3)
        self.milliseconds = statistics.median(took)


def slow_query(server, cluster, database):
    """A filtered listing of a collection with one document, where the filter's function sleeps."""
    collection = server.post("/api/v1/collections", json={"name": "slow"}).json()["id"]
    answer = server.post(f"/api/v1/collections/{collection}/documents", json={"text": "slow", "metadata": {"a": "b"}})
    assert answer.status_code == 202, answer.text
    cluster.execute("CREATE OR REPLACE FUNCTION ragd_in(m jsonb, vs jsonb[]) RETURNS boolean LANGUAGE sql VOLATILE AS "
                    "$$ SELECT pg_sleep(0.01) IS NOT NULL $$", database)
    wanted = urllib.parse.quote(json.dumps({"type": "in", "key": "a", "value": ["b", "c"]}))
    return Slow(f"{server.url}/api/v1/collections/{collection}/documents?filter={wanted}")
