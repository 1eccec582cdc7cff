//! Collectors that fail in every way, run for real: a hang is an open of a FIFO that nobody writes to.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use flate2::read::GzDecoder;
use nodewarden_collectors::{CollectError, Collector, Options};
use prometheus::Registry;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

static COUNT: nodewarden_collectors::Desc =
    nodewarden_collectors::Desc::gauge("runs", "Runs so far.", &["of"]);

/// What a test collector does is read from the host's tree: `NAME.panics`, `NAME.fails` or the FIFO `NAME.hangs`.
struct Odd {
    name: &'static str,
    panics: bool,
    runs: u32,
}

impl Collector for Odd {
    fn collect(&mut self, host: &Host, out: &mut Samples) -> Result<(), CollectError> {
        self.runs += 1;
        out.push(&COUNT, &[self.name], f64::from(self.runs));
        assert!(!self.panics, "as it was told");
        if let Ok(mut gate) = File::open(host.proc(&format!("{}.hangs", self.name))) {
            gate.read_to_end(&mut Vec::new()).expect("the writer only closes");
        }
        match host.proc(&format!("{}.fails", self.name)).exists() {
            true => Err(CollectError::NoData),
            false => Ok(()),
        }
    }
}

fn odd(host: &Host, name: &'static str) -> Result<Box<dyn Collector>, BuildError> {
    Ok(Box::new(Odd { name, panics: host.proc(&format!("{name}.panics")).exists(), runs: 0 }))
}

fn build_a(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    odd(host, "a")
}

fn build_b(host: &Host, _: &Options) -> Result<Box<dyn Collector>, BuildError> {
    odd(host, "b")
}

static A: Entry = Entry { name: "a", default_on: true, flags: &[], build: build_a };
static B: Entry = Entry { name: "b", default_on: true, flags: &[], build: build_b };

fn scraper(tree: &Path) -> Scraper {
    let host = Host { procfs: tree.to_owned(), ..Host::default() };
    let own = Own::new(Registry::new()).expect("an empty registry");
    Scraper::with_entries(vec![&A, &B], Settings::new(), host, own, true).expect("built")
}

fn tree() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// Long enough that a test which needs it has failed.
fn ample() -> Instant {
    within(60_000)
}

fn everything(scraper: &Scraper) -> Request {
    Request { selection: scraper.select(&[], &[]).expect("no filter"), gzip: false }
}

async fn page(scraper: &Scraper, deadline: Instant) -> String {
    let page = scraper.page(everything(scraper), deadline).await.expect("a page");
    String::from_utf8(page.to_vec()).expect("UTF-8")
}

fn success(page: &str, collector: &str) -> bool {
    let line = format!("node_scrape_collector_success{{collector=\"{collector}\"}} ");
    let (_, rest) = page.split_once(&line).expect("each wanted collector is listed");
    rest.starts_with('1')
}

fn hang(tree: &Path, name: &str) {
    let gate = tree.join(format!("{name}.hangs"));
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
}

/// Lets the hanging call return, and later ones not hang.
fn release(tree: &Path, name: &str) {
    let gate = tree.join(format!("{name}.hangs"));
    let writer = File::options().write(true).open(&gate).expect("the collector waits at the other end");
    fs::remove_file(&gate).expect("removed");
    drop(writer);
}

#[tokio::test]
async fn each_collector_says_how_it_went_and_how_long_it_took() {
    let tree = tree();
    let page = page(&scraper(tree.path()), ample()).await;
    assert!(page.contains(
        "# HELP node_scrape_collector_duration_seconds node_exporter: Duration of a collector scrape.\n\
         # TYPE node_scrape_collector_duration_seconds gauge\n"
    ));
    assert!(page.contains(
        "# HELP node_scrape_collector_success node_exporter: Whether a collector succeeded.\n\
         # TYPE node_scrape_collector_success gauge\n"
    ));
    assert!(page.contains("node_scrape_collector_duration_seconds{collector=\"b\"} "));
    assert!(success(&page, "a") && success(&page, "b"));
}

#[tokio::test]
async fn a_failing_collector_keeps_what_it_said_before() {
    let tree = tree();
    fs::write(tree.path().join("a.fails"), "").expect("written");
    let page = page(&scraper(tree.path()), ample()).await;
    assert!(!success(&page, "a") && success(&page, "b"));
    assert!(page.contains("runs{of=\"a\"} 1\n"));
}

