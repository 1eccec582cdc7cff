use proptest::prelude::*;

use super::*;

fn counter() -> IntCounter {
    IntCounter::new("hits", "hits").expect("a counter")
}

fn detector(what: &What) -> Arc<Detector> {
    Arc::new(Detector::new(what, counter()))
}

fn redactor(builtin: &[Builtin]) -> Redactor {
    let all = builtin.iter().map(|builtin| detector(&What::Builtin(*builtin))).collect();
    Redactor::new(all).expect("detectors")
}

fn redact(builtin: Builtin, text: &str) -> String {
    String::from_utf8_lossy(&redactor(&[builtin]).redact(text.as_bytes())).into_owned()
}

#[test]
fn secrets_are_found_wherever_they_stand() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";
    let aws = format!("AKIA{}", "IOSFODNN7EXAMPLE");
    let github = format!("ghp_{}", "abcdefghij0123456789ABCDEFGHIJ012345");
    let cases: Vec<(Builtin, String, String)> = [
        (Builtin::Card, "card 4111111111111111 paid", "card [redacted:card] paid"),
        (Builtin::Card, "4111-1111-1111-1111", "[redacted:card]"),
        (Builtin::Card, "pan=5555 5555 5555 4444,cvv", "pan=[redacted:card],cvv"),
        (Builtin::Card, "12 4111 1111 1111 1111 7", "12 [redacted:card] 7"),
        (Builtin::Card, "amex 378282246310005.", "amex [redacted:card]."),
        (Builtin::Card, "a 4111111111111111 b 5555555555554444", "a [redacted:card] b [redacted:card]"),
        (Builtin::Card, "{\"card\": 4111111111111111,\"b\":1}", "{\"card\": null,\"b\":1}"),
        (Builtin::Card, "{\"card\":\"4111111111111111\"}", "{\"card\":\"[redacted:card]\"}"),
        (Builtin::Bearer, "Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted:bearer]"),
        (
            Builtin::Bearer,
            "\"authorization\":\"bearer 0123abcd\"",
            "\"authorization\":\"bearer [redacted:bearer]\"",
        ),
        (Builtin::Bearer, "Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted:bearer]"),
        (Builtin::Email, "from ada@example.com.", "from [redacted:email]."),
        (Builtin::Email, "<a.b+c@mail.example.org>,x@y.de", "<[redacted:email]>,[redacted:email]"),
    ]
    .map(|(builtin, text, expected)| (builtin, text.to_owned(), expected.to_owned()))
    .into();
    let made = [
        (Builtin::Jwt, format!("token={jwt}; next"), "token=[redacted:jwt]; next".to_owned()),
        (Builtin::AwsKey, format!("key {aws} used"), "key [redacted:aws_key] used".to_owned()),
        (
            Builtin::AwsKey,
            format!("aws_secret_access_key = {}", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12"),
            "aws_[redacted:aws_key]".to_owned(),
        ),
        (Builtin::ApiKey, format!("push with {github}!"), "push with [redacted:api_key]!".to_owned()),
        (
            Builtin::PrivateKey,
            "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b".to_owned(),
            "a [redacted:private_key] b".to_owned(),
        ),
        (
            Builtin::PrivateKey,
            "-----BEGIN PRIVATE KEY-----\\nMIIE".to_owned(),
            "[redacted:private_key]".to_owned(),
        ),
    ];
    for (builtin, text, expected) in cases.into_iter().chain(made) {
        assert_eq!(redact(builtin, &text), expected, "{builtin:?}");
    }
}

#[test]
fn what_only_looks_like_a_secret_stays() {
    for (builtin, text) in [
        (Builtin::Card, "4111111111111112"),
        (Builtin::Card, "id 1475713029669794202 at 1475713029669"),
        (Builtin::Card, "x4111111111111111 and 4111111111111111f and 0.4111111111111111"),
        (Builtin::Card, "0000000000000000 4444444444444444444444444"),
        (Builtin::Card, "2026-11-21 10:10:10 12345 678 - - 4"),
        (Builtin::Bearer, "the bearer of news, Bearer token, standardbearer 12345678"),
        (Builtin::Bearer, "basic authentication 12345678"),
        (Builtin::Jwt, "eyJhbGciOiJIUzI1NiJ9 alone, eyJ.x.y"),
        (Builtin::AwsKey, "AKIA short, AKIAIOSFODNN7EXAMPLEX"),
        (Builtin::Email, "image@sha256:abcd, user@host, @param, a@b.c1, @example.com"),
        (Builtin::PrivateKey, "-----BEGIN CERTIFICATE-----"),
    ] {
        assert_eq!(redact(builtin, text), text, "{builtin:?}");
    }
}

