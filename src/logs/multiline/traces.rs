//! What may follow what in the traces of the usual languages: a state after each line of an event, and the lines that lead
//! on from it.

use super::shapes::{
    begins, indented, is_cause, is_chain, is_class, is_dotnet_head, is_elision, is_frame, is_go_call,
    is_go_function, is_goroutine, is_js_place, is_numbered, is_pointer, is_python_exception, is_register,
    is_ruby_from, is_ruby_place, is_traceback, is_trouble,
};

/// Where an event is after its last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// By the user's own pattern.
    Own,
    /// A line of trouble, which a trace may follow.
    Trouble,
    /// An empty line after it.
    TroubleGap,
    /// Frames of Java, .NET or JavaScript, or the exception before them.
    Frames,
    /// What JavaScript shows of an error in braces.
    Properties,
    /// An empty line after frames.
    FramesGap,
    /// A .NET logger's first line.
    DotnetLog,
    /// JavaScript: the file and line, the code there, the mark below it, an empty line.
    JsPlace,
    /// See [`Self::JsPlace`].
    JsCode,
    /// See [`Self::JsPlace`].
    JsPointer,
    /// See [`Self::JsPlace`].
    JsGap,
    /// Python: the line that announces a traceback.
    PyHead,
    /// Frames and code of a traceback.
    PyFrames,
    /// The same of a group of exceptions, which has no last line.
    PyGroup,
    /// The exception, with which a traceback ends.
    PyEnd,
    /// An empty line after it.
    PyGap,
    /// What says that another traceback follows.
    PyChain,
    /// Go's `panic:`.
    GoPanic,
    /// An empty line after it.
    GoPanicGap,
    /// A goroutine's stack.
    GoStack,
    /// An empty line after it.
    GoStackGap,
    /// A function in a stack as zap prints it.
    GoFunction,
    /// The place of such a function.
    GoPlace,
    /// Ruby: what went wrong, and where.
    RubyHead,
    /// The code there, after an empty line.
    RubyCode,
    /// See [`Self::RubyCode`].
    RubyPointer,
    /// Ruby's frames.
    Ruby,
    /// Numbered frames: PHP, Dart.
    Numbered,
    /// An empty line after them.
    NumberedGap,
    /// Dart announces an exception.
    DartHead,
    /// Rust announces a panic, its message follows.
    RustPanic,
    /// The message.
    RustMessage,
    /// A backtrace, or a chain of errors.
    RustTrace,
    /// An empty line after it.
    RustGap,
    /// Nothing belongs to it any more.
    Done,
}

use Trace::{
    DartHead, Done, DotnetLog, Frames, FramesGap, GoFunction, GoPanic, GoPanicGap, GoPlace, GoStack,
    GoStackGap, JsCode, JsGap, JsPlace, JsPointer, Numbered, NumberedGap, Own, Properties, PyChain, PyEnd,
    PyFrames, PyGap, PyGroup, PyHead, Ruby, RubyCode, RubyHead, RubyPointer, RustGap, RustMessage, RustPanic,
    RustTrace, Trouble, TroubleGap,
};

/// How Go begins to end.
const GO_PANICS: &[&str] = &[
    "panic: ",
    "fatal error: ",
    "runtime: goroutine stack exceeds",
    "unexpected fault address",
    "SIGQUIT: quit",
    "SIGABRT: abort",
];
/// What comes before the frames of PHP.
const STACKS: &[&str] = &["Stack trace:", "PHP Stack trace:", "[stacktrace]"];
/// What comes before the parts of an error of Rust's `anyhow` and `eyre`.
const RUST_PARTS: &[&str] = &["Caused by:", "Location:", "Stack backtrace:", "stack backtrace:"];

impl Trace {
    /// What an event that begins with this line may go on with. A trace that begins in its midst, because what came before
    /// is in another file or event, is put together too.
    pub fn begin(line: &[u8]) -> Option<Self> {
        let (indent, text) = indented(line);
        if is_traceback(text) {
            return Some(traceback(text));
        }
        if indent > 0 {
            if is_frame(indent, text) || is_elision(indent, text) {
                return Some(Frames);
            }
            if is_ruby_from(indent, text) {
                return Some(Ruby);
            }
        } else if is_goroutine(text) {
            return Some(GoStack);
        } else if begins(text, GO_PANICS) {
            return Some(GoPanic);
        } else if text.starts_with(b"thread '") && is_rust_panic(text) {
            return Some(if text.ends_with(b":") { RustPanic } else { RustMessage });
        } else if is_js_place(text) {
            return Some(JsPlace);
        } else if text == b"Unhandled exception:" {
            return Some(DartHead);
        } else if is_dotnet_head(text) {
            return Some(DotnetLog);
        } else if is_ruby_place(text) {
            return Some(if text.ends_with(b")") { RubyHead } else { Ruby });
        } else if is_class(text) || is_cause(text) || text.starts_with(b"Exception in thread \"") {
            return Some(Frames);
        }
        is_trouble(text).then_some(Trouble)
    }

