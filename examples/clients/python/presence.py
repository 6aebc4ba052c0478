"""A client in Python, with the package clients/python.

To run it: pip install ../../../clients/python -r requirements.txt && python presence.py
"""

import logging
import sys
import threading

import psycopg
from pg_presence import Follower


def print_status(status, error):
    if status == "stale":
        logging.info("disconnected: %s", error)


def main():
    is_active, has_ended = threading.Event(), threading.Event()
    with psycopg.connect(autocommit=True) as db:
        own_id = db.execute("SELECT presence.presence_id('python')").fetchone()[0]

        def follow():
            with Follower(on_status=print_status) as follower:
                for change in follower:
                    if change.id == own_id:
                        logging.info("status: %s", change.status)
                        if change.is_online:
                            is_active.set()
                        elif has_ended.is_set():
                            break

        following = threading.Thread(target=follow)
        following.start()

        start = "SELECT session_id, heartbeat_ms FROM presence.start_session(user_key => 'python')"
        session_id, heartbeat_ms = db.execute(start).fetchone()
        while True:
            answer = db.execute("SELECT presence.heartbeat(%s)", (session_id,)).fetchone()[0]
            logging.info("heartbeat: %s", answer)
            if is_active.wait(heartbeat_ms / 1000):
                break

        online = "SELECT key, presence.is_online(presence.presence_id(key)) FROM unnest(%s::text[]) key"
        for key, is_online in db.execute(online, (["python", "nobody"],)):
            logging.info("%s: %s", key, "online" if is_online else "offline")

        has_ended.set()
        db.execute("SELECT presence.end_session(%s)", (session_id,))
    following.join()


if __name__ == "__main__":
    # Whole lines, though two threads write them.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    main()
