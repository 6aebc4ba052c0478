//! What is declared of a user, and what is shown of one.
//!
//! A declaration is a small claim: a word, a text, or both, until it expires. Nothing remembers what was shown before:
//! what shows is computed from the declarations that are valid at the moment, so nothing has to be restored when one ends,
//! and none can get stuck.

use super::{status::Status, time::Micros};

/// The source whose word decides before that of every other: the user's own.
pub const MANUAL: &str = "manual";
/// The source of a text that the user sets apart from the own word.
pub const TEXT: &str = "text";

/// The longest name of a source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 63;
/// The longest text, in characters.
pub const MAX_TEXT_CHARACTERS: usize = 140;
/// The longest emoji, in bytes: a family with skin tones has about 40.
pub const MAX_EMOJI_BYTES: usize = 64;
/// The most declarations of one user.
pub const MAX_DECLARATIONS: usize = 16;

/// A word that is declared of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    Busy,
    Away,
    /// Nothing is declared, whatever other sources say.
    Available,
}

impl Word {
    /// Every word.
    const ALL: [Word; 3] = [Word::Busy, Word::Away, Word::Available];

    /// Returns the word as the table has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Word::Busy => "busy",
            Word::Away => "away",
            Word::Available => "available",
        }
    }

    /// Returns the word that the table has as this.
    pub fn from_label(label: &[u8]) -> Option<Word> {
        Word::ALL.into_iter().find(|word| word.as_str().as_bytes() == label)
    }

    /// Returns the word that a caller means: 'dnd', do not disturb, is what other systems call busy.
    pub fn parse(text: &[u8]) -> Option<Word> {
        match text {
            b"dnd" => Some(Word::Busy),
            _ => Word::from_label(text),
        }
    }

    /// Returns what the word makes of the status of a user who is online.
    const fn applied_to(self, by_sessions: Status) -> Status {
        match self {
            Word::Busy => Status::Busy,
            Word::Away => Status::Idle,
            Word::Available => by_sessions,
        }
    }
}

/// A row of `declared_statuses`. `T` is a text.
#[derive(Clone, Debug)]
pub struct Declaration<T> {
    pub source: Box<[u8]>,
    pub word: Option<Word>,
    pub text: Option<T>,
    pub emoji: Option<T>,
    pub set_at: Micros,
    /// `None`: it is valid until it is cleared.
    pub expires_at: Option<Micros>,
}

impl<T> Declaration<T> {
    /// Returns whether it is valid at `now`.
    pub fn is_valid(&self, now: Micros) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// What the declarations of one user amount to: the word that decides, and the text and emoji that show.
#[derive(Clone, Debug)]
pub struct Declared<T> {
    word: Option<(Rank, Word)>,
    details: Option<(Rank, Details<T>)>,
}

/// What shows of a user besides the status. At least one of the two is there.
#[derive(Clone, Debug)]
struct Details<T> {
    text: Option<T>,
    emoji: Option<T>,
}

/// Which of several declarations decides: the greatest. The source only keeps those of one moment in an order.
#[derive(Clone, Debug)]
struct Rank {
    is_manual: bool,
    set_at: Micros,
    source: Box<[u8]>,
    expires_at: Option<Micros>,
}

impl Rank {
    fn is_above(&self, other: &Rank) -> bool {
        (self.is_manual, self.set_at, &self.source) > (other.is_manual, other.set_at, &other.source)
    }
}

impl<T> Default for Declared<T> {
    fn default() -> Declared<T> {
        Declared {
            word: None,
            details: None,
        }
    }
}

impl<T> Declared<T> {
    /// Adds a declaration, in whatever order, if it is valid at `now`.
    pub fn add(&mut self, declaration: Declaration<T>, now: Micros) {
        if !declaration.is_valid(now) {
            return;
        }
        let Declaration {
            source,
            word,
            text,
            emoji,
            set_at,
            expires_at,
        } = declaration;
        let has_details = text.is_some() || emoji.is_some();
        if let Some(word) = word {
            let rank = Rank {
                is_manual: *source == *MANUAL.as_bytes(),
                set_at,
                source: source.clone(),
                expires_at,
            };
            if self.word.as_ref().is_none_or(|(first, _)| rank.is_above(first)) {
                self.word = Some((rank, word));
            }
        }
        if has_details {
            // The text that was set last shows, whoever has set it.
            let rank = Rank {
                is_manual: false,
                set_at,
                source,
                expires_at,
            };
            if self.details.as_ref().is_none_or(|(first, _)| rank.is_above(first)) {
                self.details = Some((rank, Details { text, emoji }));
            }
        }
    }
}

/// What is shown of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown<T> {
    pub status: Status,
    pub text: Option<T>,
    pub emoji: Option<T>,
    /// When the first of what is declared and shows ends; `None` where nothing does by itself.
    pub expires_at: Option<Micros>,
}

