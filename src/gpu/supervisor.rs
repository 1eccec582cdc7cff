//! Keeps the helper process running while there is a driver, and takes in what it and the kernel's log say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    time::{Duration, Instant},
};

use nodewarden_gpu::{
    board::State,
    library,
    protocol::{Order, Report, Request, Session},
    xids::{Bus, Told, Witness},
};
use tokio::{
    select,
    time::{sleep, timeout},
};

use super::{
    Gpus, Settings,
    helper::{Helper, Left},
    kernel_log::KernelLog,
};
use crate::{logs::ship::off_thread, metrics::own::Features, shutdown::Shutdown};

/// How long a session may take to begin: GPUs without persistence mode are woken up one by one.
const START: Duration = Duration::from_secs(60);
/// How much longer than a cycle its report may take.
const GRACE: Duration = Duration::from_secs(3);
/// How often at the least it is looked for a driver.
const LOOK: Duration = Duration::from_secs(60);
/// The pause before the next session after one that failed, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// When the second cycle follows the first, if the interval is longer: some values tell of the time between two.
const SECOND: Duration = Duration::from_secs(2);
/// How long a GPU is left alone after an XID that says that its calls will hang.
const REST: Duration = Duration::from_secs(60);
/// How long a session lasts that some GPUs were not there for: the next one may see them.
const PART: Duration = Duration::from_secs(600);
/// How long every GPU may be stuck until another process tries, at most.
const ALL_STUCK: Duration = Duration::from_secs(60);

/// Reads the GPUs as long as it is not asked to stop. With `None` they are not to be read, and that is said.
pub async fn watch(settings: Option<Settings>, gpus: Gpus, features: Features, mut shutdown: Shutdown) {
    let Some(settings) = settings else {
        gpus.show(None);
        features.say(FEATURE, false, "gpu.enabled is false");
        return;
    };
    gpus.show(Some(settings.style.clone()));
    let mut supervisor = Supervisor::new(settings, gpus.clone(), features);
    let mut shutdown_too = shutdown.clone();
    loop {
        let pause = supervisor.attempt(&mut shutdown_too).await;
        select! {
            () = shutdown.requested() => break,
            () = sleep(pause) => {}
        }
    }
    gpus.board().lose(State::Absent);
    gpus.show(None);
}

const FEATURE: &str = "gpu";

struct Supervisor {
    settings: Settings,
    gpus: Gpus,
    features: Features,
    kernel_log: Option<KernelLog>,
    /// GPUs that are left alone, until when.
    resting: BTreeMap<Bus, Instant>,
    /// A helper that can't be ended: there is never more than one.
    left: Option<Left>,
    pause: Duration,
    /// What was said last.
    said: Option<(State, String)>,
}

/// Why a session ended.
enum End {
    /// It was asked for.
    Asked,
    /// It failed, and why.
    Failed(State, String),
    /// Another one would see more.
    Outgrown,
}

impl Supervisor {
    fn new(settings: Settings, gpus: Gpus, features: Features) -> Self {
        let pause = PAUSES[0].min(settings.interval);
        let resting = BTreeMap::new();
        Self { settings, gpus, features, kernel_log: None, resting, left: None, pause, said: None }
    }

    /// One session, if there can be one; how long to wait for the next.
    async fn attempt(&mut self, shutdown: &mut Shutdown) -> Duration {
        // A look at files of the kernel's own memory.
        if !self.settings.driver.join("version").exists() {
            self.kernel_log = None;
            self.gpus.board().lose(State::Absent);
            self.say(State::Absent, "there is no NVIDIA driver");
            return LOOK.min(self.settings.interval);
        }
        if self.kernel_log.is_none() {
            self.kernel_log = KernelLog::open(&self.settings.kernel_log);
        }
        // It tells also while nobody else can.
        self.hear_kernel();
        if self.left.as_mut().is_some_and(Left::is_there) {
            return self.pause;
        }
        self.left = None;
        let end = self.session(shutdown).await;
        let (state, reason) = match end {
            End::Asked => return Duration::ZERO,
            End::Outgrown => {
                self.gpus.board().lose(State::Starting);
                return self.first_pause();
            }
            End::Failed(state, reason) => (state, reason),
        };
        let (state, reason) = match &self.left {
            Some(left) => {
                let pid = left.pid();
                (State::Stuck, format!("{reason}; process {pid} hangs in the driver and can't be ended"))
            }
            None => (state, reason),
        };
        self.gpus.board().lose(state);
        if !self.is_said(state, &reason) {
            // Something has changed: the next change may be near.
            self.pause = self.first_pause();
        }
        self.say(state, &reason);
        let pause = self.pause;
        self.pause = (2 * self.pause).min(PAUSES[1]);
        pause
    }

