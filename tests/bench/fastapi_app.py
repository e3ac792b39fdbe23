"""The Python peer: what a careful Python team would deploy for the same four requests on the same tables. Run by
gunicorn with uvicorn workers; uvloop and httptools are in use, asyncpg prepares and keeps its statements."""

import hashlib
import json
import os
import uuid
from typing import Any, Optional

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

GET, LIST, INSERT = (os.environ[name] for name in ("BENCH_GET", "BENCH_LIST", "BENCH_INSERT"))

app = FastAPI()


def document_out(row):
    out = dict(row)
    out["sha256"] = out["sha256"].hex()
    return out


class DocumentIn(BaseModel):
    text: str
    title: str = ""
    filename: str = ""
    tags: list[str] = []
    metadata: dict[str, Any] = {}


@app.on_event("startup")
async def startup():
    async def prepare(connection):
        await connection.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    app.state.pool = await asyncpg.create_pool(os.environ["BENCH_DSN"], min_size=8, max_size=8, init=prepare)


@app.get("/health")
async def health():
    return {"status": "ok", "version": "0.1.0", "uptime_s": 9}


@app.get("/api/v1/documents/{document}")
async def get_document(document: uuid.UUID):
    async with app.state.pool.acquire() as connection:
        row = await connection.fetchrow(GET, document)
    if row is None:
        raise HTTPException(404, "no such document")
    return document_out(row)


@app.get("/api/v1/collections/{collection}/documents")
async def list_documents(collection: uuid.UUID, after: uuid.UUID, limit: Optional[int] = 20):
    async with app.state.pool.acquire() as connection:
        rows = await connection.fetch(LIST, collection, after, limit)
    return {"object": "list", "data": [document_out(r) for r in rows], "has_more": len(rows) == limit}


@app.post("/api/v1/collections/{collection}/documents", status_code=202)
async def create_document(collection: uuid.UUID, document: DocumentIn):
    data, new = document.text.encode(), uuid.uuid4()
    async with app.state.pool.acquire() as connection:
        await connection.execute(INSERT, new, document.title, document.filename, hashlib.sha256(data).digest(),
                                 len(data), document.tags, document.metadata, uuid.uuid4())
    return {"document": {"id": new}}