impl<T> Shown<T> {
    /// Returns whether there is a text or emoji to read.
    pub fn has_details(&self) -> bool {
        self.text.is_some() || self.emoji.is_some()
    }
}

/// Returns what is shown of a user whose sessions make it `by_sessions`, as far as they are [visible](super::hiding::Visible).
/// Whatever is shown to anybody comes from here.
///
/// No declaration makes an absent user present. A text shows all the same, as in "back on Monday".
pub fn shown<T>(by_sessions: Status, declared: Declared<T>) -> Shown<T> {
    let word = declared.word.filter(|_| by_sessions.is_online());
    let status = word
        .as_ref()
        .map_or(by_sessions, |(_, word)| word.applied_to(by_sessions));
    let word_expires_at = word.and_then(|(rank, _)| rank.expires_at);
    let (text, emoji, details_expire_at) = match declared.details {
        Some((rank, details)) => (details.text, details.emoji, rank.expires_at),
        None => (None, None, None),
    };
    Shown {
        status,
        text,
        emoji,
        expires_at: [word_expires_at, details_expire_at].into_iter().flatten().min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Micros = 1_000;

    fn declaration(source: &str, word: Option<Word>, set_at: Micros) -> Declaration<&'static str> {
        Declaration {
            source: source.as_bytes().into(),
            word,
            text: None,
            emoji: None,
            set_at,
            expires_at: None,
        }
    }

    fn shown_of(by_sessions: Status, rows: &[Declaration<&'static str>]) -> Shown<&'static str> {
        let mut declared = Declared::default();
        rows.iter().for_each(|row| declared.add(row.clone(), NOW));
        shown(by_sessions, declared)
    }

    #[test]
    fn the_truth_table() {
        use Status::{Active, Busy, Idle, Inactive};
        // By what the sessions make of the user: what shows with nothing declared, available, busy, away.
        let table = [
            (Inactive, [Inactive, Inactive, Inactive, Inactive]),
            (Idle, [Idle, Idle, Busy, Idle]),
            (Active, [Active, Active, Busy, Idle]),
        ];
        let words = [None, Some(Word::Available), Some(Word::Busy), Some(Word::Away)];
        for (by_sessions, expected) in table {
            for (word, expected) in words.into_iter().zip(expected) {
                for source in [MANUAL, TEXT, "calendar"] {
                    let found = shown_of(by_sessions, &[declaration(source, word, 1)]);
                    assert_eq!(found.status, expected, "{by_sessions:?}, {word:?} by {source}");
                    assert_eq!(found.status.is_online(), by_sessions.is_online());
                }
            }
        }
    }

    #[test]
    fn the_users_own_word_decides_before_all_others_and_among_these_the_last() {
        let rows = [
            declaration("calendar", Some(Word::Busy), 9),
            declaration("telephone", Some(Word::Away), 8),
        ];
        assert_eq!(shown_of(Status::Active, &rows).status, Status::Busy);
        let own = [&rows[..], &[declaration(MANUAL, Some(Word::Available), 1)]].concat();
        assert_eq!(shown_of(Status::Active, &own).status, Status::Active);
        // Without a word it decides nothing.
        let text = Declaration {
            text: Some("lunch"),
            ..declaration(MANUAL, None, 99)
        };
        let found = shown_of(Status::Active, &[&rows[..], &[text]].concat());
        assert_eq!((found.status, found.text), (Status::Busy, Some("lunch")));
    }

    #[test]
    fn the_text_that_was_set_last_shows_with_its_emoji_also_of_an_absent_user() {
        let rows = [
            Declaration {
                text: Some("lunch"),
                emoji: Some("x"),
                ..declaration("calendar", None, 5)
            },
            Declaration {
                text: Some("back on Monday"),
                ..declaration(MANUAL, Some(Word::Busy), 4)
            },
        ];
        for by_sessions in [Status::Active, Status::Inactive] {
            let found = shown_of(by_sessions, &rows);
            assert_eq!((found.text, found.emoji), (Some("lunch"), Some("x")));
        }
        let found = shown_of(Status::Inactive, &rows[1..]);
        assert_eq!(
            (found.status, found.text, found.emoji),
            (Status::Inactive, Some("back on Monday"), None)
        );
    }

    #[test]
    fn a_declaration_is_valid_until_it_expires() {
        for (expires_at, status) in [
            (NOW - 1, Status::Active),
            (NOW, Status::Active),
            (NOW + 1, Status::Busy),
        ] {
            let row = Declaration {
                expires_at: Some(expires_at),
                ..declaration(MANUAL, Some(Word::Busy), 1)
            };
            let found = shown_of(Status::Active, &[row]);
            assert_eq!(found.status, status);
            assert_eq!(found.expires_at, (status == Status::Busy).then_some(expires_at));
        }
    }

    #[test]
    fn what_ends_first_of_what_shows_is_told() {
        let busy = Declaration {
            expires_at: Some(NOW + 5),
            ..declaration(MANUAL, Some(Word::Busy), 1)
        };
        let text = Declaration {
            text: Some("lunch"),
            expires_at: Some(NOW + 9),
            ..declaration("calendar", None, 2)
        };
        let both = [busy, text];
        assert_eq!(shown_of(Status::Active, &both).expires_at, Some(NOW + 5));
        // The word does not show of an absent user.
        assert_eq!(shown_of(Status::Inactive, &both).expires_at, Some(NOW + 9));
        assert_eq!(shown_of(Status::Inactive, &both[..1]).expires_at, None);
    }

    #[test]
    fn every_word_reads_back_and_dnd_means_busy() {
        for word in Word::ALL {
            assert_eq!(Word::from_label(word.as_str().as_bytes()), Some(word));
            assert_eq!(Word::parse(word.as_str().as_bytes()), Some(word));
        }
        assert_eq!(Word::parse(b"dnd"), Some(Word::Busy));
        assert_eq!(Word::from_label(b"dnd"), None);
        for unknown in [&b"invisible"[..], b"Busy", b"", b"idle"] {
            assert_eq!(Word::parse(unknown), None);
        }
    }

    /// What shows, by the sentences of the documentation, one after the other.
    fn by_the_book(by_sessions: Status, rows: &[Declaration<&'static str>]) -> Shown<&'static str> {
        let mut valid: Vec<_> = rows
            .iter()
            .filter(|row| row.expires_at.is_none_or(|at| at > NOW))
            .collect();
        valid.sort_by_key(|row| (row.set_at, &row.source));
        let manual = valid.iter().find(|row| *row.source == *b"manual" && row.word.is_some());
        let decides = manual.or(valid.iter().rfind(|row| row.word.is_some()));
        let speaks = valid.iter().rfind(|row| row.text.is_some() || row.emoji.is_some());
        let (status, first_end) = match (by_sessions, decides.and_then(|row| row.word)) {
            (Status::Inactive, _) => (Status::Inactive, None),
            (_, Some(Word::Busy)) => (Status::Busy, decides),
            (_, Some(Word::Away)) => (Status::Idle, decides),
            (by_sessions, _) => (by_sessions, decides),
        };
        Shown {
            status,
            text: speaks.and_then(|row| row.text),
            emoji: speaks.and_then(|row| row.emoji),
            expires_at: [first_end, speaks]
                .into_iter()
                .flatten()
                .filter_map(|row| row.expires_at)
                .min(),
        }
    }

    proptest! {
        #[test]
        fn what_shows_is_what_the_documentation_says_in_whatever_order_rows_are_read(
            by_sessions in prop::sample::select(vec![Status::Inactive, Status::Idle, Status::Active]),
            rows in prop::collection::hash_map(
                prop::sample::select(vec![MANUAL, TEXT, "calendar", "a", "zoom"]),
                (
                    prop::option::of(prop::sample::select(Word::ALL.to_vec())),
                    prop::option::of(prop::sample::select(vec!["lunch", "away"])),
                    prop::option::of(Just("x")),
                    0..4_i64,
                    prop::option::of(NOW - 2..NOW + 3),
                ),
                0..6,
            ),
            seed in any::<u64>(),
        ) {
            let mut rows: Vec<_> = rows
                .into_iter()
                .map(|(source, (word, text, emoji, set_at, expires_at))| Declaration {
                    source: source.as_bytes().into(), word, text, emoji, set_at, expires_at,
                })
                .collect();
            let expected = by_the_book(by_sessions, &rows);
            prop_assert_eq!(shown_of(by_sessions, &rows), expected.clone());
            let middle = seed as usize % (rows.len() + 1);
            rows.rotate_left(middle);
            rows.reverse();
            prop_assert_eq!(shown_of(by_sessions, &rows), expected.clone());
            prop_assert_eq!(expected.status.is_online(), by_sessions.is_online());
        }
    }
}
