//! Passwords against their bcrypt hashes.
//!
//! A check costs 50 ms of CPU and more, by design. It is made once per password on a thread of its own, one at a time; what came
//! out is remembered under a keyed hash, so that the password itself is not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bcrypt::HashParts;
use ring::hmac;
use tokio::{sync::Mutex as Turn, task::spawn_blocking};
use tracing::error;

/// How many right and how many wrong passwords are remembered. They are kept apart, so that guesses push no right one out.
const REMEMBERED: usize = 100;

/// Somebody's name with the hash of a password that nobody has: who asks under a name that there is not must not be told so
/// by a faster answer.
const NOBODY: &str = "$2y$10$J2nO4uPqY5vK1sW7bXcZ9eAaBbCcDdEeFfGgHhIiJjKkLlMmNnOoG";

/// Who was found right or wrong before.
pub struct Verified {
    key: hmac::Key,
    remembered: Mutex<Remembered>,
    turn: Arc<Turn<()>>,
}

type Print = [u8; 32];

#[derive(Default)]
struct Remembered {
    right: VecDeque<Print>,
    wrong: VecDeque<Print>,
}

impl Verified {
    /// Nobody was found right yet.
    pub fn new() -> Self {
        let mut secret = [0; 32];
        // Fewer than 256 bytes come at once and always. Zeroes would only make the prints comparable between runs.
        let _ = rustix::rand::getrandom(&mut secret[..], rustix::rand::GetRandomFlags::empty());
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            remembered: Mutex::default(),
            turn: Arc::default(),
        }
    }

    /// Whether `password` is the one of `user`.
    pub async fn is(&self, users: &BTreeMap<String, String>, user: &[u8], password: &[u8]) -> bool {
        let known = std::str::from_utf8(user).ok().and_then(|user| users.get(user));
        let hash = known.map_or_else(|| nobody(users), Clone::clone);
        let print = self.print(&[user, hash.as_bytes(), password]);
        if let Some(found) = self.remembered().find(&print) {
            return found;
        }
        let password = password.to_owned();
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // The turn goes along: a client that goes away meanwhile does not let the next check run beside this one.
        let verified = spawn_blocking(move || {
            let _turn = turn;
            bcrypt::verify(password, &hash)
        });
        let matches = match verified.await {
            Ok(Ok(matches)) => matches,
            // A hash that is none matches nothing; it was said when the file was read.
            Ok(Err(_)) => false,
            Err(error) => {
                error!(%error, "a password could not be checked");
                return false;
            }
        };
        let right = matches && known.is_some();
        self.remembered().keep(print, right);
        right
    }

    /// The parts with their lengths, so that no two lists of parts are alike.
    fn print(&self, parts: &[&[u8]]) -> Print {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut print = Print::default();
        print.copy_from_slice(context.sign().as_ref());
        print
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Verified {
    fn default() -> Self {
        Self::new()
    }
}

impl Remembered {
    fn find(&self, print: &Print) -> Option<bool> {
        if self.right.contains(print) {
            return Some(true);
        }
        self.wrong.contains(print).then_some(false)
    }

    fn keep(&mut self, print: Print, right: bool) {
        let prints = if right { &mut self.right } else { &mut self.wrong };
        if prints.len() == REMEMBERED {
            prints.pop_front();
        }
        prints.push_back(print);
    }
}

/// A hash that costs as much as the dearest of `users`.
fn nobody(users: &BTreeMap<String, String>) -> String {
    let costs = users.values().filter_map(|hash| hash.parse::<HashParts>().ok());
    match costs.map(|parts| parts.get_cost()).max() {
        Some(cost) => format!("$2y${cost:02}{}", &NOBODY[6..]),
        None => NOBODY.to_owned(),
    }
}

/// Whether a text is a hash that passwords can be compared with.
pub fn is_hash(text: &str) -> bool {
    text.parse::<HashParts>().is_ok_and(|parts| (4..=31).contains(&parts.get_cost()))
}

/// User and password of `Basic YWRhOnNlY3JldA==`.
pub(super) fn basic(header: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, credentials) = header.split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let mut user = STANDARD.decode(credentials).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon).split_off(1);
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// "secret" at the least cost, as three programs write it.
    fn users() -> BTreeMap<String, String> {
        let hash = bcrypt::hash("secret", 5).expect("a hash");
        let of = |version| format!("{version}{}", &hash[3..]);
        [("ada", "$2y"), ("bob", "$2a"), ("eve", "$2b")]
            .map(|(user, version)| (user.into(), of(version)))
            .into()
    }

    #[tokio::test]
    async fn only_the_right_password_of_the_right_user_will_do() {
        let (verified, users) = (Verified::new(), users());
        // Twice: the second time it is remembered.
        for _ in 0..2 {
            for user in ["ada", "bob", "eve"] {
                assert!(verified.is(&users, user.as_bytes(), b"secret").await, "{user}");
                assert!(!verified.is(&users, user.as_bytes(), b"Secret").await, "{user}");
            }
            assert!(!verified.is(&users, b"nobody", b"secret").await);
            assert!(!verified.is(&users, b"\xff", b"secret").await);
            assert!(!verified.is(&users, b"", b"").await);
        }
    }

    #[tokio::test]
    async fn what_was_checked_is_not_checked_again_until_the_hash_changes() {
        let (verified, mut users) = (Verified::new(), users());
        let costly = bcrypt::hash("secret", 9).expect("a hash");
        users.insert("dear".into(), costly);
        let start = Instant::now();
        assert!(verified.is(&users, b"dear", b"secret").await);
        let first = start.elapsed();
        let start = Instant::now();
        assert!(verified.is(&users, b"dear", b"secret").await);
        assert!(start.elapsed() < first / 4, "{:?} after {first:?}", start.elapsed());
        users.insert("dear".into(), bcrypt::hash("another", 4).expect("a hash"));
        assert!(!verified.is(&users, b"dear", b"secret").await);
    }

    #[tokio::test]
    async fn guesses_do_not_push_out_who_is_right() {
        let (verified, users) = (Verified::new(), users());
        assert!(verified.is(&users, b"ada", b"secret").await);
        for guess in 0..2 * REMEMBERED {
            verified.remembered().keep(verified.print(&[&guess.to_le_bytes()]), false);
        }
        let known = verified.print(&[b"ada", users["ada"].as_bytes(), b"secret"]);
        assert_eq!(verified.remembered().find(&known), Some(true));
        assert_eq!(verified.remembered().wrong.len(), REMEMBERED);
    }

    #[test]
    fn who_is_not_known_costs_as_much_as_the_dearest_user() {
        let hash = nobody(&users());
        assert!(hash.starts_with("$2y$05$") && is_hash(&hash), "{hash}");
        assert!(is_hash(&nobody(&BTreeMap::new())));
        bcrypt::verify("x", &hash).expect("a hash that can be compared with");
    }

    #[test]
    fn hashes_are_told_from_other_texts() {
        for odd in [
            "",
            "secret",
            "$1$abc",
            "$2y$10$short",
            "$2y$99$J2nO4uPqY5vK1sW7bXcZ9eAaBbCcDdEeFfGgHhIiJjKkLlMmNnOoG",
        ] {
            assert!(!is_hash(odd), "{odd}");
        }
    }

    #[test]
    fn credentials_are_taken_apart() {
        let both = |user: &str, password: &str| Some((user.into(), password.into()));
        assert_eq!(basic(b"Basic YWRhOnNlY3JldA=="), both("ada", "secret"));
        assert_eq!(basic(b"basic YWRhOmE6Yg=="), both("ada", "a:b"));
        for odd in
            [&b"Bearer x"[..], b"Basic", b"Basic ", b"Basic YWRh", b"Basic %%%", b"", b"Basic YWRhOnNlY3JldA"]
        {
            assert_eq!(basic(odd), None, "{}", odd.escape_ascii());
        }
    }
}
