"""A peer of search.py: BM25 over SQLite's FTS5, as a Python team serves it. The file BENCH_DB was built by search.py. Queries
block, so they run in FastAPI's threads (`def`, not `async def`), each with a connection of its own."""
import os
import re
import sqlite3
import threading

from fastapi import FastAPI
from pydantic import BaseModel

FIND = """SELECT c.id, c.document, c.title, c.text, -bm25(chunks_fts, 1.0) AS score FROM chunks_fts
 JOIN chunks c ON c.id = chunks_fts.rowid WHERE chunks_fts MATCH ? ORDER BY bm25(chunks_fts) LIMIT ?"""
NAMES = ("chunk_id", "document_id", "title", "text", "score")

app = FastAPI()
local = threading.local()


def database():
    if not hasattr(local, "db"):
        local.db = sqlite3.connect(f"file:{os.environ['BENCH_DB']}?mode=ro", uri=True)
        local.db.execute("PRAGMA mmap_size = 1073741824")
        local.db.execute("PRAGMA cache_size = -16384")
    return local.db


class Query(BaseModel):
    query: str
    top_k: int = 10


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/search")
def search(q: Query):
    words = dict.fromkeys(re.findall(r"\w+", q.query.lower()))
    match = " OR ".join(f'"{word}"' for word in words)
    rows = database().execute(FIND, (match, q.top_k)).fetchall() if match else []
    return {"hits": [dict(zip(NAMES, row)) for row in rows]}