    /// Whether any line may follow an event's first one, which [`Self::begin`] says more of.
    pub fn takes_any(line: &[u8]) -> bool {
        match line.first() {
            Some(b' ' | b'\t' | b'T') => is_traceback(indented(line).1),
            Some(b't') => line.starts_with(b"thread '") || is_dotnet_head(indented(line).1),
            Some(b'g') => line.starts_with(b"goroutine "),
            Some(b'U') => line.starts_with(b"Unhandled exception:"),
            Some(b'/' | b'n') => is_js_place(indented(line).1),
            Some(b'd' | b'i' | b'w' | b'c') => is_dotnet_head(indented(line).1),
            Some(b'f') => {
                let text = indented(line).1;
                begins(text, GO_PANICS) || is_js_place(text) || is_dotnet_head(text)
            }
            Some(b'p' | b'r' | b'u' | b'S') => begins(line, GO_PANICS),
            _ => false,
        }
    }

    /// Where the event is after this line; `None` when the line does not belong to it.
    pub fn follow(self, line: &[u8]) -> Option<Self> {
        let (indent, text) = indented(line);
        let is_blank = text.is_empty();
        match self {
            Trouble if is_blank => Some(TroubleGap),
            Trouble | TroubleGap => after_trouble(indent, text),
            Frames | FramesGap | Properties => after_frames(self, indent, text),
            DotnetLog => (indent >= 6).then_some(DotnetLog),
            JsPlace | JsCode | JsPointer | JsGap => after_js_place(self, indent, text),
            PyHead | PyFrames | PyGroup | PyEnd | PyGap | PyChain => after_traceback(self, indent, text),
            GoPanic | GoPanicGap => after_panic(self, indent, text),
            GoStack | GoStackGap => after_stack(self, indent, text),
            GoFunction => (indent > 0 && text.contains(&b':')).then_some(GoPlace),
            GoPlace => (indent == 0 && !is_blank && is_go_function(text)).then_some(GoFunction),
            RubyHead | Ruby | RubyCode | RubyPointer => after_ruby(self, indent, text),
            Numbered | NumberedGap => after_numbered(self, indent, text),
            DartHead => (!is_blank).then_some(Trouble),
            RustPanic | RustMessage | RustTrace | RustGap => after_rust(self, indent, text),
            Own | Done => None,
        }
    }
}

fn is_rust_panic(text: &[u8]) -> bool {
    memchr::memmem::find(&text[..text.len().min(512)], b"' panicked at ").is_some()
        || memchr::memmem::find(&text[..text.len().min(512)], b") panicked at ").is_some()
}

fn traceback(text: &[u8]) -> Trace {
    if text.starts_with(b"+ Exception Group ") { PyGroup } else { PyHead }
}

fn after_trouble(indent: usize, text: &[u8]) -> Option<Trace> {
    if is_frame(indent, text) || is_elision(indent, text) || is_cause(text) || is_class(text) {
        return Some(Frames);
    }
    if is_traceback(text) {
        return Some(traceback(text));
    }
    if is_numbered(text) || begins(text, STACKS) {
        return Some(Numbered);
    }
    if is_ruby_from(indent, text) || is_ruby_place(text) {
        return Some(Ruby);
    }
    if is_goroutine(text) {
        return Some(GoStack);
    }
    if text.starts_with(b"[signal ") || indent > 0 && text.starts_with(b"panic: ") {
        return Some(GoPanic);
    }
    if text.starts_with(b"note: run with ") {
        return Some(Done);
    }
    if begins(text, RUST_PARTS) {
        return Some(RustTrace);
    }
    (indent == 0 && !text.is_empty() && is_go_function(text)).then_some(GoFunction)
}

