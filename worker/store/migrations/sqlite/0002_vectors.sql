-- Embeddings, what the vector index is told, and webhooks. Everything here has a default or is done by a trigger, so that the release
-- before this one, which knows nothing of it, may go on writing: what it deletes or changes reaches the index as well.

ALTER TABLE collections ADD COLUMN revision INTEGER NOT NULL DEFAULT 0; -- raised by all that a search could notice
-- The generation that is searched and its model ('': nothing was embedded yet), the one that is being built beside it,
-- and the one before it, kept for a rollback. 0: there is none.
ALTER TABLE collections ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
ALTER TABLE collections ADD COLUMN embedder TEXT NOT NULL DEFAULT '';
ALTER TABLE collections ADD COLUMN dim INTEGER NOT NULL DEFAULT 0;
ALTER TABLE collections ADD COLUMN shadow_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE collections ADD COLUMN shadow_embedder TEXT NOT NULL DEFAULT '';
ALTER TABLE collections ADD COLUMN shadow_dim INTEGER NOT NULL DEFAULT 0;
ALTER TABLE collections ADD COLUMN shadow_built INTEGER NOT NULL DEFAULT 0; -- 1: complete, may be promoted
ALTER TABLE collections ADD COLUMN previous_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE collections ADD COLUMN previous_embedder TEXT NOT NULL DEFAULT '';
ALTER TABLE collections ADD COLUMN previous_dim INTEGER NOT NULL DEFAULT 0;
ALTER TABLE collections ADD COLUMN last_generation INTEGER NOT NULL DEFAULT 1; -- numbers are never used again

ALTER TABLE documents ADD COLUMN indexings INTEGER NOT NULL DEFAULT 0; -- how often its index was made
ALTER TABLE documents ADD COLUMN given INTEGER NOT NULL DEFAULT 0; -- how often other vectors came for the content that it has
ALTER TABLE jobs ADD COLUMN committed INTEGER NOT NULL DEFAULT 0; -- content_version whose index it has committed

ALTER TABLE chunks ADD COLUMN embedded INTEGER NOT NULL DEFAULT 0; -- 1: its vector is wanted
ALTER TABLE chunks ADD COLUMN parent_char_start INTEGER NOT NULL DEFAULT 0; -- the span that is its context; all 0: none
ALTER TABLE chunks ADD COLUMN parent_char_end INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chunks ADD COLUMN parent_byte_start INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chunks ADD COLUMN parent_byte_end INTEGER NOT NULL DEFAULT 0;
CREATE INDEX chunks_embedded ON chunks (sha256) WHERE embedded = 1;

-- Vectors that the embedder made, by what they were made from: float32, little-endian, of length 1.
CREATE TABLE embeddings (
    sha256 BLOB NOT NULL, -- of the chunk's text
    model TEXT NOT NULL,
    vector BLOB NOT NULL,
    touched_us INTEGER NOT NULL,
    UNIQUE (sha256, model)
);
-- Those that clients gave, for one chunk each: whoever may write one document has no say in others with the same text.
CREATE TABLE given_vectors (
    document INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    model TEXT NOT NULL,
    sha256 BLOB NOT NULL, -- of the chunk's text: until its content is indexed, the document has other chunks
    vector BLOB NOT NULL,
    UNIQUE (document, ordinal, model)
);

-- Spaces of the vector index that exist or are being made.
CREATE VIEW spaces (collection, id, deleted, generation, model, dim) AS
    SELECT no, id, deleted, generation, embedder, dim FROM collections WHERE embedder <> ''
    UNION ALL
    SELECT no, id, deleted, shadow_generation, shadow_embedder, shadow_dim FROM collections WHERE shadow_generation > 0
    UNION ALL
    SELECT no, id, deleted, previous_generation, previous_embedder, previous_dim FROM collections
        WHERE previous_generation > 0;

