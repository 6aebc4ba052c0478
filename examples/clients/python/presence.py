"""A client in Python:  pip install -r requirements.txt && python presence.py"""

import json
import os
import socket
import threading
import time

import psycopg
from psycopg.errors import SnapshotTooOld

TIMEOUT = 10  # seconds until a connection that was cut silently is given up
CONNECTION = {"autocommit": True, "connect_timeout": TIMEOUT}
CONNECTION |= {"keepalives_idle": TIMEOUT, "keepalives_interval": TIMEOUT, "keepalives_count": 3}


def query(db, sql, params=()):
    """Returns the rows of a query. Shuts the connection down if there is no answer in time: libpq has no such limit."""

    def shut_down():
        with socket.socket(fileno=os.dup(db.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(TIMEOUT, shut_down)
    timer.start()
    try:
        cursor = db.execute(sql, params)
        return cursor.fetchall() if cursor.description else []
    finally:
        timer.cancel()
        timer.join()


class Follower:
    """Reports everybody's status, then every change. Loses no change, even after a disconnect."""

    def __init__(self, on_status):
        self.on_status = on_status  # called with user_id and status; the follower stops when it returns True
        self.users, self.epoch, self.seq, self.is_stopped = {}, None, 0, False

    def run(self):
        while not self.is_stopped:
            try:
                with psycopg.connect(**CONNECTION) as db:
                    query(db, "LISTEN presence")
                    self.catch_up(db)
                    while not self.is_stopped:
                        self.listen(db)
            except psycopg.OperationalError as error:
                print(f"disconnected: {error}")
                time.sleep(1)

    def listen(self, db):
        """Waits for notifications. Catches up if they are incomplete, or none arrives in 30 seconds."""
        # Exhausts the generator: notifications left in it would be lost.
        complete = [self.apply(notify.payload) for notify in db.notifies(timeout=30, stop_after=1)]
        if not (complete and all(complete)) and not self.is_stopped:
            self.catch_up(db)

    def apply(self, payload):
        """Applies a notification. Returns False if changes before it or in it are missing and have to be read."""
        try:
            message = json.loads(payload)
            if message["epoch"] != self.epoch or message["prev"] > self.seq:
                return False
            seq = int(message["seq"])
            changes = [(int(change["seq"]), str(change["user_id"]), change["status"]) for change in message["changes"]]
        except Exception:
            return False  # anybody can NOTIFY, with any payload
        if seq >= 2**63 or any(change[0] > seq for change in changes):
            return False
        for change in changes:
            self.apply_change(*change)
        self.seq = max(self.seq, seq)
        return True

    def apply_change(self, seq, user_id, status):
        if user_id and seq > self.users.get(user_id, 0):
            self.users[user_id] = seq
            self.is_stopped = self.on_status(user_id, status) or self.is_stopped

    def catch_up(self, db):
        since = "SELECT seq, user_id::text, status::text FROM presence.changes_since(%s, %s)"
        try:
            while self.epoch:
                rows = query(db, since, (self.seq, self.epoch))
                if not rows:
                    break
                for row in rows:
                    self.apply_change(*row)
                self.seq = rows[-1][0]
        except SnapshotTooOld:
            self.epoch = None  # the position is too old, or of another epoch
        ((epoch, seq),) = query(db, "SELECT epoch, seq FROM presence.presence_cursor()")
        if epoch == self.epoch and seq >= self.seq:
            return
        # Start over. Also if the known seq is beyond the end of the feed, as after a forged notification: changes up to
        # it would be missed.
        rows = query(db, "SELECT seq, user_id::text, status::text FROM presence.user_presence")
        self.epoch, self.seq = epoch, seq
        self.users.clear()
        for row in rows:
            self.apply_change(*row)


def main():
    is_active, has_ended = threading.Event(), threading.Event()
    with psycopg.connect(**CONNECTION) as db:
        ((own_id,),) = query(db, "SELECT presence.presence_id('python')::text")

        def on_status(user_id, status):
            if user_id != own_id:
                return False
            print(f"status: {status}", flush=True)
            if status == "active":
                is_active.set()
            return status == "inactive" and has_ended.is_set()

        following = threading.Thread(target=Follower(on_status).run)
        following.start()

        start = "SELECT session_id, heartbeat_ms FROM presence.start_session(user_key => 'python')"
        ((session_id, heartbeat_ms),) = query(db, start)
        while True:
            print("heartbeat:", *query(db, "SELECT presence.heartbeat(%s)", (session_id,))[0])
            if is_active.wait(heartbeat_ms / 1000):
                break

        online = "SELECT key, presence.is_online(presence.presence_id(key)) FROM unnest(%s::text[]) key"
        for key, is_online in query(db, online, (["python", "nobody"],)):
            print(f"{key}: {'online' if is_online else 'offline'}")

        has_ended.set()
        query(db, "SELECT presence.end_session(%s)", (session_id,))
    following.join()


if __name__ == "__main__":
    main()