#[tokio::test]
async fn a_panic_costs_the_collector_its_samples_and_it_is_made_anew() {
    let tree = tree();
    fs::write(tree.path().join("a.panics"), "").expect("written");
    let scraper = scraper(tree.path());
    let first = page(&scraper, ample()).await;
    assert!(!success(&first, "a") && success(&first, "b"));
    assert!(!first.contains("runs{of=\"a\"}"));
    fs::remove_file(tree.path().join("a.panics")).expect("removed");
    let second = page(&scraper, ample()).await;
    assert!(success(&second, "a"));
    assert!(second.contains("runs{of=\"a\"} 1\n") && second.contains("runs{of=\"b\"} 2\n"));
}

#[tokio::test]
async fn a_collector_that_hangs_is_left_out_until_it_returns() {
    let tree = tree();
    hang(tree.path(), "a");
    let scraper = scraper(tree.path());
    let first = page(&scraper, within(600)).await;
    assert!(!success(&first, "a") && success(&first, "b"));
    assert!(!first.contains("runs{of=\"a\"}"));
    // One for the scraper, one for the worker, one for the stuck call; more scrapes pile up nothing.
    let threads = || Arc::strong_count(&scraper.inner.bench);
    assert_eq!(threads(), 3);
    let asked = Instant::now();
    for _ in 0..3 {
        assert!(!success(&page(&scraper, ample()).await, "a"));
    }
    assert!(asked.elapsed() < Duration::from_secs(3), "a stuck collector is not waited for");
    assert_eq!(threads(), 3);
    release(tree.path(), "a");
    let back = async {
        while !success(&page(&scraper, ample()).await, "a") || threads() > 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), back).await.expect("it is back, its thread is gone");
}

#[tokio::test]
async fn a_collector_that_takes_seconds_each_time_costs_them_once() {
    let tree = tree();
    hang(tree.path(), "a");
    let scraper = scraper(tree.path());
    let threads = || Arc::strong_count(&scraper.inner.bench);
    let settled = async || {
        while threads() > 2 {
            tokio::task::yield_now().await;
        }
    };
    // Longer than any scrape waits.
    assert!(!success(&page(&scraper, ample()).await, "a"));
    release(tree.path(), "a");
    timeout(Duration::from_secs(30), settled()).await.expect("it returned");
    hang(tree.path(), "a");
    let asked = Instant::now();
    let page_without = page(&scraper, ample()).await;
    assert!(!success(&page_without, "a") && success(&page_without, "b"));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    release(tree.path(), "a");
    timeout(Duration::from_secs(30), settled()).await.expect("it returned");
    assert!(success(&page(&scraper, ample()).await, "a"), "it is faster and has its time again");
}

#[tokio::test]
async fn two_that_hang_still_leave_time_for_an_answer() {
    let tree = tree();
    hang(tree.path(), "a");
    hang(tree.path(), "b");
    let page = page(&scraper(tree.path()), within(800)).await;
    assert!(!success(&page, "a") && !success(&page, "b"));
    release(tree.path(), "a");
    release(tree.path(), "b");
}

#[tokio::test]
async fn a_scrape_that_was_given_up_does_not_block_the_next_one() {
    let tree = tree();
    hang(tree.path(), "a");
    let scraper = scraper(tree.path());
    timeout(Duration::from_millis(20), page(&scraper, ample())).await.expect_err("it hangs");
    let next = page(&scraper, within(600)).await;
    assert!(!success(&next, "a") && success(&next, "b"));
    release(tree.path(), "a");
}

#[tokio::test]
async fn who_waits_for_longer_than_allowed_is_told_so() {
    let tree = tree();
    hang(tree.path(), "a");
    let scraper = scraper(tree.path());
    let (first, second) =
        tokio::join!(page(&scraper, within(1000)), scraper.page(everything(&scraper), within(50)));
    assert!(success(&first, "b"));
    assert!(matches!(second, Err(ScrapeError::Deadline)));
    release(tree.path(), "a");
}

