//! Pods that write at a set rate, and a kubelet that rotates their files.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::{Chance, LogDir, bulk_server::POISON, uid};

/// How much is written, and how it is rotated.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub namespace: &'static str,
    pub pods: usize,
    /// Of all pods together.
    pub bytes_per_second: u64,
    /// Bytes of text in a line.
    pub text: usize,
    /// A file is rotated when it is larger: the kubelet's `containerLogMaxSize`, 10 MiB unless told.
    pub rotate_at: u64,
    /// Files of one container that are kept, the one that is written to included: `containerLogMaxFiles`, 5 unless told.
    pub keep: usize,
    /// Whether rotated files are compressed, but for the newest, as the kubelet does.
    pub gzip: bool,
    /// Whether stack traces are among the lines.
    pub traces: bool,
    /// One line in so many is poison to the bulk server; 0 for none.
    pub poison_every: u64,
    pub seed: u64,
}

impl Load {
    /// A little of everything for some seconds: each file is rotated some times a second, and none is deleted.
    pub const SHORT: Self = Self {
        namespace: "load",
        pods: 4,
        bytes_per_second: 400_000,
        text: 200,
        rotate_at: 30_000,
        keep: usize::MAX,
        gzip: false,
        traces: false,
        poison_every: 0,
        seed: 1,
    };
}

/// The writing thread; it ends with [`Kubelet::stop`].
pub struct Kubelet {
    thread: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    lines: Arc<Vec<AtomicU64>>,
    rotations: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    /// Lines that the pods may write in all for now.
    allowed: Arc<AtomicU64>,
    load: Load,
}

/// What was written until the end.
#[derive(Debug)]
pub struct Written {
    lines: Vec<u64>,
    load: Load,
    pub rotations: u64,
    /// Of the files, with the runtime's times and streams.
    pub bytes: u64,
}

