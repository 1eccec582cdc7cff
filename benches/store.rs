//! What the local store costs: processor time and memory of storing mixed lines, and how long searches take.
//!
//! `cargo bench --bench store -- [LINES] [DIRECTORY]`, 500 000 lines in a temporary directory by default.

use std::{
    error::Error,
    fs,
    io::{Write, stdout},
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nodewarden::store::{Cursor, Limits, Query, Reader, Source, Writer};
use rustix::time::{ClockId, clock_gettime};

const SOURCES: u64 = 110;
/// Lines between two syncs.
const BATCH: u64 = 2000;
const RARE: &str = "deadbeefcafe0123";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let lines: u64 = args.next().map_or(Ok(500_000), |arg| arg.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = args.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let limits = Limits { max_bytes: 8 << 30, max_age: Duration::from_secs(86_400), min_free: 0.0 };
    let (mut writer, _) = Writer::open(&dir, limits, SystemTime::now())?;
    let before = peak_kib()?;
    fill(&mut writer, lines)?;
    let stats = writer.stats();
    let mut out = stdout().lock();
    writeln!(
        out,
        "{} blocks in {} segments, {} MB on disk",
        stats.blocks,
        stats.segments,
        stats.bytes / 1_000_000
    )?;
    writeln!(out, "peak memory {} KiB, {before} KiB before the first line", peak_kib()?)?;
    let reader = writer.reader();
    for (what, text, limit) in [
        ("newest 200 of a common word", "GET", 200),
        ("all of a common word", "GET", usize::MAX),
        ("a rare word", RARE, 200),
        ("a word that is not there", "nowhere1234", 200),
        ("a regular expression over all", r"/cart-9{7}\d/", 200),
        ("newest 200 of one pod", "pod:shop-web-7f9c-7", 200),
    ] {
        search(&mut out, &reader, what, &Query { limit, ..Query::parse(text)? })?;
    }
    writeln!(out, "peak memory {} KiB with searches", peak_kib()?)?;
    reader.since(Cursor::default(), &Query { limit: 1, ..Query::default() }, &mut |_| {
        ControlFlow::Continue(())
    })?;
    drop(writer);
    let start = Instant::now();
    Writer::open(&dir, limits, SystemTime::now())?;
    writeln!(out, "opened again in {:?}", start.elapsed())?;
    Ok(())
}

fn fill(writer: &mut Writer, lines: u64) -> Result<(), Box<dyn Error>> {
    let sources: Vec<Arc<Source>> = (0..SOURCES).map(source).collect();
    let mut batch: Vec<String> = Vec::new();
    let (mut raw, mut cpu, start) = (0, Duration::ZERO, Instant::now());
    for first in (0..lines).step_by(BATCH as usize) {
        batch.clear();
        batch.extend((first..lines.min(first + BATCH)).map(|number| line(number, lines)));
        let began = cpu_time();
        for (number, text) in (first..).zip(&batch) {
            // Busy pods write in runs, as their files are read.
            let from = &sources[(mix(number / 16) % SOURCES) as usize];
            writer.append(from, number * 150, time(number), 1, text.as_bytes())?;
            raw += text.len();
        }
        writer.sync(SystemTime::now())?;
        cpu += cpu_time() - began;
    }
    let (mb, seconds) = (raw as f64 / 1e6, cpu.as_secs_f64());
    let (wall, rate) = (start.elapsed().as_secs_f64(), mb / seconds);
    writeln!(
        stdout(),
        "{lines} lines, {mb:.0} MB: {seconds:.2} s of processor, {rate:.0} MB/s, {wall:.1} s by the clock"
    )?;
    Ok(())
}

fn search(out: &mut impl Write, reader: &Reader, what: &str, query: &Query) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let found = reader.search(query, &|| false, &mut |_| ControlFlow::Continue(()))?;
    let (took, hits, opened, blocks) = (start.elapsed(), found.hits, found.opened, found.blocks);
    writeln!(out, "{what}: {hits} hits in {took:.2?}, {opened} of {blocks} blocks opened")?;
    Ok(())
}

fn source(number: u64) -> Arc<Source> {
    let mut id = [0; 12];
    id[..8].copy_from_slice(&mix(number).to_le_bytes());
    let uid = format!("{:016x}-{:016x}", mix(number), mix(number + 1000));
    let labels = [
        ("container", "app".to_owned()),
        ("file", format!("/var/log/pods/shop_web-{number}_{uid}/app/0.log")),
        ("namespace", "shop".to_owned()),
        ("pod", format!("shop-web-7f9c-{number}")),
        ("restart", "0".to_owned()),
        ("uid", uid),
    ];
    Arc::new(Source { id, labels: labels.map(|(name, value)| (name.into(), value)).into() })
}

fn time(number: u64) -> i64 {
    let epoch =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400 * 86_400);
    (epoch * 1_000_000_000 + number * 1_000_000) as i64
}

/// Lines as they are found on nodes, one after the other: access log, Java, klog, JSON.
fn line(number: u64, lines: u64) -> String {
    let chance = mix(number);
    let (low, high) = (chance % 1000, chance >> 32);
    if number == lines / 3 {
        return format!("trace {RARE} lost its parent span");
    }
    match number % 4 {
        0 => format!(
            "10.{}.{}.{} - - [21/Nov/2026:10:{:02}:{:02} +0000] \"GET /api/v1/items/{high} HTTP/1.1\" {} {low} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"",
            chance % 256,
            chance / 256 % 256,
            low % 256,
            number / 60 % 60,
            number % 60,
            [200, 200, 304, 404][number as usize / 4 % 4],
        ),
        1 => format!(
            "2026-11-21 10:15:{:02}.{low:03} INFO  [http-nio-8080-exec-{}] c.e.shop.OrderService - order {high} accepted for customer {}",
            number % 60,
            low % 32,
            chance % 100_000,
        ),
        2 => format!(
            "I1121 10:15:{:02}.{low:06} 1 reconciler.go:{}] \"Reconciled object\" controller=\"deployment\" namespace=\"shop\" name=\"cart-{}\" duration=\"{low}ms\"",
            number % 60,
            chance % 900,
            chance % 5000,
        ),
        _ => format!(
            "{{\"ts\":{number}.{low},\"level\":\"info\",\"caller\":\"server/handler.go:{}\",\"msg\":\"request done\",\"trace_id\":\"{chance:016x}\",\"status\":200,\"bytes\":{high}}}",
            chance % 400,
        ),
    }
}

/// The finisher of splitmix64: chance that is the same in each run.
fn mix(number: u64) -> u64 {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// `VmHWM:      5480 kB`
fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