#[tokio::test]
async fn equal_requests_at_once_share_a_scrape_and_later_ones_do_not() {
    let tree = tree();
    let scraper = scraper(tree.path());
    let (first, second) = tokio::join!(page(&scraper, ample()), page(&scraper, ample()));
    assert!(first.contains("runs{of=\"a\"} 1\n"));
    assert_eq!(first, second);
    assert!(page(&scraper, ample()).await.contains("runs{of=\"a\"} 2\n"));
}

#[tokio::test]
async fn different_requests_at_once_get_their_own() {
    let tree = tree();
    let scraper = scraper(tree.path());
    let only_b = Request { selection: scraper.those_of(&["b"]), gzip: false };
    let (all, b) = tokio::join!(page(&scraper, ample()), scraper.page(only_b, ample()));
    let b = String::from_utf8(b.expect("a page").to_vec()).expect("UTF-8");
    assert!(all.contains("runs{of=\"a\"} 1\n") && all.contains("runs{of=\"b\"} 1\n"));
    assert!(!b.contains("of=\"a\"") && b.contains("runs{of=\"b\"} 2\n"));
}

#[tokio::test]
async fn a_compressed_page_is_the_same_page() {
    let tree = tree();
    let scraper = scraper(tree.path());
    let request = Request { gzip: true, ..everything(&scraper) };
    let compressed = scraper.page(request, ample()).await.expect("a page");
    let mut plain = String::new();
    GzDecoder::new(&compressed[..]).read_to_string(&mut plain).expect("gzip");
    assert!(plain.contains("runs{of=\"a\"} 1\n") && plain.contains("nodewarden_build_info{"));
}

#[tokio::test]
async fn a_reader_that_panics_costs_only_its_own_answer() {
    let tree = tree();
    let scraper = scraper(tree.path());
    let selection = scraper.those_of(&["a"]);
    let lost = scraper.samples(&selection, ample(), |_| -> usize { panic!("as it was told") }).await;
    assert!(matches!(lost, Err(ScrapeError::Lost)));
    let count = scraper.samples(&selection, ample(), Samples::len).await.expect("read");
    assert_eq!(count, 3);
}

#[tokio::test]
async fn the_agents_own_metrics_are_on_the_page() {
    let own = Own::new(Registry::new()).expect("an empty registry");
    own.logs.files_open.set(7);
    let scraper = Scraper::with_entries(vec![], Settings::new(), Host::default(), own, false).expect("built");
    let page = page(&scraper, ample()).await;
    assert!(page.contains("nodewarden_log_files_open 7\n") && page.contains("process_cpu_seconds_total "));
}

#[test]
fn selections_are_refused_as_node_exporter_refuses_them() {
    let tree = tree();
    let scraper = scraper(tree.path());
    let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    let select = |collect: &[&str], exclude: &[&str]| scraper.select(&names(collect), &names(exclude));
    let selection =
        |names: &[&str], is_named| Ok(Selection { is_named, wanted: scraper.those_of(names).wanted });
    assert_eq!(select(&["b"], &[]), selection(&["b"], true));
    assert_eq!(select(&[], &["b", "unknown"]), selection(&["a"], false));
    assert_eq!(select(&[], &["a", "b"]), selection(&["a", "b"], false));
    let text =
        |collect: &[&str], exclude: &[&str]| select(collect, exclude).expect_err("refused").to_string();
    assert_eq!(text(&["a"], &["b"]), "Combined collect and exclude queries are not allowed.");
    assert_eq!(
        text(&["x"], &[]),
        "Couldn't create filtered metrics handler: couldn't create collector: missing collector: x"
    );
    assert_eq!(
        text(&["loadavg"], &[]),
        "Couldn't create filtered metrics handler: couldn't create collector: disabled collector: loadavg"
    );
}

#[test]
fn the_deadline_leaves_time_to_answer() {
    let now = Instant::now();
    let given = |header| (deadline(header, now) - now).as_secs_f64();
    assert_eq!(given(None), 9.5);
    assert_eq!(given(Some("30")), 29.5);
    assert_eq!(given(Some("0.6")), 0.3);
    for odd in ["", "-1", "NaN", "soon"] {
        assert_eq!(given(Some(odd)), 9.5, "{odd}");
    }
    assert_eq!(given(Some("inf")), 3599.5);
}
