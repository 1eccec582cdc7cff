//! The helper process: one thread per GPU, so that a call that does not return costs that GPU alone, and one that waits for
//! XIDs. What it says is in [`protocol`](crate::protocol).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    process::{Signal, getpid, kill_process},
    stdio::dup2_stdout,
};

use crate::{
    nvml::{Code, Device, EventSet, Nvml, XID_EVENTS},
    protocol::{self, Cycle, Order, Outcome, Reading, Report, Request, Xid},
    reader::{Errors, Gpu, Reader},
    session::{self, Opened},
};

/// How long a session may take to end once nobody wants it any more.
const END: Duration = Duration::from_millis(1500);
/// How long it is waited for an event: the end waits for that.
const EVENT_WAIT: u32 = 500;
/// The pause after waiting failed: a lost GPU answers at once, again and again.
const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// Stack of a thread: calls are shallow.
const STACK: usize = 256 << 10;

/// The helper's main function: reads orders from standard input until it ends.
pub fn run() -> ExitCode {
    match converse() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens any more.
        Err(_) => ExitCode::FAILURE,
    }
}

fn converse() -> io::Result<()> {
    let mut output = own_output()?;
    let mut input = io::stdin().lock();
    let Some(order) = protocol::read::<Order>(&mut input)? else { return Ok(()) };
    drop(input);
    // From here on calls may hang, so somebody has to watch for the end.
    let (sender, messages) = mpsc::channel();
    let requests = sender.clone();
    thread::Builder::new().stack_size(STACK).spawn(move || listen(io::stdin().lock(), &requests))?;
    let Opened { nvml, session, devices } = match session::open(&order.libraries) {
        Ok(opened) => opened,
        Err(error) => {
            let report = Report::Failed { obstacle: error.obstacle, reason: error.reason };
            return protocol::write(&mut output, &report);
        }
    };
    let by_index: Vec<(u32, Device)> =
        session.gpus.iter().map(|gpu| gpu.index).zip(devices.iter().copied()).collect();
    let gpus = session.gpus.iter().zip(&devices).map(|(identity, device)| {
        let peers = by_index.iter().copied().filter(|(index, _)| *index != identity.index).collect();
        let nvml = Arc::clone(&nvml);
        let reader =
            Reader::new(nvml, identity.clone(), *device, peers, order.fields.clone(), order.interval);
        (identity.index, Box::new(reader) as Box<dyn Gpu>)
    });
    let mut cycles = Cycles::start(gpus, order.deadline, &sender, messages)?;
    let events = Events::start(Arc::clone(&nvml), by_index, sender);
    protocol::write(&mut output, &Report::Ready(session))?;
    let said = cycles.serve(&mut output);
    if cycles.end() {
        events.end();
        // Every thread that held it has ended.
        if let Some(nvml) = Arc::into_inner(nvml) {
            nvml.shut_down();
        }
    }
    said
}

/// Where reports go. Whatever the library prints goes to standard error instead.
fn own_output() -> io::Result<File> {
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    dup2_stdout(io::stderr())?;
    Ok(output.into())
}

/// Hands requests on. When there will be no more, the process has a moment to end by itself.
fn listen(mut input: impl Read, messages: &Sender<Message>) {
    while let Ok(Some(request)) = protocol::read::<Request>(&mut input) {
        if messages.send(Message::Request(request)).is_err() {
            break;
        }
    }
    // If nobody takes it, the end is near.
    let _ = messages.send(Message::Closed);
    thread::sleep(END);
    // A call hangs. No destructor may run, for it might hang too.
    let _ = kill_process(getpid(), Signal::KILL);
}

