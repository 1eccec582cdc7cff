//! Token filters: which words a block may hold, so that a search for a rare word opens few blocks.
//!
//! A token is a run of word characters, folded, of 3 bytes or more: ASCII letters and digits and the letters of alphabetic
//! scripts. Characters of scripts that write without spaces are tokens of their own. The classes are fixed here by code
//! point instead of asking Unicode's tables, because filters on disk outlive the release that wrote them.

/// Bits of the filter per distinct token, and bits set per token: about 1 % of blocks are opened in vain.
const BITS_PER_TOKEN: usize = 10;
const PROBES: u32 = 6;
/// A block of one huge record gets a crowded filter rather than a huge one.
const MAX_FILTER: usize = 128 << 10;
/// Shorter tokens are in nearly every block.
const MIN_TOKEN: usize = 3;

/// What a character does to the token around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Ends it.
    Break,
    /// Is part of it.
    Word,
    /// Is one by itself.
    Alone,
}

/// The class of a character. Closed under case folding: characters that differ in case only have the same class.
pub(super) fn class(c: char) -> Class {
    match c as u32 {
        0..0x80 if c.is_ascii_alphanumeric() => Class::Word,
        0xaa | 0xb5 | 0xba | 0xc0..=0xd6 | 0xd8..=0xf6 | 0xf8..=0x1fff => Class::Word,
        // Letterlike signs, and the blocks that hold the other case of letters further up.
        0x2100..=0x214f | 0x2c00..=0x2dff | 0xa640..=0xa7ff | 0xab30..=0xabbf => Class::Word,
        0x3000..=0x303f => Class::Break,
        0x2e80.. => Class::Alone,
        _ => Class::Break,
    }
}