    /// Notes which GPUs the kernel's module has.
    fn expect(&self) -> BTreeSet<Bus> {
        let listed = fs::read_dir(self.settings.driver.join("gpus")).into_iter().flatten().flatten();
        let expected: BTreeSet<Bus> =
            listed.filter_map(|entry| Bus::parse(&entry.file_name().to_string_lossy())).collect();
        self.gpus.board().expected.clone_from(&expected);
        expected
    }

    async fn session(&mut self, shutdown: &mut Shutdown) -> End {
        self.gpus.board().state = State::Starting;
        let mut helper = match Helper::start() {
            Ok(helper) => helper,
            Err(error) => {
                return End::Failed(
                    State::Failed,
                    format!("the helper process could not be started: {error}"),
                );
            }
        };
        self.gpus.board().starts += 1;
        let mut end = select! {
            end = self.converse(&mut helper) => end,
            () = shutdown.requested() => End::Asked,
        };
        match helper.end().await {
            Ok(status) => {
                if let (End::Failed(_, reason), Some(status)) = (&mut end, status)
                    && !status.success()
                {
                    reason.push_str(&format!(" ({status})"));
                }
            }
            Err(left) => {
                let pid = left.pid();
                tracing::warn!(pid, "the GPU helper process hangs in the driver and is left behind");
                self.left = Some(left);
            }
        }
        end
    }

