"""A client in Python:  pip install -r requirements.txt && python presence.py"""

import json
import threading
import time

import psycopg
from psycopg.errors import SnapshotTooOld


class Follower:
    """Tells of everybody, then of every change, and loses none whatever happens to the connection."""

    def __init__(self, told):
        self.told = told  # called with user_id and status; the follower ends when it returns True
        self.users, self.epoch, self.seq, self.is_over = {}, None, 0, False

    def run(self):
        while not self.is_over:
            try:
                with psycopg.connect(autocommit=True) as db:
                    db.execute("LISTEN presence")
                    self.catch_up(db)
                    while not self.is_over:
                        self.listen(db)
            except psycopg.OperationalError as error:
                print(f"disconnected: {error}")
                time.sleep(1)

    def listen(self, db):
        """For half a minute; then, and where a message says too little, it asks."""
        # All that came together: those left in there are never seen again.
        was_enough = [self.apply(notify.payload) for notify in db.notifies(timeout=30, stop_after=1)]
        if not (was_enough and all(was_enough)) and not self.is_over:
            self.catch_up(db)

    def apply(self, payload):
        """False where something before the message, or in it, has to be read."""
        try:
            message = json.loads(payload)
            if message["epoch"] != self.epoch or message["prev"] > self.seq:
                return False
            seq = int(message["seq"])
            changes = [(int(change["seq"]), str(change["user_id"]), change["status"]) for change in message["changes"]]
        except Exception:
            return False  # anybody may notify, and anything
        if seq >= 2**63 or any(change[0] > seq for change in changes):
            return False
        for change in changes:
            self.take(*change)
        self.seq = max(self.seq, seq)
        return True

    def take(self, seq, user_id, status):
        if user_id and seq > self.users.get(user_id, 0):
            self.users[user_id] = seq
            self.is_over = self.told(user_id, status) or self.is_over

    def catch_up(self, db):
        since = "SELECT seq, user_id::text, status::text FROM presence.changes_since(%s, %s)"
        try:
            while self.epoch:
                rows = db.execute(since, (self.seq, self.epoch)).fetchall()
                if not rows:
                    break
                for row in rows:
                    self.take(*row)
                self.seq = rows[-1][0]
        except SnapshotTooOld:
            self.epoch = None  # too long ago, or another line of numbers
        epoch, seq = db.execute("SELECT epoch, seq FROM presence.presence_cursor()").fetchone()
        if epoch == self.epoch and seq >= self.seq:
            return
        # Start over, also where somebody has told of a number that there is not yet: what comes before would be missed.
        self.epoch, self.seq = epoch, seq
        self.users.clear()
        for row in db.execute("SELECT seq, user_id::text, status::text FROM presence.user_presence"):
            self.take(*row)


def visit():
    is_active, has_left = threading.Event(), threading.Event()
    with psycopg.connect(autocommit=True) as db:
        (me,) = db.execute("SELECT presence.presence_id('python')::text").fetchone()

        def told(user_id, status):
            if user_id != me:
                return False
            print(f"told: {status}", flush=True)
            if status == "active":
                is_active.set()
            return status == "inactive" and has_left.is_set()

        following = threading.Thread(target=Follower(told).run)
        following.start()

        start = "SELECT session_id, heartbeat_ms FROM presence.start_session(user_key => 'python')"
        session, heartbeat_ms = db.execute(start).fetchone()
        while True:
            print("heartbeat:", *db.execute("SELECT presence.heartbeat(%s)", (session,)).fetchone())
            if is_active.wait(heartbeat_ms / 1000):
                break

        of = "SELECT key, presence.is_online(presence.presence_id(key)) FROM unnest(%s::text[]) key"
        for key, online in db.execute(of, (["python", "nobody"],)):
            print(f"{key}: {'online' if online else 'offline'}")

        has_left.set()
        db.execute("SELECT presence.end_session(%s)", (session,))
    following.join()


if __name__ == "__main__":
    visit()
