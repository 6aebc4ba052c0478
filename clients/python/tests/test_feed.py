"""The core of the followers, without a server: python -m unittest discover tests"""

import json
import unittest
from uuid import UUID

from pg_presence import PresenceError
from pg_presence._feed import Connect, Feed, Lost, Pause, Query, Step, Tell, TooOld, Wait

ANA, BEN, CLEO = (UUID(int=number) for number in (1, 2, 3))
AT = "2026-11-23T15:00:00.123456Z"


def row(seq, user_id, status, at=AT):
    return (seq, user_id and str(user_id), None, status, at, at)


def notification(prev, seq, *changes, epoch="e1"):
    found = [
        {"seq": seq, "user_id": str(user_id), "status": status, "at": AT, "last_seen": AT}
        for seq, user_id, status in changes
    ]
    return json.dumps({"v": 1, "epoch": epoch, "prev": prev, "seq": seq, "changes": found})


class Follow:
    """Drives a feed with a database that is written down."""

    def __init__(self, schema="presence"):
        self.statuses = []
        self.feed = Feed(schema, 30, lambda status, error: self.statuses.append((status, error)))
        self.steps = self.feed.follow()
        self.step: Step = next(self.steps)
        self.told = []
        self._tell()

    def _tell(self):
        while isinstance(self.step, Tell):
            self.told += [(change.id, change.status) for change in self.step.changes]
            self.step = self.steps.send(None)

    def answer(self, kind, answer=None):
        assert isinstance(self.step, kind), self.step
        self.step = self.steps.send(answer)
        self._tell()

    def query(self, part, rows):
        assert isinstance(self.step, Query) and part in self.step.sql, self.step
        self.answer(Query, rows)

    def fail(self, failure):
        self.step = self.steps.throw(failure)
        self._tell()

    def lose(self):
        try:
            raise Lost from OSError("cut")
        except Lost as lost:
            self.fail(lost)

    def listen(self):
        self.answer(Connect)
        self.query("presence.channel", [("presence",)])
        self.query('LISTEN "presence"', [])

    def start(self, *rows, epoch="e1", seq=10):
        self.listen()
        self.query("presence_cursor", [(epoch, seq)])
        self.query("user_presence", list(rows))
        return self

    def take(self):
        told, self.told = self.told, []
        return told