enum Message {
    Request(Request),
    /// The agent is gone, or wants the end.
    Closed,
    /// A GPU was read.
    Read {
        gpu: u32,
        outcome: Result<Reading, Code>,
        errors: Errors,
    },
    Xid(Xid),
    /// Waiting for events failed.
    NoEvents(&'static str, Code),
}

/// Reads all GPUs whenever it is asked.
struct Cycles {
    /// Those that can be asked: by number, their thread.
    workers: BTreeMap<u32, Worker>,
    deadline: Duration,
    messages: Receiver<Message>,
    xids: Vec<Xid>,
    errors: BTreeMap<(&'static str, Code), u64>,
}

struct Worker {
    orders: Sender<()>,
    thread: JoinHandle<()>,
    /// It was asked and has not answered.
    is_asked: bool,
}

impl Cycles {
    fn start(
        gpus: impl Iterator<Item = (u32, Box<dyn Gpu>)>,
        deadline: Duration,
        answers: &Sender<Message>,
        messages: Receiver<Message>,
    ) -> io::Result<Self> {
        let mut workers = BTreeMap::new();
        for (index, gpu) in gpus {
            let (orders, asked) = mpsc::channel();
            let answers = answers.clone();
            let work = move || read_when_asked(index, gpu, &asked, &answers);
            let thread = thread::Builder::new().name(format!("gpu{index}")).stack_size(STACK).spawn(work)?;
            workers.insert(index, Worker { orders, thread, is_asked: false });
        }
        Ok(Self { workers, deadline, messages, xids: Vec::new(), errors: BTreeMap::new() })
    }

    /// Answers requests until there are no more.
    fn serve(&mut self, output: &mut impl Write) -> io::Result<()> {
        loop {
            match self.messages.recv() {
                Ok(Message::Request(request)) => {
                    let (cycle, is_closed) = self.cycle(&request);
                    let is_last = cycle.is_last;
                    protocol::write(output, &Report::Cycle(cycle))?;
                    if is_last || is_closed {
                        return Ok(());
                    }
                }
                Ok(Message::Closed) | Err(_) => return Ok(()),
                Ok(other) => {
                    self.note(other);
                }
            }
        }
    }

    /// Reads every GPU that can be asked; whether the end was asked for meanwhile.
    fn cycle(&mut self, request: &Request) -> (Cycle, bool) {
        let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
        let mut missing = BTreeSet::new();
        for (&index, worker) in &mut self.workers {
            let outcome = if worker.is_asked {
                Outcome::Stuck
            } else if request.skip.contains(&index) {
                Outcome::Skipped
            } else {
                // Its thread ends only with this process.
                worker.is_asked = worker.orders.send(()).is_ok();
                missing.extend(worker.is_asked.then_some(index));
                Outcome::Stuck
            };
            outcomes.insert(index, outcome);
        }
        let until = Instant::now() + self.deadline;
        let mut is_closed = false;
        while !missing.is_empty() && !is_closed {
            match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Closed) | Err(RecvTimeoutError::Disconnected) => is_closed = true,
                Err(RecvTimeoutError::Timeout) => break,
                Ok(message) => {
                    if let Some((gpu, outcome)) = self.note(message) {
                        // It may also be one that was stuck since an earlier cycle.
                        missing.remove(&gpu);
                        outcomes.insert(gpu, outcome);
                    }
                }
            }
        }
        let is_over = |outcome: &Outcome| matches!(outcome, Outcome::Failed(code) if code.ends_session());
        let is_last = !outcomes.is_empty() && outcomes.values().all(is_over);
        let errors = std::mem::take(&mut self.errors);
        let cycle = Cycle {
            gpus: outcomes.into_iter().collect(),
            xids: std::mem::take(&mut self.xids),
            errors: errors.into_iter().map(|((call, code), count)| (call.to_owned(), code, count)).collect(),
            is_last,
        };
        (cycle, is_closed)
    }

    /// Takes in what happened; how it went with a GPU of this cycle.
    fn note(&mut self, message: Message) -> Option<(u32, Outcome)> {
        match message {
            Message::Read { gpu, outcome, errors } => {
                for (call, count) in errors {
                    *self.errors.entry(call).or_default() += count;
                }
                let worker = self.workers.get_mut(&gpu)?;
                worker.is_asked = false;
                let outcome =
                    outcome.map_or_else(Outcome::Failed, |reading| Outcome::Read(Box::new(reading)));
                Some((gpu, outcome))
            }
            Message::Xid(xid) => {
                // A storm is told by its first thousand.
                if self.xids.len() < 1000 {
                    self.xids.push(xid);
                }
                None
            }
            Message::NoEvents(call, code) => {
                *self.errors.entry((call, code)).or_default() += 1;
                None
            }
            Message::Request(_) | Message::Closed => None,
        }
    }