/// One form for all characters that a case-insensitive match takes for the same.
fn fold(c: char, out: &mut Vec<u8>) {
    let mut utf8 = [0; 4];
    for c in c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase) {
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a: byte by byte, so that it runs along with the splitting. Part of the format.
fn fnv(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

/// Spreads FNV's weak high bits (the finisher of splitmix64). Part of the format.
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

const NOT_ASCII: u8 = 0xff;

/// For each byte its folded form, 0 where it ends a token, `NOT_ASCII` where a character has to be decoded.
const ASCII: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = match b {
            0x80.. => NOT_ASCII,
            _ if b.is_ascii_alphanumeric() => b.to_ascii_lowercase(),
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// Says the hash of each token of `text`, and where the token lies.
pub(super) fn tokens(text: &[u8], mut say: impl FnMut(u64, std::ops::Range<usize>)) {
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let mut hash = FNV_START;
        while let Some(&byte) = text.get(at) {
            match ASCII[byte as usize] {
                0 => break,
                NOT_ASCII => break,
                folded => hash = fnv(hash, folded),
            }
            at += 1;
        }
        if text.get(at).is_some_and(|byte| !byte.is_ascii()) {
            let len = text[at..].iter().take_while(|&&byte| ASCII[byte as usize] != 0).count();
            at += len;
            decoded_tokens(&text[start..at], start, &mut say);
        } else if at - start >= MIN_TOKEN {
            say(finish(hash), start..at);
        }
        at += 1;
    }
}

/// The tokens of a run that is not all ASCII. Bytes that are not UTF-8 end a token.
fn decoded_tokens(run: &[u8], mut at: usize, say: &mut impl FnMut(u64, std::ops::Range<usize>)) {
    let mut folded = Vec::new();
    let mut start = at;
    let mut end_token = |folded: &mut Vec<u8>, range: std::ops::Range<usize>| {
        if folded.len() >= MIN_TOKEN {
            say(finish(folded.iter().fold(FNV_START, |hash, &byte| fnv(hash, byte))), range);
        }
        folded.clear();
    };
    for chunk in run.utf8_chunks() {
        for c in chunk.valid().chars() {
            let class = class(c);
            if class != Class::Word {
                end_token(&mut folded, start..at);
                start = at;
            }
            if class != Class::Break {
                fold(c, &mut folded);
            }
            at += c.len_utf8();
            if class != Class::Word {
                end_token(&mut folded, start..at);
                start = at;
            }
        }
        end_token(&mut folded, start..at);
        at += chunk.invalid().len();
        start = at;
    }
}

/// Whether `text` ends inside a token that a word character behind it would continue.
pub(super) fn ends_in_word(text: &[u8]) -> bool {
    let Some(&last) = text.last() else { return false };
    if last.is_ascii() {
        return last.is_ascii_alphanumeric();
    }
    let tail = |len| text.len().checked_sub(len).and_then(|start| std::str::from_utf8(&text[start..]).ok());
    (2..=4).find_map(tail).and_then(|tail| tail.chars().next()).is_some_and(|c| class(c) == Class::Word)
}

/// Whether `text` starts with a word character.
pub(super) fn starts_with_word(text: &[u8]) -> bool {
    let Some(&first) = text.first() else { return false };
    if first.is_ascii() {
        return first.is_ascii_alphanumeric();
    }
    let front = |len| text.get(..len).and_then(|front| std::str::from_utf8(front).ok());
    (2..=4).find_map(front).and_then(|front| front.chars().next()).is_some_and(|c| class(c) == Class::Word)
}

/// The distinct tokens of a block: open addressing, 0 is an empty slot.
#[derive(Debug, Default)]
pub(super) struct TokenSet {
    slots: Vec<u64>,
    len: usize,
}

impl TokenSet {
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.slots.resize(1 << 14, 0);
        self.slots.shrink_to(1 << 17);
        self.len = 0;
    }

    pub(super) fn insert(&mut self, token: u64) {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        self.place(token.max(1));
    }

    fn place(&mut self, token: u64) {
        let mask = self.slots.len() - 1;
        let mut at = token as usize & mask;
        while self.slots[at] != 0 {
            if self.slots[at] == token {
                return;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = token;
        self.len += 1;
    }

    fn grow(&mut self) {
        let larger = vec![0; (self.slots.len() * 2).max(16)];
        let old = std::mem::replace(&mut self.slots, larger);
        self.len = 0;
        old.into_iter().filter(|&token| token != 0).for_each(|token| self.place(token));
    }

    /// Appends the filter of these tokens.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if self.len == 0 {
            return;
        }
        let len = (self.len * BITS_PER_TOKEN).div_ceil(8).min(MAX_FILTER);
        let start = out.len();
        out.resize(start + len, 0);
        let filter = &mut out[start..];
        for &token in self.slots.iter().filter(|&&token| token != 0) {
            for bit in probes(token, len) {
                filter[bit / 8] |= 1 << (bit % 8);
            }
        }
    }
}

/// Whether a block with this filter may hold the token. An empty filter is that of a block without tokens.
pub(super) fn may_contain(filter: &[u8], token: u64) -> bool {
    !filter.is_empty()
        && probes(token.max(1), filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

/// The bits of a token in a filter of `len` bytes (not 0).
fn probes(token: u64, len: usize) -> impl Iterator<Item = usize> {
    let bits = len as u64 * 8;
    let (start, step) = ((token >> 32) as u32, token as u32 | 1);
    (0..PROBES).map(move |probe| {
        let hash = start.wrapping_add(probe.wrapping_mul(step));
        ((u64::from(hash) * bits) >> 32) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans(text: &str) -> Vec<&str> {
        let mut spans = Vec::new();
        tokens(text.as_bytes(), |_, range| spans.push(&text[range]));
        spans
    }

    fn hashes(text: &[u8]) -> Vec<u64> {
        let mut hashes = Vec::new();
        tokens(text, |hash, _| hashes.push(hash));
        hashes
    }

    #[test]
    fn text_is_split_at_what_is_not_a_letter_or_digit() {
        assert_eq!(
            spans("GET /api/v1/pods?id=4bf92f35 HTTP/1.1"),
            ["GET", "api", "pods", "4bf92f35", "HTTP"]
        );
        assert_eq!(spans("foo_bar-baz"), ["foo", "bar", "baz"]);
        assert_eq!(spans("größe Ошибка №5 naïve"), ["größe", "Ошибка", "№5", "naïve"]);
        assert_eq!(spans("发生错误。abc"), ["发", "生", "错", "误", "abc"]);
        assert_eq!(spans("a bc"), [""; 0]);
    }

    #[test]
    fn case_does_not_count() {
        for (left, right) in [("Error", "eRROR"), ("Größe", "GRÖSSE"), ("ошибка", "ОШИБКА"), ("ſieb", "sieb")]
        {
            assert_eq!(hashes(left.as_bytes()), hashes(right.as_bytes()), "{left} {right}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_end_a_token() {
        assert_eq!(hashes(b"abc\xff\xfeerror\xe2\x82def"), hashes(b"abc error def"));
    }

    /// What `(?i)` takes for the same must fall into the same token, or a filter would hide a match.
    #[test]
    fn characters_of_one_case_class_share_class_and_fold() {
        let folded = |c: char| {
            let mut out = Vec::new();
            fold(c, &mut out);
            out
        };
        let cased: Vec<char> = ('\u{80}'..=char::MAX)
            .filter(|c| !c.to_lowercase().eq([*c]) || !c.to_uppercase().eq([*c]))
            .collect();
        let all: String = ('\0'..'\u{80}').chain(cased.iter().copied()).collect();
        for c in cased {
            let same = regex::Regex::new(&format!("(?i){}", regex::escape(&c.to_string()))).expect("valid");
            for found in same.find_iter(&all).flat_map(|found| found.as_str().chars()) {
                assert_eq!((class(found), folded(found)), (class(c), folded(c)), "{c} {found}");
            }
        }
    }

    #[test]
    fn few_strange_tokens_pass() {
        let mut set = TokenSet::default();
        set.clear();
        (0..5000)
            .for_each(|n| hashes(format!("token{n}").as_bytes()).into_iter().for_each(|h| set.insert(h)));
        let mut filter = Vec::new();
        set.encode(&mut filter);
        let passed =
            (0..10_000).filter(|n| may_contain(&filter, hashes(format!("other{n}").as_bytes())[0])).count();
        assert!(passed < 200, "{passed} of 10000");
    }

    proptest! {
        #[test]
        fn every_token_of_a_block_passes_its_filter(texts: Vec<Vec<u8>>, words in "[a-zA-Zäö ]{0,200}") {
            let mut set = TokenSet::default();
            set.clear();
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).chain([words.as_bytes()]).collect();
            texts.iter().for_each(|text| tokens(text, |hash, _| set.insert(hash)));
            let mut filter = Vec::new();
            set.encode(&mut filter);
            for hash in texts.iter().flat_map(|text| hashes(text)) {
                prop_assert!(may_contain(&filter, hash));
            }
        }

        #[test]
        fn word_boundaries_agree_with_the_tokens(left in "[aä错 .]{0,4}", right in "[aä错 .]{0,4}") {
            // A token that spans the seam exists exactly when both sides have a word character there.
            let text = format!("xxx{left}{right}xxx");
            let seam = 3 + left.len();
            let mut crossed = false;
            tokens(text.as_bytes(), |_, range| crossed |= range.start < seam && seam < range.end);
            let joined = ends_in_word(&text.as_bytes()[..seam]) && starts_with_word(&text.as_bytes()[seam..]);
            // Tokens under 3 bytes are not said.
            prop_assert!(joined || !crossed);
            let long = text[..seam].ends_with("xxx") || text[seam..].starts_with("xxx");
            prop_assert!(crossed || !joined || !long);
        }
    }
}