    /// Talks to the helper until that fails.
    async fn converse(&mut self, helper: &mut Helper) -> End {
        let expected = self.expect();
        let begun = Instant::now();
        let is_part;
        let report = match timeout(START, self.begin(helper)).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => return End::Failed(State::Failed, gone(&error)),
            Err(_) => return End::Failed(State::Stuck, "the driver does not answer".into()),
        };
        match report {
            Report::Ready(session) => {
                if session.gpus.is_empty()
                    && let Some((_, code)) = session.refused.first()
                {
                    let state = State::of(nodewarden_gpu::protocol::Obstacle::of(*code));
                    return End::Failed(state, format!("no GPU can be opened: {code}"));
                }
                if session.gpus.is_empty() && !expected.is_empty() {
                    let reason = format!("none of {} GPUs may be opened from here", expected.len());
                    return End::Failed(State::NoPermission, reason);
                }
                is_part = session.gpus.len() < expected.len();
                self.ready(&session);
            }
            Report::Failed { obstacle, reason } => return End::Failed(State::of(obstacle), reason),
            Report::Cycle(_) => return End::Failed(State::Failed, "the helper process is confused".into()),
        }
        let mut stuck_since: Option<Instant> = None;
        let mut next = Instant::now();
        let mut is_first = true;
        loop {
            self.hear_kernel();
            if !self.expect().is_subset(&expected) || (is_part && begun.elapsed() > PART) {
                return End::Outgrown;
            }
            let request = self.request();
            let asked = async {
                helper.tell(&request).await?;
                helper.hear().await
            };
            let cycle = match timeout(self.settings.deadline() + GRACE, asked).await {
                Ok(Ok(Report::Cycle(cycle))) => cycle,
                Ok(Ok(_)) => return End::Failed(State::Failed, "the helper process is confused".into()),
                Ok(Err(error)) => return End::Failed(State::Failed, gone(&error)),
                Err(_) => return End::Failed(State::Stuck, "the helper process does not answer".into()),
            };
            let is_last = cycle.is_last;
            let now = Instant::now();
            let fresh_until = now + 2 * self.settings.interval + self.settings.deadline() + GRACE;
            let (news, state) = {
                let mut board = self.gpus.board();
                (board.take(cycle, now, fresh_until), board.state)
            };
            news.into_iter().for_each(|told| self.tell(told));
            if is_last {
                return End::Failed(State::Failed, "every GPU is lost, or the driver is gone".into());
            }
            self.say_cycle(state);
            stuck_since = (state == State::Stuck).then(|| stuck_since.unwrap_or(now));
            let patience = ALL_STUCK.min(10 * self.settings.interval);
            if stuck_since.is_some_and(|since| now - since > patience) {
                return End::Failed(State::Stuck, "no call of the driver returns".into());
            }
            next += if is_first { SECOND.min(self.settings.interval) } else { self.settings.interval };
            is_first = false;
            // After a stall the pace is taken up anew.
            next = next.max(Instant::now());
            sleep(next - Instant::now()).await;
        }
    }

    async fn begin(&self, helper: &mut Helper) -> io::Result<Report> {
        let (library, root) = (self.settings.library.clone(), self.settings.root.clone());
        // Folders of the host may be anything.
        let search = move || library.map_or_else(|| library::candidates(&root), |path| vec![path]);
        let order = Order {
            libraries: off_thread(search).await,
            fields: self.settings.style.counters.fields(),
            interval: self.settings.interval,
            deadline: self.settings.deadline(),
        };
        helper.tell(&order).await?;
        helper.hear().await
    }

    fn ready(&mut self, session: &Session) {
        let (library, driver) = (session.library.display(), &session.driver);
        tracing::info!(gpus = session.gpus.len(), driver, %library, "GPUs are read");
        for (index, code) in &session.refused {
            tracing::warn!(gpu = index, %code, "a GPU can't be opened");
        }
        self.gpus.board().begin(session);
        self.said = None;
    }

    /// GPUs that are likely to hang are left alone for a while.
    fn request(&mut self) -> Request {
        let now = Instant::now();
        self.resting.retain(|_, until| *until > now);
        let board = self.gpus.board();
        let skip = self.resting.keys().filter_map(|bus| Some(board.gpu_at(*bus)?.index)).collect();
        Request { skip }
    }

    fn hear_kernel(&mut self) {
        let told = self.kernel_log.as_mut().map(KernelLog::read).unwrap_or_default();
        for told in told {
            if self.gpus.board().xids.take(told, Witness::Kernel, Instant::now()) {
                self.tell(told);
            }
        }
    }

    /// Says an XID that is news.
    fn tell(&mut self, told: Told) {
        let Told { bus, code, .. } = told;
        let text = nodewarden_gpu::xids::text_of(code);
        tracing::warn!(pci_bus_id = %bus, xid = code, text, "a GPU reported an error");
        if told.is_fatal() {
            self.resting.insert(bus, Instant::now() + REST);
        }
    }

    /// Says how a cycle went.
    fn say_cycle(&mut self, state: State) {
        let (read, all) = {
            let board = self.gpus.board();
            (board.readings.len(), board.gpus.len().max(board.expected.len()))
        };
        let reason = match state {
            State::Ready => String::new(),
            _ => format!("{read} of {all} GPUs can be read"),
        };
        if matches!(state, State::Ready | State::Degraded) {
            self.pause = self.first_pause();
        }
        self.say(state, &reason);
    }

    fn is_said(&self, state: State, reason: &str) -> bool {
        self.said.as_ref().is_some_and(|(said, words)| *said == state && words == reason)
    }

    fn first_pause(&self) -> Duration {
        PAUSES[0].min(self.settings.interval)
    }

    /// Says a state once, in the log and as a feature.
    fn say(&mut self, state: State, reason: &str) {
        if self.is_said(state, reason) {
            return;
        }
        let is_on = matches!(state, State::Ready | State::Degraded);
        self.features.say(FEATURE, is_on, reason);
        match state {
            State::Absent => tracing::debug!(reason, "no GPUs are read"),
            State::Ready => {}
            State::Degraded => tracing::warn!(reason, "some GPUs can't be read"),
            _ => tracing::warn!(reason, "no GPUs are read"),
        }
        self.said = Some((state, reason.to_owned()));
    }
}

/// What the end of the pipe means.
fn gone(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => "the helper process ended".into(),
        _ => format!("the helper process can't be understood: {error}"),
    }
}