    /// Ends the threads; whether all of them could be ended.
    fn end(self) -> bool {
        if self.workers.values().any(|worker| worker.is_asked) {
            return false;
        }
        self.workers.into_values().all(|worker| {
            drop(worker.orders);
            worker.thread.join().is_ok()
        })
    }
}

fn read_when_asked(index: u32, mut gpu: Box<dyn Gpu>, asked: &Receiver<()>, answers: &Sender<Message>) {
    while asked.recv().is_ok() {
        let outcome = gpu.read();
        let errors = gpu.take_errors();
        if answers.send(Message::Read { gpu: index, outcome, errors }).is_err() {
            return;
        }
    }
}

/// The thread that waits for XIDs.
struct Events {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Events {
    fn start(nvml: Arc<Nvml>, gpus: Vec<(u32, Device)>, messages: Sender<Message>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let wait = move || match nvml.event_set() {
            Ok(set) => {
                wait_for_xids(&nvml, &set, &gpus, &messages, &over);
                nvml.free_event_set(set);
            }
            Err(code) => say_no_events(&messages, "nvmlEventSetCreate", code),
        };
        // Without it the kernel log still tells.
        let thread = thread::Builder::new().name("xids".into()).stack_size(STACK).spawn(wait).ok();
        Self { is_over, thread }
    }

    fn end(mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends by itself; what it panicked of was said.
            let _ = thread.join();
        }
    }
}

fn say_no_events(messages: &Sender<Message>, call: &'static str, code: Code) {
    if !code.is_absence() {
        // Nobody listens at the end.
        let _ = messages.send(Message::NoEvents(call, code));
    }
}