impl Kubelet {
    /// Starts to write below `logs`' pods.
    pub fn start(logs: &LogDir, load: Load) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let lines: Arc<Vec<_>> = Arc::new((0..load.pods).map(|_| AtomicU64::new(0)).collect());
        let (rotations, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let allowed = Arc::new(AtomicU64::new(u64::MAX));
        let mut pods: Vec<Pod> = (0..load.pods).map(|pod| Pod::new(&logs.pods(), pod, load)).collect();
        let thread = {
            let (stopped, lines) = (Arc::clone(&stopped), Arc::clone(&lines));
            let (rotations, bytes) = (Arc::clone(&rotations), Arc::clone(&bytes));
            let allowed = Arc::clone(&allowed);
            thread::spawn(move || {
                let (mut last, mut due, mut written) = (Instant::now(), 0.0, 0);
                let mut chance = Chance::new(load.seed);
                while !stopped.load(Relaxed) {
                    let total: u64 = pods.iter().map(|pod| pod.lines).sum();
                    if total < allowed.load(Relaxed) {
                        due += last.elapsed().as_secs_f64() * load.bytes_per_second as f64;
                    }
                    last = Instant::now();
                    let due = due as u64;
                    while written < due {
                        let pod = chance.below(load.pods as u64) as usize;
                        // A run of lines of one pod, as programs write them.
                        written += pods[pod].write(1 + chance.below(20), &mut chance);
                        lines[pod].store(pods[pod].lines, Relaxed);
                        if pods[pod].rotate_when_large() {
                            rotations.fetch_add(1, Relaxed);
                        }
                    }
                    bytes.store(written, Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            })
        };
        Self { thread: Some(thread), stopped, lines, rotations, bytes, allowed, load }
    }

    /// Lines written by now.
    pub fn lines(&self) -> u64 {
        self.lines.iter().map(|lines| lines.load(Relaxed)).sum()
    }

    /// Writes no more than so many lines in all until told again: no machine is so slow that files are deleted unread.
    pub fn allow(&self, lines: u64) {
        self.allowed.store(lines, Relaxed);
    }

    /// Ends the writing after a whole line.
    pub fn stop(mut self) -> Written {
        self.end();
        Written {
            lines: self.lines.iter().map(|lines| lines.load(Relaxed)).collect(),
            load: self.load,
            rotations: self.rotations.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    fn end(&mut self) {
        self.stopped.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer wrote");
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
        self.stopped.store(true, Relaxed);
    }
}

impl Written {
    /// All lines, poison or not.
    pub fn lines(&self) -> u64 {
        self.lines.iter().sum()
    }

    /// Every pod with its lines.
    pub fn pods(&self) -> impl Iterator<Item = (String, u64)> {
        self.lines.iter().enumerate().map(|(pod, lines)| (format!("busy-{pod}"), *lines))
    }

    /// How many of them are poison.
    pub fn poison(&self) -> u64 {
        match self.load.poison_every {
            0 => 0,
            every => self.lines.iter().map(|lines| lines.div_ceil(every)).sum(),
        }
    }

    /// The text of every line that is no poison.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let numbered =
            self.lines.iter().enumerate().flat_map(|(pod, lines)| (0..*lines).map(move |line| (pod, line)));
        numbered.map(|(pod, line)| text(pod, line, &self.load)).filter(|text| !text.contains(POISON))
    }
}

/// The text of a line; different from all others, with some characters that have to be escaped.
fn text(pod: usize, line: u64, load: &Load) -> String {
    let poison = if load.poison_every > 0 && line.is_multiple_of(load.poison_every) { POISON } else { "" };
    let namespace = load.namespace;
    let part = if load.traces { part_of_a_trace(line) } else { "" };
    let mut text =
        format!("{part}{namespace} pod {pod} line {line:09} {poison}\"took\"=\t{}ms ", line * 7919 % 1009);
    let filler = "GET /cart/checkout?item=Grüße status=200 agent=Mozilla upstream=10.2.3.4:8080 ";
    let length = load.text.max(text.len());
    while text.len() < length {
        text.push_str(filler);
    }
    text.truncate((0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(length));
    text
}

/// What a line of a program begins with that fails now and then.
fn part_of_a_trace(line: u64) -> &'static str {
    match line % 29 {
        0 => "ERROR ",
        1 => "java.lang.IllegalStateException: ",
        2..10 | 12..14 => "\tat shop.Cart.add(Cart.java:7) ",
        10 => "\t... 23 more ",
        11 => "Caused by: java.io.IOException: ",
        _ => "",
    }
}

/// One container's log.
struct Pod {
    number: usize,
    path: PathBuf,
    file: File,
    size: u64,
    lines: u64,
    /// Names of rotated files without `.gz`, the oldest first.
    rotated: Vec<PathBuf>,
    rotations: u64,
    load: Load,
    buffer: Vec<u8>,
}

impl Pod {
    fn new(pods: &Path, number: usize, load: Load) -> Self {
        let name = format!("busy-{number}");
        let path = pods.join(format!("{}_{name}_{}", load.namespace, uid(&name))).join("app").join("0.log");
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        let file = File::create_new(&path).expect("a new log file");
        let (rotated, buffer) = (Vec::new(), Vec::new());
        Self { number, path, file, size: 0, lines: 0, rotated, rotations: 0, load, buffer }
    }

    /// Writes about so many lines; how many bytes they are. Now and then one is split in parts, with a line of the other
    /// stream between them.
    fn write(&mut self, count: u64, chance: &mut Chance) -> u64 {
        self.buffer.clear();
        let end = self.lines + count;
        while self.lines < end {
            let text = text(self.number, self.lines, &self.load);
            self.lines += 1;
            if chance.below(16) > 0 {
                self.piece(if self.lines.is_multiple_of(8) { "stderr" } else { "stdout" }, 'F', &text);
                continue;
            }
            let cut = (1 + text.len() / 3..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            self.piece("stdout", 'P', &text[..cut]);
            let between = self::text(self.number, self.lines, &self.load);
            self.lines += 1;
            self.piece("stderr", 'F', &between);
            self.piece("stdout", 'F', &text[cut..]);
        }
        // A reader may see half a line.
        let torn = chance.below(self.buffer.len() as u64) as usize;
        self.file.write_all(&self.buffer[..torn]).expect("written");
        self.file.write_all(&self.buffer[torn..]).expect("written");
        self.size += self.buffer.len() as u64;
        self.buffer.len() as u64
    }

    fn piece(&mut self, stream: &str, tag: char, text: &str) {
        writeln!(self.buffer, "{:.9} {stream} {tag} {text}", jiff::Timestamp::now()).expect("written");
    }

    /// What the kubelet does with a file that is too large: compress those that were rotated before, delete the oldest,
    /// rename the current one and have a new one opened. Whether it did.
    fn rotate_when_large(&mut self) -> bool {
        if self.size < self.load.rotate_at {
            return false;
        }
        while self.rotated.len() + 2 > self.load.keep {
            let oldest = self.rotated.remove(0);
            fs::remove_file(gz(&oldest))
                .or_else(|_| fs::remove_file(&oldest))
                .expect("the oldest is removed");
        }
        if self.load.gzip {
            self.rotated.iter().filter(|path| path.exists()).for_each(|path| compress(path));
        }
        let (minute, second) = (self.rotations / 60, self.rotations % 60);
        let (day, hour, minute) = (1 + minute / 1440, minute / 60 % 24, minute % 60);
        let name = format!("0.log.202611{day:02}-{hour:02}{minute:02}{second:02}");
        self.rotations += 1;
        let rotated = self.path.with_file_name(name);
        fs::rename(&self.path, &rotated).expect("the file is renamed");
        self.rotated.push(rotated);
        self.file = File::create_new(&self.path).expect("a new log file");
        self.size = 0;
        true
    }
}

fn gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Under another name first, as the kubelet does.
fn compress(path: &Path) {
    let new = path.with_extension("tmp");
    let mut encoder = GzEncoder::new(File::create(&new).expect("a new file"), Compression::fast());
    encoder.write_all(&fs::read(path).expect("the rotated file")).expect("compressed");
    encoder.finish().expect("compressed");
    fs::rename(&new, gz(path)).expect("the file is renamed");
    fs::remove_file(path).expect("the file is removed");
}
