-- Times are UTC microseconds. Ids are UUIDs as 16 bytes; those of version 7, whose order is the order of creation.
-- Numbers of states are the positions in DOCUMENT_STATES and JOB_STATES (worker/store/store.h).

CREATE TABLE collections (
    no INTEGER PRIMARY KEY AUTOINCREMENT, -- part of every term of the lexical index: never reused
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    language TEXT NOT NULL,
    metadata TEXT NOT NULL,
    chunking TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, -- 1: hidden, a job removes its documents
    documents INTEGER NOT NULL DEFAULT 0, -- this and the following: kept by triggers on documents
    failed INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX collections_name ON collections (name) WHERE deleted = 0;

-- Contents of files, addressed by their hash, in parts of at most 1 MB.
CREATE TABLE files (
    sha256 BLOB NOT NULL,
    part INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (sha256, part)
);
-- Files that nobody refers to, perhaps: what the sweep looks at.
CREATE TABLE file_orphans (
    sha256 BLOB PRIMARY KEY,
    since_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX file_orphans_since ON file_orphans (since_us);

CREATE TABLE documents (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    collection INTEGER NOT NULL REFERENCES collections (no),
    external_id TEXT, -- NULL: none
    filename TEXT NOT NULL,
    title TEXT NOT NULL,
    mime TEXT NOT NULL,
    language TEXT NOT NULL,
    metadata TEXT NOT NULL,
    tags TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    pages INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0, -- in the index now, as are tokens
    tokens INTEGER NOT NULL DEFAULT 0,
    state INTEGER NOT NULL DEFAULT 0,
    progress_done INTEGER NOT NULL DEFAULT 0,
    progress_total INTEGER NOT NULL DEFAULT 0,
    error_code TEXT NOT NULL DEFAULT '',
    error_stage TEXT NOT NULL DEFAULT '',
    error_message TEXT NOT NULL DEFAULT '',
    error_page INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    content_version INTEGER NOT NULL DEFAULT 1,
    indexed_version INTEGER NOT NULL DEFAULT 0, -- content_version that text and chunks were made from
    content_us INTEGER NOT NULL, -- when this content came
    updated_us INTEGER NOT NULL,
    job BLOB NOT NULL -- the newest
);
CREATE INDEX documents_page ON documents (collection, id);
CREATE INDEX documents_unready ON documents (collection, state, id) WHERE state <> 5;
CREATE INDEX documents_sha256 ON documents (sha256, collection);
CREATE UNIQUE INDEX documents_external_id ON documents (collection, external_id) WHERE external_id IS NOT NULL;

CREATE TRIGGER documents_insert AFTER INSERT ON documents BEGIN
    UPDATE collections SET documents = documents + 1, bytes = bytes + new.bytes WHERE no = new.collection;
END;
CREATE TRIGGER documents_move AFTER UPDATE OF collection ON documents BEGIN
    UPDATE collections SET documents = documents - 1, bytes = bytes - old.bytes, chunks = chunks - old.chunks,
        tokens = tokens - old.tokens, failed = failed - (old.state = 6) WHERE no = old.collection;
    UPDATE collections SET documents = documents + 1, bytes = bytes + new.bytes, chunks = chunks + new.chunks,
        tokens = tokens + new.tokens, failed = failed + (new.state = 6) WHERE no = new.collection;
END;
CREATE TRIGGER documents_delete AFTER DELETE ON documents BEGIN
    UPDATE collections SET documents = documents - 1, bytes = bytes - old.bytes, chunks = chunks - old.chunks,
        tokens = tokens - old.tokens, failed = failed - (old.state = 6) WHERE no = old.collection;
END;
CREATE TRIGGER documents_update AFTER UPDATE OF state, bytes, chunks, tokens ON documents
WHEN old.bytes <> new.bytes OR old.chunks <> new.chunks OR old.tokens <> new.tokens
    OR (old.state = 6) <> (new.state = 6) BEGIN
    UPDATE collections SET bytes = bytes + new.bytes - old.bytes, chunks = chunks + new.chunks - old.chunks,
        tokens = tokens + new.tokens - old.tokens, failed = failed + (new.state = 6) - (old.state = 6)
        WHERE no = new.collection;
END;

-- Earlier contents of documents; the current one stands in documents.
CREATE TABLE versions (
    document INTEGER NOT NULL REFERENCES documents (no),
    version INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    filename TEXT NOT NULL,
    mime TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (document, version)
) WITHOUT ROWID;
CREATE INDEX versions_sha256 ON versions (sha256);

-- Extracted text, in parts: no = document << 20 | part.
CREATE TABLE texts (
    no INTEGER PRIMARY KEY,
    text BLOB NOT NULL
);

CREATE TABLE chunks (
    no INTEGER PRIMARY KEY, -- document << 20 | ordinal
    id BLOB NOT NULL UNIQUE,
    text TEXT NOT NULL,
    headings TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    tokens INTEGER NOT NULL,
    page INTEGER NOT NULL,
    char_start INTEGER NOT NULL,
    char_end INTEGER NOT NULL,
    byte_start INTEGER NOT NULL,
    byte_end INTEGER NOT NULL
);

-- The lexical index; rowid = chunks.no. body is the number of the collection, then the analysed terms. The tokenizer
-- puts that number before each term, so that a search touches the postings of its collection only.
CREATE VIRTUAL TABLE chunk_index USING fts5 (body, tokenize = 'ragd');

-- Documents whose chunks are being written or removed in several steps: no search sees them meanwhile.
CREATE TABLE hidden_chunks (
    document INTEGER PRIMARY KEY
);

CREATE TABLE jobs (
    no INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    type TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    document BLOB, -- ids, which may outlive what they name
    collection BLOB,
    payload TEXT NOT NULL DEFAULT '{}',
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    stage TEXT NOT NULL DEFAULT '',
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    error_code TEXT NOT NULL DEFAULT '',
    error_stage TEXT NOT NULL DEFAULT '',
    error_message TEXT NOT NULL DEFAULT '',
    owner BLOB,
    content_version INTEGER NOT NULL DEFAULT 0, -- of the document when the job was leased
    due_us INTEGER NOT NULL DEFAULT 0, -- queued: not before; running: the lease ends
    started_us INTEGER NOT NULL DEFAULT 0,
    finished_us INTEGER NOT NULL DEFAULT 0,
    updated_us INTEGER NOT NULL
);
CREATE INDEX jobs_due ON jobs (due_us, id) WHERE state < 2;
CREATE INDEX jobs_unsuccessful ON jobs (state, id) WHERE state <> 2;
CREATE INDEX jobs_document ON jobs (document, id) WHERE document IS NOT NULL;
CREATE INDEX jobs_collection ON jobs (collection, id) WHERE collection IS NOT NULL;

CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    request BLOB NOT NULL,
    status INTEGER NOT NULL,
    content_type TEXT NOT NULL DEFAULT '',
    body BLOB NOT NULL DEFAULT '',
    location TEXT NOT NULL DEFAULT '',
    etag TEXT NOT NULL DEFAULT '',
    created_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_created ON idempotency (created_us);