#[test]
fn own_patterns_replace_with_their_groups() {
    let what = What::Own(Pattern::parse("(password=)\\S+").expect("a pattern"), "${1}***".into());
    let own = Redactor::new(vec![detector(&what)]).expect("one");
    assert_eq!(&*own.redact(b"user=\xff password=b c"), b"user=\xff password=*** c");
    assert!(matches!(own.redact(b"nothing"), Cow::Borrowed(_)));
}

#[test]
fn texts_within_texts_are_seen_as_deep_as_it_is_worth() {
    let redactor = redactor(&Builtin::ALL);
    let redact = |text: &str| String::from_utf8_lossy(&redactor.redact(text.as_bytes())).into_owned();
    assert_eq!(redact(r#"got {"a":"\u0061da@example.org"}"#), r#"got {"a":"[redacted:email]"}"#);
    let inner = r#"{\"b\":\"a\\u0064a@example.org\"}"#;
    assert_eq!(redact(&format!(r#"{{"a":"{inner}"}}"#)), r#"{"a":"{\"b\":\"[redacted:email]\"}"}"#);
    // However deep it goes, it ends.
    redact(&format!("\"\\u005c{}\"", "u005c".repeat(100_000)));
}

#[test]
fn values_of_members_are_redacted_and_names_are_not() {
    let what = What::Own(Pattern::parse("name|ada").expect("a pattern"), "***".into());
    let own = Redactor::new(vec![detector(&what)]).expect("one");
    let members = br#","level":"info"},"process":{"name":"ada \"x\"","pid":1},"host":{"name":"n""#;
    assert_eq!(
        String::from_utf8_lossy(&own.redact_members(members)),
        r#","level":"info"},"process":{"name":"*** \"x\"","pid":1},"host":{"name":"n""#
    );
}

#[test]
fn a_key_in_lines_of_its_own_is_inside_until_its_end() {
    let (mut block, now) = (KeyBlock::default(), Instant::now());
    assert!(!block.take(b"text", 0, now));
    assert!(!block.take(b"-----BEGIN EC PRIVATE KEY-----", 10, now));
    assert_eq!(block.from(), Some(10));
    for line in ["Proc-Type: 4,ENCRYPTED", "", "MHcCAQEEIIr+x/y=", "-----END EC PRIVATE KEY-----"] {
        assert!(block.take(line.as_bytes(), 20, now), "{line}");
    }
    assert!(block.from().is_none() && !block.take(b"MHcCAQEEIIr", 90, now));
    // What was no key after all does not go on for ever.
    block.take(b"-----BEGIN EC PRIVATE KEY-----", 10, now);
    assert!(!block.take(b"{\"not\": \"a key\"}", 20, now) && block.from().is_none());
}

proptest! {
    #[test]
    fn no_text_panics_and_none_is_found_twice(text in any::<Vec<u8>>(), odd in "[4-6 1@.a\"\\\\:{}eyJ-]{0,80}") {
        let redactor = redactor(&Builtin::ALL);
        for text in [&text, odd.as_bytes()] {
            let once = redactor.redact(text).into_owned();
            prop_assert_eq!(&*redactor.redact(&once), &once[..]);
            redactor.redact_members(text);
            let mut block = KeyBlock::default();
            block.take(b"-----BEGIN PRIVATE KEY-----", 0, Instant::now());
            block.take(text, 1, Instant::now());
        }
    }

    #[test]
    fn every_card_is_found(digits in "4[0-9]{14}", before in "[a-z ,]{0,20} ", after in "( [a-z ]{0,20}|)") {
        let check = (0..10).find(|check| {
            let number = format!("{digits}{check}");
            let sum: u32 = number.bytes().rev().enumerate().map(|(place, digit)| {
                let value = u32::from(digit - b'0') << (place % 2);
                if value > 9 { value - 9 } else { value }
            }).sum();
            sum.is_multiple_of(10)
        }).expect("a check digit");
        let text = format!("{before}{digits}{check}{after}");
        let expected = format!("{before}[redacted:card]{after}");
        prop_assert_eq!(redact(Builtin::Card, &text), expected);
    }
}
