-- What a document has stays until an update has become as good.

-- What the end of a job means for its document; nothing, when the document has a newer job. An index that was made of an
-- earlier content stays until that of another one takes its place.
CREATE OR REPLACE FUNCTION ragd_document_finish(p_document uuid, p_job uuid, p_state bigint, p_code text, p_stage text,
    p_message text, p_page bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_no bigint;
BEGIN
    UPDATE documents SET state = p_state, error_code = p_code, error_stage = p_stage, error_message = p_message,
        error_page = p_page, version = version + 1, updated_us = ragd_now() WHERE id = p_document AND job = p_job
        RETURNING no INTO v_no;
    IF p_state = 7 THEN -- its job had made the index, and was about to make the vectors
        UPDATE documents SET error_code = 'cancelled', error_stage = 'index vectors', error_message =
            'The job was cancelled before the document had all its vectors: searches by vectors miss it until the job'
            ' is retried or the document reprocessed'
            WHERE no = v_no AND indexed_version = content_version
            AND content_version = (SELECT committed FROM jobs WHERE id = p_job);
    END IF;
END $$;

-- A job for a document that failed or was cancelled, as it was when it was locked; NULL for any other.
CREATE FUNCTION ragd_document_again(d documents, p_collection uuid, p_new uuid) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    v_job uuid;
BEGIN
    IF d.state NOT IN (6, 7) THEN
        RETURN NULL;
    END IF;
    v_job := ragd_job_for(d.id, p_collection, d.job, p_new);
    UPDATE documents SET job = v_job, progress_done = 0, progress_total = 0 WHERE no = d.no;
    PERFORM ragd_document_finish(d.id, v_job, 0, '', '', '', 0);
    RETURN v_job;
END $$;

-- A job for a document whose bytes are wanted after all, and not what a URL leads to that its job was to fetch; NULL where
-- that is not so. A fetch that runs learns that it is not the newest job.
CREATE FUNCTION ragd_document_unfetch(d documents, p_collection uuid, p_new uuid) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    v_job uuid;
    v_state bigint;
BEGIN
    SELECT id, state INTO v_job, v_state FROM jobs WHERE id = d.job AND state IN (0, 1) AND payload::text <> '{}' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF v_state = 0 THEN
        UPDATE jobs SET payload = '{}' WHERE id = v_job;
    ELSE
        v_job := p_new;
        INSERT INTO jobs (id, type, document, collection, due_us, updated_us)
            VALUES (p_new, 'ingest', d.id, p_collection, ragd_now(), ragd_now());
    END IF;
    UPDATE documents SET job = v_job, progress_done = 0, progress_total = 0 WHERE no = d.no;
    PERFORM ragd_document_finish(d.id, v_job, 0, '', '', '', 0);
    RETURN v_job;
END $$;

-- Creates or changes one document, in every case that is not the plain one (see DOCUMENT_INSERT in pg_create.c). `outcome` is
-- 0 created, 1 duplicate, 2 updated, 3 unchanged; -1 no such collection, -2 another version, -3 refused: duplicate,
-- -4 refused: external_id taken, -5 parts of the file are missing (`have` bytes are there), -6 nothing to match if_version.
-- What is there already, but failed or was cancelled, gets another job.
CREATE OR REPLACE FUNCTION ragd_document_put(p_id uuid, p_collection uuid, p_external text, p_filename text, p_title text,
    p_mime text, p_language text, p_metadata text, p_tags text, p_sha bytea, p_bytes bigint, p_content bytea, p_job uuid,
    p_now bigint, p_duplicate bigint, p_upsert boolean, p_version bigint,
    OUT outcome int, OUT document uuid, OUT job uuid, OUT have bigint) LANGUAGE plpgsql AS $$
DECLARE
    c bigint;
    d documents%ROWTYPE;
    parts bigint;
    inserted bigint;
BEGIN
    SELECT no INTO c FROM collections WHERE id = p_collection AND NOT deleted FOR KEY SHARE;
    IF NOT FOUND THEN
        outcome := -1;
        RETURN;
    END IF;
    LOOP -- until nobody else creates the same document at this moment
        d := NULL;
        IF p_external IS NOT NULL AND (p_upsert OR p_duplicate = 1) THEN
            SELECT * INTO d FROM documents x WHERE x.collection = c AND x.external_id = p_external FOR UPDATE;
        END IF;
        IF d.no IS NULL AND NOT p_upsert AND p_duplicate <> 1 THEN
            SELECT * INTO d FROM documents x
                WHERE (x.dedup = p_sha AND x.collection = c) OR (x.dedup IS NULL AND x.sha256 = p_sha AND x.collection = c)
                ORDER BY x.no LIMIT 1 FOR UPDATE;
            IF d.no IS NULL AND p_external IS NOT NULL THEN
                SELECT * INTO d FROM documents x WHERE x.collection = c AND x.external_id = p_external FOR UPDATE;
                IF d.no IS NOT NULL THEN
                    outcome := -4;
                    document := d.id;
                    RETURN;
                END IF;
            END IF;
        ELSIF d.no IS NOT NULL AND NOT p_upsert THEN
            outcome := -4;
            document := d.id;
            RETURN;
        END IF;
        document := d.id;
        IF d.no IS NOT NULL AND NOT p_upsert THEN
            IF p_duplicate = 3 THEN
                outcome := -3;
                RETURN;
            END IF;
            IF p_duplicate = 0 THEN
                job := ragd_document_again(d, p_collection, p_job);
                outcome := 1;
                RETURN;
            END IF;
            INSERT INTO versions SELECT d.no, d.content_version, d.sha256, d.bytes, d.filename, d.mime, d.content_us;
            UPDATE documents SET title = coalesce(nullif(p_title, ''), title),
                metadata = coalesce(nullif(p_metadata, '')::json, metadata),
                tags = coalesce(nullif(p_tags, '')::json, tags), filename = coalesce(nullif(p_filename, ''), filename),
                indexed_version = indexed_version + (indexed_version = content_version)::int,
                content_version = content_version + 1, version = version + 1, content_us = p_now, updated_us = p_now
                WHERE no = d.no;
            job := ragd_document_again(d, p_collection, p_job);
            outcome := 2;
            RETURN;
        END IF;
        IF d.no IS NOT NULL AND p_version <> 0 AND p_version <> d.version THEN
            outcome := -2;
            have := d.version;
            RETURN;
        END IF;
        IF d.no IS NULL AND p_upsert AND p_version <> 0 THEN
            outcome := -6;
            RETURN;
        END IF;
        IF d.no IS NOT NULL AND p_mime = 'application/vnd.ragd.url' AND d.mime <> p_mime THEN
            -- what it has stays until its job has fetched something else; one that runs does not know of this URL
            UPDATE jobs SET payload = json_build_object('url', convert_from(p_content, 'UTF8')) WHERE id = d.job AND state = 0
                RETURNING id INTO job;
            IF job IS NULL THEN
                job := p_job;
                INSERT INTO jobs (id, type, document, collection, payload, due_us, updated_us) VALUES (p_job, 'ingest', d.id,
                    p_collection, json_build_object('url', convert_from(p_content, 'UTF8')), ragd_now(), ragd_now());
            END IF;
            UPDATE documents SET title = coalesce(nullif(p_title, ''), title),
                metadata = coalesce(nullif(p_metadata, '')::json, metadata),
                tags = coalesce(nullif(p_tags, '')::json, tags), filename = coalesce(nullif(p_filename, ''), filename),
                language = coalesce(nullif(p_language, ''), language), state = 0, progress_done = 0, progress_total = 0,
                error_code = '', error_stage = '', error_message = '', error_page = 0, version = version + 1,
                updated_us = p_now, job = ragd_document_put.job
                WHERE no = d.no;
            outcome := 2;
            RETURN;
        END IF;
        IF d.no IS NOT NULL AND d.sha256 = p_sha THEN
            job := coalesce(ragd_document_again(d, p_collection, p_job), ragd_document_unfetch(d, p_collection, p_job));
            outcome := 2;
            IF (p_title = '' OR p_title = d.title) AND (p_metadata = '' OR p_metadata = d.metadata::text)
                AND (p_tags = '' OR p_tags = d.tags::text) THEN
                IF job IS NULL THEN
                    outcome := 3;
                END IF;
                RETURN;
            END IF;
            UPDATE documents SET title = coalesce(nullif(p_title, ''), title),
                metadata = coalesce(nullif(p_metadata, '')::json, metadata),
                tags = coalesce(nullif(p_tags, '')::json, tags), version = version + 1, updated_us = p_now
                WHERE no = d.no;
            RETURN;
        END IF;
        IF p_content IS NOT NULL THEN
            INSERT INTO files VALUES (p_sha, 0, p_content, ragd_now())
                ON CONFLICT (sha256, part) DO UPDATE SET touched_us = excluded.touched_us;
        ELSE
            UPDATE files SET touched_us = ragd_now() WHERE sha256 = p_sha;
            SELECT count(*), coalesce(sum(octet_length(bytes)), 0) INTO parts, have FROM files WHERE sha256 = p_sha;
            IF have <> p_bytes OR parts <> (p_bytes + 1048575) / 1048576 THEN
                outcome := -5;
                RETURN;
            END IF;
        END IF;
        IF d.no IS NOT NULL THEN -- other bytes; the old chunks are found until the new ones take their place
            job := ragd_job_for(d.id, p_collection, d.job, p_job);
            UPDATE jobs SET payload = '{}' WHERE id = job AND payload::text <> '{}'; -- whatever it was to fetch, or has
            INSERT INTO versions SELECT d.no, d.content_version, d.sha256, d.bytes, d.filename, d.mime, d.content_us;
            UPDATE documents SET title = coalesce(nullif(p_title, ''), title),
                metadata = coalesce(nullif(p_metadata, '')::json, metadata),
                tags = coalesce(nullif(p_tags, '')::json, tags), filename = coalesce(nullif(p_filename, ''), filename),
                mime = p_mime, language = coalesce(nullif(p_language, ''), language), sha256 = p_sha, dedup = NULL,
                bytes = p_bytes, state = 0, progress_done = 0, progress_total = 0, error_code = '', error_stage = '',
                error_message = '', error_page = 0, content_version = content_version + 1, version = version + 1,
                content_us = p_now, updated_us = p_now, job = ragd_document_put.job
                WHERE no = d.no;
            outcome := 2;
            RETURN;
        END IF;
        INSERT INTO documents (id, collection, external_id, filename, title, mime, language, metadata, tags, sha256,
                dedup, bytes, content_us, updated_us, job)
            VALUES (p_id, c, p_external, p_filename, p_title, p_mime, p_language, coalesce(nullif(p_metadata, ''), '{}')::json,
                coalesce(nullif(p_tags, ''), '[]')::json, p_sha, CASE WHEN p_upsert OR p_duplicate = 1 THEN NULL ELSE p_sha END,
                p_bytes, p_now, p_now, p_job)
            ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        IF inserted = 1 THEN
            INSERT INTO jobs (id, type, document, collection, due_us, updated_us)
                VALUES (p_job, 'ingest', p_id, p_collection, least(p_now, ragd_now()), p_now);
            outcome := 0;
            document := p_id;
            job := p_job;
            RETURN;
        END IF;
    END LOOP;
END $$;

-- As before, but what is told of the document stays that of its newest job, which is another one when a URL was named
-- meanwhile.
CREATE OR REPLACE FUNCTION ragd_index_commit(p_job uuid, p_owner uuid, p_version bigint, p_title text, p_language text, p_mime text,
    p_pages bigint, p_texts bytea[], p_ids uuid[], p_chunk_texts text[], p_headings text[], p_shas bytea[],
    p_tokens bigint[], p_page_nos bigint[], p_char_start bigint[], p_char_end bigint[], p_byte_start bigint[],
    p_byte_end bigint[], p_tsv text[], p_pcs bigint[], p_pce bigint[], p_pbs bigint[], p_pbe bigint[], p_due boolean)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    d record;
    v_now bigint := ragd_now();
    v_n bigint := cardinality(p_ids);
BEGIN
    IF p_due THEN
        UPDATE jobs SET error_code = '', error_stage = '', error_message = '', updated_us = v_now, committed = p_version
            WHERE id = p_job AND owner = p_owner AND state = 1;
    ELSE
        UPDATE jobs SET state = 2, error_code = '', error_stage = '', error_message = '', owner = NULL, due_us = 0,
            finished_us = v_now, updated_us = v_now, stage = '', done = v_n, total = v_n, committed = p_version
            WHERE id = p_job AND owner = p_owner AND state = 1;
    END IF;
    IF NOT FOUND THEN
        RETURN -3;
    END IF;
    SELECT x.no, x.id, x.collection, x.content_version INTO d
        FROM jobs j JOIN documents x ON x.id = j.document JOIN collections c ON c.no = x.collection AND NOT c.deleted
        WHERE j.id = p_job FOR UPDATE OF x
        FOR KEY SHARE OF c; -- no space comes meanwhile that would miss this document, and be missed below
    IF NOT FOUND THEN
        RETURN -1;
    ELSIF d.content_version <> p_version THEN
        PERFORM ragd_job_requeue(p_job, d.id);
        RETURN -5;
    END IF;
    PERFORM ragd_unindex(d.no);
    INSERT INTO texts SELECT d.no << 20 | (t.i - 1), t.part FROM unnest(p_texts) WITH ORDINALITY t (part, i);
    INSERT INTO chunks
        SELECT d.no << 20 | (t.i - 1), t.id, t.body, t.headings::json, t.sha, t.tokens, t.page, t.cs, t.ce, t.bs, t.be,
            p_due, coalesce(t.pcs, 0), coalesce(t.pce, 0), coalesce(t.pbs, 0), coalesce(t.pbe, 0)
        FROM unnest(p_ids, p_chunk_texts, p_headings, p_shas, p_tokens, p_page_nos, p_char_start, p_char_end, p_byte_start,
            p_byte_end, p_pcs, p_pce, p_pbs, p_pbe) WITH ORDINALITY
            t (id, body, headings, sha, tokens, page, cs, ce, bs, be, pcs, pce, pbs, pbe, i);
    INSERT INTO chunk_index
        SELECT d.no << 20 | (t.i - 1), t.tokens, t.tsv::tsvector
        FROM unnest(p_tokens, p_tsv) WITH ORDINALITY t (tokens, tsv, i);
    UPDATE documents SET chunks = v_n, tokens = (SELECT coalesce(sum(n), 0) FROM unnest(p_tokens) n), pages = p_pages,
        title = coalesce(nullif(p_title, ''), title), language = coalesce(nullif(p_language, ''), language),
        mime = coalesce(nullif(p_mime, ''), mime), indexed_version = content_version, indexings = indexings + 1,
        version = version + 1, updated_us = v_now WHERE no = d.no;
    UPDATE documents SET state = CASE WHEN p_due THEN 4 ELSE 5 END, progress_done = CASE WHEN p_due THEN 0 ELSE v_n END,
        progress_total = v_n, error_code = '', error_stage = '', error_message = '', error_page = 0
        WHERE no = d.no AND job = p_job;
    INSERT INTO vector_outbox (kind, collection_no, collection, generation, dim, document_no, document)
        SELECT 2, v.collection, v.id, v.generation, v.dim, d.no, d.id FROM spaces v
        WHERE v.collection = d.collection AND NOT p_due; -- whoever has no vectors to give leaves them to the outbox
    RETURN 0;
END $$;
