"""Prints what the followers of clients/python tell: follow.py sync|async [schema]"""

import asyncio
import sys

from pg_presence import AsyncFollower, Follower


def options():
    def print_status(status, error):
        if status == "stale":
            print("stale", error, flush=True)
        elif status == "live":
            print("live", *sorted(str(user.user_id) for user in follower.online_users()), flush=True)

    return {"schema": sys.argv[2] if len(sys.argv) > 2 else "presence", "on_status": print_status}


def print_change(change):
    # Who is gone has no number.
    print("change", change.user.seq if change.user else 0, change.id, change.status, flush=True)


def follow():
    global follower
    with Follower(**options()) as follower:
        for change in follower:
            print_change(change)


async def follow_async():
    global follower
    async with AsyncFollower(**options()) as follower:
        async for change in follower:
            print_change(change)


follow() if sys.argv[1] == "sync" else asyncio.run(follow_async())