-- What the vector index has not been told yet. Numbers of kinds are the positions in OUTBOX_KINDS.
CREATE TABLE vector_outbox (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    collection_no INTEGER NOT NULL, -- numbers and ids, which may outlive what they name
    collection BLOB NOT NULL,
    generation INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    document_no INTEGER NOT NULL DEFAULT 0, -- 0: the whole space
    document BLOB,
    due_us INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX vector_outbox_due ON vector_outbox (due_us, no);
CREATE INDEX vector_outbox_put ON vector_outbox (collection_no, generation) WHERE kind = 2; -- a space is not complete

DROP TRIGGER documents_move;
CREATE TRIGGER documents_move AFTER UPDATE OF collection ON documents BEGIN
    UPDATE collections SET documents = documents - 1, bytes = bytes - old.bytes, chunks = chunks - old.chunks,
        tokens = tokens - old.tokens, failed = failed - (old.state = 6), revision = revision + 1
        WHERE no = old.collection;
    UPDATE collections SET documents = documents + 1, bytes = bytes + new.bytes, chunks = chunks + new.chunks,
        tokens = tokens + new.tokens, failed = failed + (new.state = 6) WHERE no = new.collection;
    INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim, document_no, document)
        SELECT 0, collection, id, generation, dim, old.no, old.id FROM spaces
        WHERE collection = old.collection AND deleted = 0;
END;

DROP TRIGGER documents_delete;
CREATE TRIGGER documents_delete AFTER DELETE ON documents BEGIN
    UPDATE collections SET documents = documents - 1, bytes = bytes - old.bytes, chunks = chunks - old.chunks,
        tokens = tokens - old.tokens, failed = failed - (old.state = 6), revision = revision + 1
        WHERE no = old.collection;
    INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim, document_no, document)
        SELECT 0, collection, id, generation, dim, old.no, old.id FROM spaces
        WHERE collection = old.collection AND deleted = 0; -- else the whole space is dropped
    DELETE FROM given_vectors WHERE document = old.no;
END;
CREATE TRIGGER documents_content AFTER UPDATE OF sha256 ON documents WHEN old.sha256 <> new.sha256 BEGIN
    DELETE FROM given_vectors WHERE document = new.no;
END;

DROP TRIGGER documents_update;
CREATE TRIGGER documents_update AFTER UPDATE OF state, bytes, chunks, tokens ON documents
WHEN old.bytes <> new.bytes OR old.chunks <> new.chunks OR old.tokens <> new.tokens
    OR (old.state = 6) <> (new.state = 6) OR (new.state = 5 AND old.state <> 5) BEGIN
    UPDATE collections SET bytes = bytes + new.bytes - old.bytes, chunks = chunks + new.chunks - old.chunks,
        tokens = tokens + new.tokens - old.tokens, failed = failed + (new.state = 6) - (old.state = 6),
        revision = revision + 1 WHERE no = new.collection;
END;
CREATE TRIGGER documents_notice AFTER UPDATE OF indexed_version, indexings, filename, title, metadata, tags ON documents
WHEN old.indexed_version <> new.indexed_version OR old.indexings <> new.indexings OR old.filename <> new.filename
    OR old.title <> new.title OR old.metadata <> new.metadata OR old.tags <> new.tags BEGIN
    UPDATE collections SET revision = revision + 1 WHERE no = new.collection;
    -- an index that was taken away; one of another version although nobody made it anew, or made by another release;
    -- one whose document says other things of itself
    INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim, document_no, document)
        SELECT CASE WHEN new.indexed_version = 0 THEN 0 WHEN old.indexed_version <> new.indexed_version THEN 2 ELSE 1 END,
            collection, id, generation, dim, new.no, new.id FROM spaces
        WHERE collection = new.collection AND deleted = 0 AND old.indexings = new.indexings AND (
            old.indexed_version <> new.indexed_version
            OR (new.indexed_version > 0 AND (old.metadata <> new.metadata OR old.tags <> new.tags)));