fn after_frames(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    if trace == Properties {
        return match (indent, text.first()) {
            (0, Some(b'}')) => Some(Frames),
            (1.., Some(_)) => Some(Properties),
            _ => None,
        };
    }
    if is_cause(text) {
        return Some(Frames);
    }
    if trace == FramesGap {
        return text.starts_with(b"Node.js v").then_some(Done);
    }
    if text.is_empty() {
        return Some(FramesGap);
    }
    if is_frame(indent, text) {
        return Some(if text.ends_with(b"{") { Properties } else { Frames });
    }
    let is_lock = indent > 0 && begins(text, &["- locked", "- waiting", "- parking", "- None"]);
    let is_nested = indent > 0 && (is_class(text) || text.starts_with(b"[cause]: "));
    (is_elision(indent, text) || is_lock || is_nested).then_some(Frames)
}

fn after_js_place(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    match trace {
        JsPlace if !text.is_empty() => Some(JsCode),
        JsCode if is_pointer(text) => Some(JsPointer),
        JsPointer if text.is_empty() => Some(JsGap),
        JsPointer | JsGap if indent == 0 && !text.is_empty() => {
            Some(if text.ends_with(b"{") { Properties } else { Frames })
        }
        _ => None,
    }
}

fn after_traceback(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    let is_blank = text.is_empty();
    match trace {
        PyHead => (indent > 0 && !is_blank).then_some(PyFrames),
        PyFrames if indent > 0 && !is_blank => Some(PyFrames),
        // Ruby's older releases print their frames like this, too.
        PyFrames if is_ruby_place(text) => Some(RubyHead),
        PyFrames => is_python_exception(text).then_some(PyEnd),
        PyGroup if indent > 0 && !is_blank => Some(PyGroup),
        PyGroup | PyEnd if is_blank => Some(PyGap),
        // The rest of what the exception says.
        PyEnd if indent > 0 && !is_traceback(text) => Some(PyEnd),
        PyEnd | PyGap => is_chain(text).then_some(PyChain),
        PyChain if is_blank => Some(PyChain),
        PyChain => is_traceback(text).then(|| traceback(text)),
        _ => None,
    }
}

fn after_panic(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    if is_goroutine(text) || text == b"runtime stack:" {
        return Some(GoStack);
    }
    if begins(text, &["[signal ", "PC=", "fatal error: "]) {
        return Some(GoPanic);
    }
    match trace {
        GoPanic if text.is_empty() => Some(GoPanicGap),
        GoPanic if indent > 0 => Some(GoPanic),
        _ => None,
    }
}

fn after_stack(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    if is_goroutine(text) {
        return Some(GoStack);
    }
    if text.starts_with(b"exit status ") {
        return Some(Done);
    }
    match trace {
        GoStack if text.is_empty() => Some(GoStackGap),
        GoStack if indent > 0 || is_go_call(text) => Some(GoStack),
        GoStackGap if is_register(text) => Some(GoStackGap),
        _ => None,
    }
}

fn after_ruby(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    if matches!(trace, RubyHead | Ruby) && (is_ruby_from(indent, text) || is_ruby_place(text)) {
        return Some(Ruby);
    }
    match trace {
        RubyHead if text.is_empty() => Some(RubyCode),
        RubyCode if !text.is_empty() => Some(RubyPointer),
        RubyPointer if is_pointer(text) => Some(Ruby),
        _ => None,
    }
}

fn after_numbered(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    if begins(text, &["Next ", "[previous exception]"]) {
        return Some(Numbered);
    }
    if trace == NumberedGap {
        return None;
    }
    if text.is_empty() {
        return Some(NumberedGap);
    }
    if begins(text, &["\"}", "thrown in "]) {
        return Some(Done);
    }
    let is_frame = is_numbered(text) || begins(text, STACKS);
    let is_mark = begins(text, &["<asynchronous suspension>", "{main}", "PHP   "]);
    (is_frame || is_mark && indent <= 2).then_some(Numbered)
}

fn after_rust(trace: Trace, indent: usize, text: &[u8]) -> Option<Trace> {
    if text.starts_with(b"note: ") {
        return Some(Done);
    }
    if begins(text, RUST_PARTS) {
        return Some(RustTrace);
    }
    match trace {
        RustPanic => Some(RustMessage),
        RustMessage if indent > 0 && !text.is_empty() => Some(RustMessage),
        RustTrace if text.is_empty() => Some(RustGap),
        RustTrace if indent > 0 => Some(RustTrace),
        _ => None,
    }
}
