"""What docs/frameworks.md says of psycopg, asyncpg and SQLAlchemy: the calls that fail, and the lines that work."""

import asyncio
import sys
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import psycopg
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from documented import documented, refused


def psycopg3():
    with psycopg.connect(autocommit=True) as db:
        value = lambda sql, *values: db.execute(sql, values).fetchone()[0]
        session = value("SELECT session_id FROM presence.start_session(user_key => %s)", "42")
        assert isinstance(session, UUID)
        # A str has no type of its own.
        assert value("SELECT presence.heartbeat(%s)", str(session)) == "ok"
        assert value("SELECT presence.heartbeat(%s)", session) == "ok"
        assert value("SELECT presence.heartbeat_many(%s)", [str(session)]) == []
        refused(lambda: value("SELECT presence.is_online(%s)", 42), "is_online(smallint)")
        assert value(documented("SELECT presence.is_online(presence.presence_id(%s))"), 42)
        refused(lambda: value("SELECT presence.start_session(user_key => %s)", 42), "start_session(user_key => smallint)")
        assert value(documented("SELECT session_id FROM presence.start_session(user_key => %s::text)"), 42)


async def asyncpg_calls():
    db = await asyncpg.connect()
    session = await db.fetchval("SELECT session_id FROM presence.start_session(user_key => $1)", "42")
    assert await db.fetchval("SELECT presence.heartbeat($1)", session) == "ok"
    assert await db.fetchval("SELECT presence.heartbeat($1)", str(session)) == "ok"
    assert await db.fetchval("SELECT presence.heartbeat_many($1)", [str(session)]) == []
    try:
        await db.fetchval("SELECT presence.presence_id($1)", 42)
    except asyncpg.DataError as error:
        assert "expected str, got int" in str(error), error
    else:
        raise AssertionError("asyncpg sends a number as a text")
    assert await db.fetchval(documented("SELECT presence.is_online(presence.presence_id($1::bigint))"), 42)
    assert await db.fetchval("SELECT presence.release_session($1, $2)", session, timedelta(seconds=3))
    await db.close()


def sqlalchemy_calls(db):
    value = lambda sql, **values: db.execute(text(sql), values).scalar_one()
    session_id = value("SELECT session_id FROM presence.start_session(user_id => :user_id)", user_id=uuid4())
    db.commit()
    refused(lambda: db.scalar(select(func.presence.heartbeat(str(session_id)))), "heartbeat(character varying)")
    db.rollback()
    documented("select(func.presence.heartbeat(session_id))")
    assert db.scalar(select(func.presence.heartbeat(session_id))) == "ok"
    assert value("SELECT presence.heartbeat(:session_id)", session_id=str(session_id)) == "ok"
    assert value(documented("SELECT presence.heartbeat(CAST(:session_id AS uuid))"), session_id=str(session_id)) == "ok"
    db.commit()


async def sqlalchemy_async():
    engine = create_async_engine("postgresql+asyncpg://")
    async with engine.connect() as db:
        await db.run_sync(sqlalchemy_calls)
    await engine.dispose()


def sqlalchemy_sync():
    with create_engine("postgresql+psycopg://").connect() as db:
        sqlalchemy_calls(db)


def pooled_psycopg():
    documented("prepare_threshold=None")
    connections = [psycopg.connect(autocommit=True, prepare_threshold=None) for _ in range(4)]
    for _ in range(10):
        for db in connections:
            session, = db.execute("SELECT session_id FROM presence.start_session(user_key => %s)", ("42",)).fetchone()
            assert db.execute("SELECT presence.heartbeat(%s)", (session,)).fetchone() == ("ok",)


async def pooled_asyncpg():
    documented("statement_cache_size=0")
    connections = [await asyncpg.connect(statement_cache_size=0) for _ in range(4)]
    for _ in range(10):
        for db in connections:
            session = await db.fetchval("SELECT session_id FROM presence.start_session(user_key => $1)", "42")
            assert await db.fetchval("SELECT presence.heartbeat($1)", session) == "ok"
    for db in connections:
        await db.close()


if __name__ == "__main__":
    {
        "pgbouncer": lambda: (pooled_psycopg(), asyncio.run(pooled_asyncpg())),
        "psycopg": psycopg3,
        "asyncpg": lambda: asyncio.run(asyncpg_calls()),
        "sqlalchemy": lambda: (sqlalchemy_sync(), asyncio.run(sqlalchemy_async())),
    }[sys.argv[1]]()