END;
-- Its first vectors: documents that came before have none, except those whose job goes on (state 4).
CREATE TRIGGER collections_embedder AFTER UPDATE OF embedder ON collections
WHEN old.embedder = '' AND new.embedder <> '' AND old.generation = new.generation BEGIN
    INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim, document_no, document)
        SELECT 2, new.no, new.id, new.generation, new.dim, no, id FROM documents
        WHERE collection = new.no AND indexed_version > 0 AND state <> 4;
END;
CREATE TRIGGER collections_delete BEFORE DELETE ON collections BEGIN
    INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim)
        SELECT 3, collection, id, generation, dim FROM spaces WHERE collection = old.no;
END;

-- Golden sets, questions whose right answers are known, as one JSON object a line; and what jobs found with them.
CREATE TABLE eval_sets (
    id BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    questions INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE TABLE eval_results (
    job BLOB NOT NULL UNIQUE,
    eval_set BLOB NOT NULL,
    result TEXT NOT NULL
);
CREATE INDEX eval_results_set ON eval_results (eval_set, job);

-- ---- webhooks ----

-- Where it is told that documents and jobs have ended.
CREATE TABLE webhooks (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    url TEXT NOT NULL,
    events TEXT NOT NULL, -- JSON array: types, or "job.*"
    secret TEXT NOT NULL,
    headers TEXT NOT NULL, -- JSON object
    enabled INTEGER NOT NULL DEFAULT 1,
    disabled_reason TEXT NOT NULL DEFAULT '', -- when the server did it
    version INTEGER NOT NULL DEFAULT 1, -- of the settings above
    updated_us INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0, -- tries since the last one that went well, and the first of them
    failing_since_us INTEGER NOT NULL DEFAULT 0,
    last_try_us INTEGER NOT NULL DEFAULT 0,
    last_status INTEGER NOT NULL DEFAULT 0, -- 0: there was no answer
    last_error TEXT NOT NULL DEFAULT '',
    dropped INTEGER NOT NULL DEFAULT 0, -- deliveries, as too many waited
    last_dropped_us INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0 -- nobody sees it; its deliveries are being removed
);
-- Numbers of states are the positions in DELIVERY_STATES.
CREATE TABLE webhook_deliveries (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    webhook INTEGER NOT NULL REFERENCES webhooks (no),
    type TEXT NOT NULL,
    data TEXT NOT NULL, -- JSON: the facts as they were then
    state INTEGER NOT NULL DEFAULT 0,
    created_us INTEGER NOT NULL,
    due_us INTEGER NOT NULL, -- waiting: not before; sending: the lease ends
    tries INTEGER NOT NULL DEFAULT 0,
    status INTEGER NOT NULL DEFAULT 0, -- of the last answer; 0: there was none
    error TEXT NOT NULL DEFAULT '',
    ended_us INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX webhook_deliveries_page ON webhook_deliveries (webhook, no);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, due_us) WHERE state < 2;
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (webhook, no) WHERE state = 0;
CREATE INDEX webhook_deliveries_sending ON webhook_deliveries (webhook, due_us) WHERE state = 1;
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_us);
CREATE INDEX webhook_deliveries_state ON webhook_deliveries (state); -- to count them

