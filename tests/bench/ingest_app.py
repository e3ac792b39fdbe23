"""The peer of ingest.py: what a Python team deploys for uploads, FastAPI with BackgroundTasks. A request stores the files,
durably, and is answered; then a background task reads each, cuts it into chunks of about 320 tokens that overlap by 48, and
writes them with a full text index in one transaction. BENCH_DSN: a file of SQLite, or a URL of PostgreSQL."""
import contextlib
import io
import json
import os
import re
import sqlite3
import threading

from fastapi import BackgroundTasks, FastAPI, File, Request, UploadFile
from fastapi.concurrency import run_in_threadpool

DSN = os.environ["BENCH_DSN"]
POSTGRESQL = DSN.startswith("postgresql:")
WORDS, OVERLAP = 240, 36  # 320 and 48 tokens, at 4 tokens for 3 words
SQLITE = """
CREATE TABLE IF NOT EXISTS documents (id INTEGER PRIMARY KEY, name TEXT, data BLOB, status TEXT DEFAULT 'queued');
CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, document INTEGER, ordinal INTEGER, text TEXT);
CREATE VIRTUAL TABLE IF NOT EXISTS chunks_fts USING fts5(text, content='chunks', content_rowid='id',
                                                         tokenize='porter unicode61');"""
POSTGRES = """
CREATE TABLE IF NOT EXISTS documents (id bigserial PRIMARY KEY, name text, data bytea, status text DEFAULT 'queued');
CREATE TABLE IF NOT EXISTS chunks (id bigserial PRIMARY KEY, document bigint, ordinal int, text text,
                                   words tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED);
CREATE INDEX IF NOT EXISTS chunks_words ON chunks USING gin (words);"""

app = FastAPI()
local = threading.local()  # background tasks run in threads, each with a connection of its own
writing = contextlib.nullcontext() if POSTGRESQL else threading.Lock()  # SQLite has one writer: its busy handler costs more


def connect():
    if POSTGRESQL:
        import psycopg

        return psycopg.connect(DSN)
    db = sqlite3.connect(DSN, timeout=60)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def database():
    if not hasattr(local, "db"):
        local.db = connect()
    return local.db


def mark(sql):
    return sql.replace("?", "%s") if POSTGRESQL else sql


def text_of(name, data):
    kind = name.rpartition(".")[2]
    if kind == "pdf":
        import pypdf

        return "\n\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(data)).pages)
    if kind == "docx":
        import docx

        return "\n".join(paragraph.text for paragraph in docx.Document(io.BytesIO(data)).paragraphs)
    if kind == "html":
        import bs4

        return bs4.BeautifulSoup(data, "lxml").get_text("\n")
    return data.decode(errors="replace")


def chunks_of(text):
    words = re.findall(r"\S+\s*", text.replace("\0", " "))
    step = WORDS - OVERLAP
    return ["".join(words[at:at + WORDS]) for at in range(0, max(len(words) - OVERLAP, 1), step)]


@contextlib.contextmanager
def transaction():
    db = database()
    with writing:
        try:
            yield db
            db.commit()
        except BaseException:
            db.rollback()
            raise


def index(number, name):
    db = database()
    data = db.execute(mark("SELECT data FROM documents WHERE id = ?"), (number,)).fetchone()[0]
    db.rollback()
    chunks = chunks_of(text_of(name, bytes(data)))
    with transaction():
        for ordinal, text in enumerate(chunks):
            insert = mark("INSERT INTO chunks (document, ordinal, text) VALUES (?, ?, ?) RETURNING id")
            new = db.execute(insert, (number, ordinal, text)).fetchone()[0]
            if not POSTGRESQL:
                db.execute("INSERT INTO chunks_fts (rowid, text) VALUES (?, ?)", (new, text))
        db.execute(mark("UPDATE documents SET status = 'ready' WHERE id = ?"), (number,))


def begin():
    with transaction() as db:
        for statement in (POSTGRES if POSTGRESQL else SQLITE).split(";"):
            if statement.strip():
                db.execute(statement)


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/ready")
def ready():
    db = database()
    count = db.execute("SELECT count(*) FROM documents WHERE status = 'ready'").fetchone()[0]
    db.rollback()
    return {"ready": count}


@app.post("/import", status_code=202)
async def take_lines(request: Request, tasks: BackgroundTasks):
    """NDJSON: {"filename", "text"} a line."""
    lines = [json.loads(line) for line in (await request.body()).splitlines()]
    return await run_in_threadpool(store, [(line["filename"], line["text"].encode()) for line in lines], tasks)


@app.post("/documents", status_code=202)
async def take_file(tasks: BackgroundTasks, file: UploadFile = File()):
    return await run_in_threadpool(store, [(file.filename, await file.read())], tasks)


def store(documents, tasks):
    stored = []
    with transaction() as db:
        for name, data in documents:
            insert = mark("INSERT INTO documents (name, data) VALUES (?, ?) RETURNING id")
            stored.append((db.execute(insert, (name, data)).fetchone()[0], name))
    for number, name in stored:
        tasks.add_task(index, number, name)
    return {"documents": [number for number, _ in stored]}


if __name__ == "__main__":
    begin()
