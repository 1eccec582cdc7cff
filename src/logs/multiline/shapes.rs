//! What a line of a stack trace looks like, by its first bytes; nothing here allocates or looks twice at a byte.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// How much of a line is searched for a word of trouble.
const SEARCHED: usize = 4096;

/// The line without a carriage return, and how many blanks it begins with.
pub fn indented(line: &[u8]) -> (usize, &[u8]) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let indent = line.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    (indent, &line[indent..])
}

/// Whether it begins with one of these.
pub fn begins(text: &[u8], prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| text.starts_with(prefix.as_bytes()))
}

/// A line that speaks of trouble: what follows may be the trace.
pub fn is_trouble(line: &[u8]) -> bool {
    static WORDS: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| {
        let words = [
            "rror", "RROR", "xception", "XCEPTION", "WARN", "warn", "Warn", "anic", "PANIC", "atal", "ATAL",
            "hrowable", "SEVERE", "CRIT", "crit", "ncaught", "ailed", "EMERG",
        ];
        words.map(Finder::new).into()
    });
    let searched = &line[..line.len().min(SEARCHED)];
    WORDS.iter().any(|word| word.find(searched).is_some())
}

/// `at com.shop.Cart.add(Cart.java:7)`, `at Shop.Cart.Add() in /src/Cart.cs:line 7`, `at add (/app/cart.js:7:11)`.
pub fn is_frame(indent: usize, text: &[u8]) -> bool {
    indent > 0 && text.starts_with(b"at ")
}

/// `... 23 more`, `... 3 common frames omitted`, `... 4 lines matching cause stack trace ...`.
pub fn is_elision(indent: usize, text: &[u8]) -> bool {
    indent > 0 && text.strip_prefix(b"... ").is_some_and(begins_with_digit)
}

/// What comes between the frames of Java and .NET.
pub fn is_cause(text: &[u8]) -> bool {
    const WORDS: &[&str] = &[
        "Caused by: ",
        "Suppressed: ",
        "Wrapped by: ",
        "---> ",
        "--- End of ",
        "<---",
        "[CIRCULAR REFERENCE",
    ];
    begins(text, WORDS)
}

/// A letter, or what else a name may begin with.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$')
}

/// `java.io.IOException: closed`, `System.ArgumentException`: a qualified name, alone or before a colon.
pub fn is_class(text: &[u8]) -> bool {
    let end = text.iter().position(|&byte| !is_name(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(dot) = memchr::memrchr(b'.', name) else { return false };
    name[0].is_ascii_alphabetic()
        && name.get(dot + 1).is_some_and(u8::is_ascii_uppercase)
        && name[dot + 1..].iter().any(u8::is_ascii_lowercase)
        && (rest.is_empty() || rest.starts_with(b": ") || rest == b":")
}

/// `ValueError: not a number`, `shop.errors.Empty`, `KeyboardInterrupt`: how a Python traceback ends.
pub fn is_python_exception(text: &[u8]) -> bool {
    let end = text.iter().position(|&byte| !is_name(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
        && (rest.is_empty() || rest.starts_with(b": ") || rest == b":")
}

/// `Traceback (most recent call last):`, also of a group.
pub fn is_traceback(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"+ ").or_else(|| text.strip_prefix(b"| ")).unwrap_or(text);
    let text = text.strip_prefix(b"Exception Group ").unwrap_or(text);
    text.starts_with(b"Traceback (most recent call last)")
}

/// What stands between two tracebacks.
pub fn is_chain(text: &[u8]) -> bool {
    begins(text, &["During handling of the above exception,", "The above exception was the direct cause"])
}

/// Nothing but `^` and `~`, which point at code.
pub fn is_pointer(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| matches!(byte, b'^' | b'~'))
}

/// `goroutine 17 [chan receive, 3 minutes]:`.
pub fn is_goroutine(text: &[u8]) -> bool {
    text.strip_prefix(b"goroutine ").is_some_and(begins_with_digit) && text.ends_with(b":")
}

/// A call in a goroutine's stack: `main.(*Cart).Add(0xc000012345, {0x1, 0x2})`, `created by main.main`.
pub fn is_go_call(text: &[u8]) -> bool {
    if begins(text, &["created by ", "...", "goroutine running on other thread"]) {
        return true;
    }
    let open = memchr::memchr2(b'(', b' ', text);
    text.ends_with(b")") && open.is_some_and(|at| at > 0 && text[at] == b'(')
}

/// The registers that Go prints when a signal ends it: `rax    0xca`.
pub fn is_register(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(text.len());
    (2..=6).contains(&end) && text[end..].trim_ascii_start().starts_with(b"0x") && text[end] == b' '
}

/// A function alone on its line, as zap prints them: `main.serve`, `example.com/shop/cart.(*Cart).Add`.
pub fn is_go_function(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'=' | b'"' | b'\'' | b',');
    let Some(dot) = memchr::memrchr(b'.', text) else { return false };
    let slash = memchr::memchr(b'/', text).filter(|slash| *slash > 0 && *slash < dot);
    text[0].is_ascii_lowercase()
        && (slash.is_some() || begins(text, &["main.", "runtime.", "testing.", "reflect."]))
        && dot + 1 < text.len()
        && text.iter().all(is_part)
}

/// `app/cart.rb:7:in 'add'`, also with what went wrong after it.
pub fn is_ruby_place(text: &[u8]) -> bool {
    let end = text.iter().take(SEARCHED).position(|byte| *byte == b' ').unwrap_or(text.len());
    let Some(colon) = memchr::memmem::find(&text[..end], b":in") else { return false };
    let Some(number) = memchr::memrchr(b':', &text[..colon]) else { return false };
    let is_path = text[0].is_ascii_alphanumeric() || begins(text, &["/", "_", "-e:", "<internal:"]);
    is_path && number > 0 && colon > number + 1 && text[number + 1..colon].iter().all(u8::is_ascii_digit)
}

/// `from app/cart.rb:7:in 'add'`, also with its number before it.
pub fn is_ruby_from(indent: usize, text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    indent > 0 && text.strip_prefix(b"from ").is_some_and(is_ruby_place)
}

/// `#3 /app/cart.php(7): Cart->add()`, `#0      main (file:///app/cart.dart:7:3)`.
pub fn is_numbered(text: &[u8]) -> bool {
    text.strip_prefix(b"#").is_some_and(begins_with_digit)
}

/// Where JavaScript says that an error was not caught: `/app/cart.js:7`, `node:internal/process:288`.
pub fn is_js_place(text: &[u8]) -> bool {
    let is_path = begins(text, &["/", "file://", "node:"]);
    let Some(colon) = memchr::memrchr(b':', text).filter(|_| is_path) else { return false };
    let (path, number) = (&text[..colon], &text[colon + 1..]);
    let is_code =
        [".js", ".cjs", ".mjs", ".ts", ".tsx", ".jsx"].iter().any(|end| path.ends_with(end.as_bytes()));
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    is_number && (is_code || text.starts_with(b"node:"))
}

/// `info: Shop.Cart[14]`: the first of the two lines that .NET's console logger writes at least.
pub fn is_dotnet_head(text: &[u8]) -> bool {
    begins(text, &["trce: ", "dbug: ", "info: ", "warn: ", "fail: ", "crit: "])
        && text.strip_suffix(b"]").is_some_and(|rest| {
            let digits = rest.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            digits > 0 && rest[..rest.len() - digits].ends_with(b"[")
        })
}

/// Whether the first byte is a digit.
pub fn begins_with_digit(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}