fn wait_for_xids(
    nvml: &Nvml,
    set: &EventSet,
    gpus: &[(u32, Device)],
    messages: &Sender<Message>,
    is_over: &AtomicBool,
) {
    let mut is_any = false;
    for (_, device) in gpus {
        // One GPU that has none takes nothing from the others.
        match nvml.register(*device, XID_EVENTS, set) {
            Ok(()) => is_any = true,
            Err(code) => say_no_events(messages, "nvmlDeviceRegisterEvents", code),
        }
    }
    while is_any && !is_over.load(Relaxed) {
        match nvml.wait(set, EVENT_WAIT) {
            Ok(event) if event.kind & XID_EVENTS != 0 => {
                let gpu = gpus.iter().find(|(_, device)| *device == event.device);
                let Some((gpu, _)) = gpu else { continue };
                let xid = Xid { gpu: *gpu, instance: event.instance, code: event.data };
                if messages.send(Message::Xid(xid)).is_err() {
                    return;
                }
            }
            Ok(_) | Err(Code::TIMEOUT) => {}
            Err(code) => {
                say_no_events(messages, "nvmlEventSetWait", code);
                thread::sleep(EVENT_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fields::FieldId;

    /// A GPU that answers what it is told to, when it is told to.
    struct Told(Arc<Mutex<Receiver<Result<Reading, Code>>>>);

    impl Gpu for Told {
        fn read(&mut self) -> Result<Reading, Code> {
            self.0.lock().expect("one thread").recv().unwrap_or(Err(Code::UNKNOWN))
        }

        fn take_errors(&mut self) -> Errors {
            [(("nvmlX", Code::NO_PERMISSION), 1)].into()
        }
    }

    /// Tells a GPU what to answer.
    type Teller = Sender<Result<Reading, Code>>;

    fn told(count: u32) -> (Cycles, Vec<Teller>, Sender<Message>) {
        let (sender, messages) = mpsc::channel();
        let mut tellers = Vec::new();
        let gpus = (0..count).map(|index| {
            let (teller, told) = mpsc::channel();
            tellers.push(teller);
            (index, Box::new(Told(Arc::new(Mutex::new(told)))) as Box<dyn Gpu>)
        });
        let gpus: Vec<_> = gpus.collect();
        let cycles = Cycles::start(gpus.into_iter(), Duration::from_millis(300), &sender, messages);
        (cycles.expect("threads"), tellers, sender)
    }

    fn reading(value: f64) -> Reading {
        Reading { values: vec![(FieldId(0), value)], ..Reading::default() }
    }

    #[test]
    fn a_gpu_that_hangs_is_left_out_until_it_returns() {
        let (mut cycles, tellers, _sender) = told(2);
        let read = |value| Outcome::Read(Box::new(reading(value)));
        tellers[0].send(Ok(reading(1.0))).expect("it listens");
        let (cycle, _) = cycles.cycle(&Request::default());
        assert_eq!(cycle.gpus, [(0, read(1.0)), (1, Outcome::Stuck)]);
        assert_eq!(cycle.errors, [("nvmlX".to_owned(), Code::NO_PERMISSION, 1)]);
        // It is not asked again meanwhile.
        tellers[0].send(Ok(reading(2.0))).expect("it listens");
        let (cycle, _) = cycles.cycle(&Request::default());
        assert_eq!(cycle.gpus, [(0, read(2.0)), (1, Outcome::Stuck)]);
        // It comes back with what it was asked at first, then answers again.
        tellers[1].send(Ok(reading(8.0))).expect("it listens");
        let message = cycles.messages.recv().expect("its answer");
        cycles.note(message);
        tellers[1].send(Ok(reading(9.0))).expect("it listens");
        let (cycle, _) = cycles.cycle(&Request { skip: vec![0] });
        assert_eq!(cycle.gpus, [(0, Outcome::Skipped), (1, read(9.0))]);
        drop(tellers);
        assert!(cycles.end());
    }

    #[test]
    fn a_late_answer_does_not_stand_for_another_one() {
        let (mut cycles, tellers, sender) = told(2);
        tellers[0].send(Ok(reading(1.0))).expect("it listens");
        assert_eq!(cycles.cycle(&Request::default()).0.gpus[1], (1, Outcome::Stuck));
        // The late one is there before the other one is asked.
        tellers[1].send(Ok(reading(2.0))).expect("it listens");
        let late = cycles.messages.recv().expect("its answer");
        sender.send(late).expect("it listens");
        tellers[0].send(Ok(reading(3.0))).expect("it listens");
        let (cycle, _) = cycles.cycle(&Request::default());
        let read = |value| Outcome::Read(Box::new(reading(value)));
        assert_eq!(cycle.gpus, [(0, read(3.0)), (1, read(2.0))]);
    }

    #[test]
    fn a_session_in_which_every_gpu_fails_ends() {
        let (mut cycles, tellers, _sender) = told(2);
        tellers[0].send(Err(Code::GPU_IS_LOST)).expect("it listens");
        tellers[1].send(Ok(reading(1.0))).expect("it listens");
        let (cycle, _) = cycles.cycle(&Request::default());
        assert!(!cycle.is_last);
        for teller in &tellers {
            teller.send(Err(Code::DRIVER_NOT_LOADED)).expect("it listens");
        }
        let (cycle, _) = cycles.cycle(&Request::default());
        assert!(cycle.is_last);
        // One without a GPU goes on: one may come.
        let (mut cycles, _, _sender) = told(0);
        assert!(!cycles.cycle(&Request::default()).0.is_last);
    }

    #[test]
    fn the_end_does_not_wait_for_a_gpu_that_hangs() {
        let (mut cycles, _tellers, sender) = told(1);
        let xid = Xid { gpu: 0, instance: None, code: 79 };
        sender.send(Message::Xid(xid)).expect("it listens");
        sender.send(Message::Closed).expect("it listens");
        let (cycle, is_closed) = cycles.cycle(&Request::default());
        assert!(is_closed);
        assert_eq!((cycle.gpus, cycle.xids), (vec![(0, Outcome::Stuck)], vec![xid]));
        assert!(!cycles.end());
    }
}
