"""Promises of clients/python that need a server: promises.py NAME"""

import asyncio
import sys
import threading
from datetime import datetime, timezone
from uuid import uuid4

import pg_presence
import psycopg
from pg_presence import AsyncFollower, Follower, PresenceError
from psycopg.rows import dict_row


def start(db, user_id):
    query = "SELECT session_id FROM presence.start_session(user_id => %s)"
    return db.execute(query, (user_id,)).fetchone()[0]


def is_the_version_of_the_extension(db):
    query = "SELECT extversion FROM pg_extension WHERE extname = 'pg_presence'"
    assert db.execute(query).fetchone() == (pg_presence.__version__,)


def knows_who_is_there(db):
    user, before = uuid4(), datetime.now(timezone.utc)
    with Follower() as follower:
        assert follower.status == "connecting"
        session = start(db, user)
        change = next(change for change in follower if change.id == user)
        assert (change.status, change.is_online, change.previous) == ("active", True, None)
        assert (change.user.user_key, change.user.changed_at.tzinfo) == (None, timezone.utc)
        assert follower.status_of(user) == follower.status_of(str(user)) == "active"
        assert change.user in follower.online_users()
        assert follower.users[user] == change.user
        db.execute("SELECT presence.end_session(%s)", (session,))
        change = next(change for change in follower if change.id == user)
        assert (change.status, change.previous.status) == ("inactive", "active")
        assert follower.status_of(user) == follower.status_of(uuid4()) == "inactive"
        assert follower.online_users() == []
        assert follower.status == "live" and follower.updated_at >= before and follower.error is None
    assert list(follower) == []


def tells_the_users_own_id(db):
    start = "SELECT FROM presence.start_session(user_key => %s)"
    db.execute(start, ("42",))
    with Follower(interval=3600) as follower:
        # This one is read, the other notified.
        assert next(follower).user.user_key == "42"
        db.execute(start, ("43",))
        assert next(follower).user.user_key == "43"


def goes_on_after_a_break(db):
    with Follower() as follower:
        users = [uuid4() for _ in range(3)]
        sessions = [start(db, user) for user in users]
        found = []
        while len(found) < 3:
            for change in follower:
                found.append(change.id)
                break
        assert sorted(found) == sorted(users), sessions


def closes_while_another_thread_waits(db):
    live, ended = threading.Event(), threading.Event()
    # It would not wake up by itself.
    follower = Follower(on_status=lambda status, error: live.set(), interval=3600)

    def follow():
        assert list(follower) == []
        ended.set()

    threading.Thread(target=follow).start()
    assert live.wait(60)
    follower.close()
    assert ended.wait(60)
    assert_no_connection(db)


def closes_when_the_block_ends(db):
    start(db, uuid4())
    with Follower() as follower:
        next(follower)
    assert_no_connection(db)


def connections(db, name):
    # The worker has the name of the extension, too.
    query = """SELECT count(*) FROM pg_stat_activity
               WHERE backend_type = 'client backend' AND application_name = %s AND datname = current_database()"""
    return db.execute(query, (name,)).fetchone()[0]


def assert_no_connection(db):
    for _ in range(600):
        if connections(db, "pg_presence") == 0:
            return
        db.execute("SELECT pg_sleep(0.1)")
    raise AssertionError("a connection is left")


def connects_as_it_is_told(db):
    # What it gets is as the application likes it.
    def connect():
        options = "-c DateStyle=German -c TimeZone=Asia/Tokyo"
        return psycopg.connect(application_name="mine", row_factory=dict_row, options=options)

    users = [uuid4(), uuid4()]
    with Follower(connect=connect, interval=3600) as follower:
        # One is read, the other notified.
        for user in users:
            start(db, user)
            assert next(follower).id == user
        assert connections(db, "mine") == 1


def says_what_reconnecting_does_not_mend(db):
    follower = Follower(schema="nowhere")
    try:
        next(follower)
    except PresenceError as error:
        assert 'is the extension installed in this database, and in the schema "nowhere"?' in str(error), error
        assert isinstance(error.__cause__, psycopg.Error)
    else:
        raise AssertionError("it follows nothing")
    assert list(follower) == []
    assert_no_connection(db)
    stranger = f"stranger_{uuid4().hex}"
    db.execute(f"CREATE ROLE {stranger} LOGIN; GRANT USAGE ON SCHEMA presence TO {stranger}")
    try:
        next(Follower(f"user={stranger}"))
    except PresenceError as error:
        assert 'SELECT "presence".grant_reader' in str(error), error
    else:
        raise AssertionError("a stranger follows")


async def loses_nothing_to_cancellation(db):
    async with AsyncFollower() as follower:
        for delay in (0, 0.001, 0.01, 0.05, 0.2):
            for _ in range(10):
                user = uuid4()
                start(db, user)
                found = None
                while found is None:
                    try:
                        found = await asyncio.wait_for(anext(follower), delay)
                    except asyncio.TimeoutError:
                        delay = delay * 1.1 + 0.0001
                assert found.id == user
        assert follower.status_of(user) == "active"
    assert [change async for change in follower] == []
    assert_no_connection(db)


async def closes_while_another_task_waits(db):
    live = asyncio.Event()
    follower = AsyncFollower(on_status=lambda status, error: live.set(), interval=3600)

    async def follow():
        return [change async for change in follower]

    following = asyncio.create_task(follow())
    await asyncio.wait_for(live.wait(), 60)
    await follower.close()
    assert await asyncio.wait_for(following, 60) == []
    assert_no_connection(db)


async def is_cancelled_while_it_waits(db):
    live = asyncio.Event()

    async def follow():
        async with AsyncFollower(on_status=lambda status, error: live.set(), interval=3600) as follower:
            async for _ in follower:
                pass

    following = asyncio.create_task(follow())
    await asyncio.wait_for(live.wait(), 60)
    following.cancel()
    await asyncio.wait([following], timeout=60)
    assert following.cancelled()
    assert_no_connection(db)


promise = globals()[sys.argv[1]]
with psycopg.connect(autocommit=True) as connection:
    if asyncio.iscoroutinefunction(promise):
        asyncio.run(promise(connection))
    else:
        promise(connection)