-- What a webhook is told of a job that is over, and of its document: what follows from the job's end, as the document may
-- not know of it yet.
CREATE VIEW job_facts (id, status, document_event, data) AS
    SELECT j.id, CASE j.state WHEN 2 THEN 'succeeded' WHEN 3 THEN 'failed' ELSE 'cancelled' END,
        CASE WHEN d.job IS NOT j.id OR j.type <> 'ingest' THEN NULL WHEN j.state = 2 THEN 'document.ready'
            WHEN j.state = 3 THEN 'document.failed' END,
        json_object('document', json(CASE WHEN j.document IS NOT NULL THEN json_object(
            'id', lower(substr(hex(j.document), 1, 8) || '-' || substr(hex(j.document), 9, 4) || '-' || substr(hex(j.document), 13, 4) || '-' ||
            substr(hex(j.document), 17, 4) || '-' || substr(hex(j.document), 21)),
            'collection_id', lower(substr(hex(j.collection), 1, 8) || '-' || substr(hex(j.collection), 9, 4) || '-' || substr(hex(j.collection), 13, 4) || '-' ||
            substr(hex(j.collection), 17, 4) || '-' || substr(hex(j.collection), 21)),
            'external_id', d.external_id, 'filename', nullif(d.filename, ''), 'title', nullif(d.title, ''),
            'mime', nullif(d.mime, ''), 'bytes', d.bytes, 'sha256', nullif(lower(hex(d.sha256)), ''), 'pages', d.pages,
            'chunks', d.chunks, 'metadata', json(CASE WHEN json_valid(d.metadata) THEN d.metadata END),
            'tags', json(CASE WHEN json_valid(d.tags) THEN d.tags END), 'versions', d.content_version,
            'status', CASE j.state WHEN 2 THEN 'ready' WHEN 3 THEN 'failed' ELSE 'cancelled' END,
            'last_error', json(CASE WHEN j.state <> 2 AND j.error_code <> '' THEN json_object('code', j.error_code,
                'stage', nullif(j.error_stage, ''), 'message', j.error_message) END)) END),
        'job', json_object(
            'id', lower(substr(hex(j.id), 1, 8) || '-' || substr(hex(j.id), 9, 4) || '-' || substr(hex(j.id), 13, 4) || '-' ||
            substr(hex(j.id), 17, 4) || '-' || substr(hex(j.id), 21)),
            'type', j.type, 'status', CASE j.state WHEN 2 THEN 'succeeded' WHEN 3 THEN 'failed' ELSE 'cancelled' END,
            'attempts', j.attempts,
            'document_id', CASE WHEN j.document IS NOT NULL THEN lower(substr(hex(j.document), 1, 8) || '-' || substr(hex(j.document), 9, 4) || '-' || substr(hex(j.document), 13, 4) || '-' ||
            substr(hex(j.document), 17, 4) || '-' || substr(hex(j.document), 21)) END,
            'collection_id', CASE WHEN j.collection IS NOT NULL THEN lower(substr(hex(j.collection), 1, 8) || '-' || substr(hex(j.collection), 9, 4) || '-' || substr(hex(j.collection), 13, 4) || '-' ||
            substr(hex(j.collection), 17, 4) || '-' || substr(hex(j.collection), 21)) END,
            'error', json(CASE WHEN j.state <> 2 AND j.error_code <> '' THEN json_object('code', j.error_code,
                'stage', nullif(j.error_stage, ''), 'message', j.error_message) END)))
    FROM jobs j LEFT JOIN documents d ON d.id = j.document AND j.error_code <> 'document_deleted';

-- The end of a job is the last thing that its transaction writes: the facts are complete, and it is not put back again.
CREATE TRIGGER jobs_ended AFTER UPDATE OF state ON jobs
WHEN old.state < 2 AND new.state >= 2 AND EXISTS (SELECT 1 FROM webhooks WHERE enabled = 1) BEGIN
    INSERT INTO webhook_deliveries (id, webhook, type, data, created_us, due_us)
        SELECT randomblob(16), w.no, f.document_event, f.data, new.finished_us, new.finished_us
        FROM job_facts f JOIN webhooks w ON w.enabled = 1
        WHERE f.id = new.id AND f.document_event IS NOT NULL
            AND EXISTS (SELECT 1 FROM json_each(w.events) x WHERE x.value IN (f.document_event, 'document.*'));
    INSERT INTO webhook_deliveries (id, webhook, type, data, created_us, due_us)
        SELECT randomblob(16), w.no, 'job.' || f.status, f.data, new.finished_us, new.finished_us
        FROM job_facts f JOIN webhooks w ON w.enabled = 1
        WHERE f.id = new.id
            AND EXISTS (SELECT 1 FROM json_each(w.events) x WHERE x.value IN ('job.' || f.status, 'job.*'));
END;