class FeedTest(unittest.TestCase):
    def test_everybody_comes_first_oldest_change_first(self):
        follow = Follow().start(row(10, BEN, "active"), row(3, ANA, "inactive"))
        self.assertEqual(follow.take(), [(ANA, "inactive"), (BEN, "active")])
        self.assertEqual(follow.statuses, [("live", None)])
        self.assertIsInstance(follow.step, Wait)

    def test_it_is_live_only_once_everything_was_taken(self):
        follow = Follow()
        follow.listen()
        follow.query("presence_cursor", [("e1", 10)])
        self.assertIsInstance(follow.step, Query)
        tell = follow.steps.send([row(10, ANA, "active")])
        self.assertIsInstance(tell, Tell)
        self.assertEqual(follow.feed.status, "connecting")
        follow.steps.send(None)
        self.assertEqual(follow.feed.status, "live")

    def test_a_notification_is_applied_once(self):
        follow = Follow().start(row(10, ANA, "active"))
        follow.take()
        message = notification(10, 12, (11, BEN, "active"), (12, ANA, "inactive"))
        follow.answer(Wait, [message])
        follow.answer(Wait, [message])
        self.assertEqual(follow.take(), [(BEN, "active"), (ANA, "inactive")])
        self.assertEqual(follow.feed.seq, 12)

    def test_who_is_idle_is_online(self):
        follow = Follow().start(row(10, ANA, "idle"))
        follow.answer(Wait, [notification(10, 11, (11, BEN, "idle"))])
        self.assertEqual(follow.take(), [(ANA, "idle"), (BEN, "idle")])
        self.assertEqual([user.is_online for user in follow.feed.users.values()], [True, True])

    def test_a_change_that_everybody_was_read_with_is_not_told_again(self):
        # It was committed after the cursor had been read.
        follow = Follow().start(row(11, ANA, "active"))
        follow.take()
        follow.answer(Wait, [notification(10, 11, (11, ANA, "active"))])
        self.assertEqual(follow.take(), [])
        self.assertEqual(follow.feed.seq, 11)

    def test_what_is_missing_before_a_notification_is_read(self):
        follow = Follow().start()
        follow.answer(Wait, [notification(12, 13, (13, CLEO, "active"))])
        self.assertEqual(follow.step.params, (10, "e1"))
        follow.query("changes_since", [row(11, ANA, "active"), row(12, None, "active"), row(13, CLEO, "active")])
        self.assertEqual(follow.step.params, (13, "e1"))
        follow.query("changes_since", [])
        follow.query("presence_cursor", [("e1", 13)])
        self.assertEqual(follow.take(), [(ANA, "active"), (CLEO, "active")])

    def test_silence_is_not_trusted(self):
        follow = Follow().start()
        follow.answer(Wait, [])
        follow.query("changes_since", [])
        follow.query("presence_cursor", [("e1", 10)])
        self.assertIsInstance(follow.step, Wait)

    def test_payloads_of_anybody_are_only_hints_to_read(self):
        message = json.loads(notification(10, 11, (11, ANA, "active")))
        change = message["changes"][0]
        forged = ["", "[]", "null", "{}", "[" * 7000, '{"v":1,"epoch":"e1","prev":10,"seq":9043}']
        wrong = [
            {"prev": "10"},
            {"prev": float("nan")},
            {"seq": "11"},
            {"seq": 2**63},
            {"seq": 10},
            {"seq": 11.5},
            {"epoch": "e0"},
        ]
        wrong += [{"changes": 1}, {"changes": [1]}]
        forged += [json.dumps(message | fields) for fields in wrong]
        wrong = [{"seq": True}, {"user_id": None}, {"user_id": "x"}, {"status": "away"}, {"at": None}, {"at": "today"}]
        forged += [json.dumps(message | {"changes": [change | fields]}) for fields in wrong]
        for payload in forged:
            with self.subTest(payload[:200]):
                follow = Follow().start()
                follow.answer(Wait, [payload])
                follow.query("changes_since", [])
                follow.query("presence_cursor", [("e1", 10)])
                self.assertEqual((follow.take(), follow.feed.users), ([], {}))

    def test_a_seq_beyond_the_end_of_the_feed_starts_over(self):
        follow = Follow().start(row(10, ANA, "active"))
        follow.take()
        follow.answer(Wait, [notification(10, 900, (900, ANA, "inactive"))])
        follow.answer(Wait, [])
        follow.query("changes_since", [])
        follow.query("presence_cursor", [("e1", 10)])
        follow.query("user_presence", [row(10, ANA, "active")])
        self.assertEqual(follow.take(), [(ANA, "inactive"), (ANA, "active")])
        self.assertEqual(follow.feed.seq, 10)

    def test_a_new_epoch_tells_what_is_different(self):
        later = AT.replace("15:", "16:")
        follow = Follow().start(row(8, ANA, "active"), row(9, BEN, "active"), row(10, CLEO, "inactive"))
        follow.take()
        follow.answer(Wait, [notification(0, 1, (1, ANA, "inactive"), epoch="e2")])
        follow.fail(TooOld())
        follow.query("presence_cursor", [("e2", 3)])
        follow.query("user_presence", [row(1, ANA, "active"), row(3, CLEO, "active", later)])
        self.assertEqual(follow.take(), [(CLEO, "active"), (BEN, "inactive")])
        self.assertNotIn(BEN, follow.feed.users)
        # The numbers are those of the new epoch.
        follow.answer(Wait, [notification(3, 4, (4, ANA, "inactive"), epoch="e2")])
        self.assertEqual(follow.take(), [(ANA, "inactive")])

    def test_an_epoch_that_is_renewed_while_the_feed_is_read_is_noticed(self):
        follow = Follow().start(row(10, ANA, "active"))
        follow.take()
        follow.answer(Wait, [])
        follow.query("changes_since", [])
        follow.query("presence_cursor", [("e2", 10)])
        follow.query("user_presence", [row(10, ANA, "active"), row(9, BEN, "active")])
        self.assertEqual(follow.take(), [(BEN, "active")])
        follow.answer(Wait, [notification(10, 11, (11, ANA, "inactive"), epoch="e2")])
        self.assertEqual(follow.take(), [(ANA, "inactive")])

    def test_where_the_feed_does_not_reach_back_everybody_is_read(self):
        follow = Follow().start(row(10, ANA, "active"))
        follow.take()
        follow.answer(Wait, [])
        follow.fail(TooOld())
        follow.query("presence_cursor", [("e1", 5000)])
        later = AT.replace("15:", "16:")
        follow.query("user_presence", [row(4000, ANA, "inactive", later)])
        self.assertEqual(follow.take(), [(ANA, "inactive")])
        self.assertEqual(follow.feed.seq, 5000)

    def test_after_a_disconnect_it_goes_on_where_it_was(self):
        follow = Follow().start(row(10, ANA, "active"))
        follow.take()
        follow.lose()
        self.assertIsInstance(follow.step, Pause)
        status, error = follow.statuses[-1]
        self.assertEqual((status, str(error)), ("stale", "cut"))
        follow.answer(Pause)
        follow.listen()
        follow.query("changes_since", [row(11, ANA, "inactive")])
        # Lost again in the middle: what was told is not told again.
        follow.lose()
        follow.answer(Pause)
        follow.listen()
        self.assertEqual(follow.step.params, (11, "e1"))
        follow.query("changes_since", [row(12, ANA, "active")])
        follow.query("changes_since", [])
        follow.query("presence_cursor", [("e1", 12)])
        self.assertEqual(follow.take(), [(ANA, "inactive"), (ANA, "active")])
        self.assertEqual([status for status, _ in follow.statuses], ["live", "stale", "live"])

    def test_pauses_grow_to_a_limit_and_shrink_once_it_works(self):
        follow = Follow()
        pauses = []
        for _ in range(9):
            follow.lose()
            pauses.append(follow.step.seconds)
            follow.answer(Pause)
        self.assertLessEqual(pauses[0], 0.25)
        self.assertTrue(all(3.75 <= pause <= 6.25 for pause in pauses[5:]), pauses)
        follow.start()
        follow.answer(Wait, [notification(10, 10)])
        follow.lose()
        self.assertLessEqual(follow.step.seconds, 0.25)

    def test_names_are_quoted(self):
        follow = Follow('a"b%')
        follow.answer(Connect)
        follow.query("presence.channel", [('c"d',)])
        follow.query('LISTEN "c""d"', [])
        follow.query('FROM "a""b%".presence_cursor()', [("e1", 10)])
        follow.query('FROM "a""b%".user_presence', [])
        follow.answer(Wait, [])
        # This one has parameters.
        follow.query('FROM "a""b%%".changes_since(%s, %s)', [])

    def test_a_server_without_the_extension_is_named(self):
        follow = Follow()
        follow.answer(Connect)
        with self.assertRaisesRegex(PresenceError, "shared_preload_libraries"):
            follow.query("presence.channel", [(None,)])


if __name__ == "__main__":
    unittest.main()
