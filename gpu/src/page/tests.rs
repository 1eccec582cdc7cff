use nodewarden_collectors::text;

use super::*;
use crate::{
    fields::FieldId,
    nvml::Code,
    protocol::{Cycle, Outcome, Session, Xid},
    xids::{Told, Witness},
};

struct Known {
    devices: Vec<(&'static str, &'static str)>,
    processes: Vec<(u32, &'static str)>,
}

fn holder(pod: &str) -> Holder {
    Holder { namespace: "ml".into(), pod: pod.into(), container: "main".into() }
}

impl Pods for Known {
    fn devices(&self) -> Vec<(String, Holder)> {
        self.devices.iter().map(|(id, pod)| ((*id).to_owned(), holder(pod))).collect()
    }

    fn of_process(&self, pid: u32) -> Option<Holder> {
        self.processes.iter().find(|(known, _)| *known == pid).map(|(_, pod)| holder(pod))
    }
}

fn identity(index: u32) -> Identity {
    Identity {
        index,
        uuid: format!("GPU-{index}"),
        bus_id: format!("00000000:{index}B:00.0"),
        model: "NVIDIA H200".into(),
        labels: vec![
            ("DCGM_FI_DRIVER_VERSION".into(), "580.95.05".into()),
            ("DCGM_FI_DEV_SERIAL".into(), "165".into()),
        ],
    }
}

fn field(name: &str) -> FieldId {
    FieldId::of(name).expect("it is in the table")
}

fn read(values: &[(&str, f64)]) -> Reading {
    let values = values.iter().map(|(name, value)| (field(name), *value)).collect();
    Reading { values, ..Reading::default() }
}

fn board(readings: Vec<Reading>) -> (Board, Instant) {
    let mut board = Board::default();
    let gpus: Vec<Identity> = (0..readings.len() as u32).map(identity).collect();
    board.expected = gpus.iter().filter_map(|gpu| Bus::parse(&gpu.bus_id)).collect();
    board.begin(&Session { gpus, ..Session::default() });
    let now = Instant::now();
    let outcomes = readings.into_iter().map(|reading| Outcome::Read(Box::new(reading)));
    let gpus = (0..).zip(outcomes).collect();
    board.take(Cycle { gpus, ..Cycle::default() }, now, now + WINDOW);
    (board, now)
}

fn style(names: &[&str]) -> Style {
    let lines: Vec<String> = names.iter().map(|name| format!("{name}, gauge, Help of it.")).collect();
    let text = lines.join("\n") + "\nDCGM_FI_DRIVER_VERSION, label, x";
    Style {
        counters: Counters::parse(&text).counters.expect("nothing is wrong"),
        hostname_label: "Hostname".into(),
        node: "node1".into(),
        repeat_for_instances: false,
        repeat_for_pods: false,
    }
}

/// The lines of DCGM's series.
fn lines(board: &Board, style: &Style, pods: Option<&dyn Pods>, now: Instant) -> Vec<String> {
    all_lines(board, style, pods, now).into_iter().filter(|line| line.starts_with("DCGM_")).collect()
}

fn all_lines(board: &Board, style: &Style, pods: Option<&dyn Pods>, now: Instant) -> Vec<String> {
    let mut samples = Samples::new();
    say(board, style, pods, now, &mut samples);
    let mut page = Vec::new();
    assert_eq!(text::write(&samples, &mut page), 0, "nothing is said twice");
    let page = String::from_utf8(page).expect("UTF-8");
    page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

const COMMON: &str = "DCGM_FI_DRIVER_VERSION=\"580.95.05\",Hostname=\"node1\",UUID=\"GPU-0\",device=\"nvidia0\",gpu=\"0\",\
                      modelName=\"NVIDIA H200\",pci_bus_id=\"00000000:0B:00.0\"";

#[test]
fn a_line_has_dcgm_s_labels() {
    let (board, now) = board(vec![read(&[("DCGM_FI_DEV_GPU_TEMP", 28.0)])]);
    let style = style(&["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"]);
    // What was not read has no line.
    assert_eq!(lines(&board, &style, None, now), [format!("DCGM_FI_DEV_GPU_TEMP{{{COMMON}}} 28")]);
    let lower = Style { hostname_label: "hostname".into(), ..style };
    assert!(lines(&board, &lower, None, now)[0].contains(",hostname=\"node1\","));
}

#[test]
fn without_a_driver_nothing_is_said() {
    assert_eq!(
        all_lines(&Board::default(), &style(&["DCGM_FI_DEV_GPU_TEMP"]), None, Instant::now()),
        [""; 0]
    );
}

#[test]
fn old_values_are_not_shown() {
    let (board, now) = board(vec![read(&[("DCGM_FI_DEV_GPU_TEMP", 28.0)])]);
    let style = style(&["DCGM_FI_DEV_GPU_TEMP"]);
    assert_eq!(lines(&board, &style, None, now + WINDOW).len(), 1);
    let late = now + 2 * WINDOW;
    assert_eq!(lines(&board, &style, None, late), [""; 0]);
    let up = "nodewarden_gpu_up{UUID=\"GPU-0\",gpu=\"0\",pci_bus_id=\"00000000:0B:00.0\"} 0".to_owned();
    assert!(all_lines(&board, &style, None, late).contains(&up));
}

#[test]
fn a_lost_gpu_is_down_and_the_others_stay() {
    let temperature = || read(&[("DCGM_FI_DEV_GPU_TEMP", 28.0)]);
    let (mut board, now) = board(vec![temperature(), temperature()]);
    assert_eq!(board.state, State::Ready);
    let gpus = vec![(0, Outcome::Read(Box::new(temperature()))), (1, Outcome::Failed(Code::GPU_IS_LOST))];
    board.take(Cycle { gpus, ..Cycle::default() }, now, now + WINDOW);
    assert_eq!(board.state, State::Degraded);
    let style = style(&["DCGM_FI_DEV_GPU_TEMP"]);
    assert_eq!(lines(&board, &style, None, now).len(), 1);
    // The next session does not see it at all; the kernel still has it.
    board.begin(&Session { gpus: vec![identity(0)], ..Session::default() });
    let gpus = vec![(0, Outcome::Read(Box::new(temperature())))];
    board.take(Cycle { gpus, ..Cycle::default() }, now, now + WINDOW);
    assert_eq!(board.state, State::Degraded);
    let all = all_lines(&board, &style, None, now);
    let down = "nodewarden_gpu_up{UUID=\"GPU-1\",gpu=\"1\",pci_bus_id=\"00000000:1B:00.0\"} 0".to_owned();
    assert!(all.contains(&down), "{all:?}");
    // It was taken out.
    board.expected.retain(|bus| *bus == Bus::parse("00000000:0B:00.0").expect("an address"));
    board.begin(&Session { gpus: vec![identity(0)], ..Session::default() });
    let gpus = vec![(0, Outcome::Read(Box::new(temperature())))];
    board.take(Cycle { gpus, ..Cycle::default() }, now, now + WINDOW);
    assert_eq!(board.state, State::Ready);
    assert!(!all_lines(&board, &style, None, now).contains(&down));
}

#[test]
fn states_tell_why_nothing_is_read() {
    let (mut board, now) = board(vec![Reading::default()]);
    for (outcome, state) in [(Outcome::Stuck, State::Stuck), (Outcome::Failed(Code(999)), State::Failed)] {
        board.take(Cycle { gpus: vec![(0, outcome)], ..Cycle::default() }, now, now);
        assert_eq!(board.state, state);
    }
}

fn divided() -> Reading {
    let instance = |id, used| Instance {
        id,
        profile: "1g.18gb".into(),
        uuids: vec![format!("MIG-{id}")],
        values: vec![(field("DCGM_FI_DEV_FB_USED"), used)],
        processes: vec![(id, 100)],
    };
    Reading {
        instances: Some(vec![instance(7, 12.0), instance(9, 13.0)]),
        ..read(&[("DCGM_FI_DEV_GPU_TEMP", 28.0)])
    }
}

#[test]
fn a_divided_gpu_says_the_whole_once_and_its_parts_each() {
    let (board, now) = board(vec![divided()]);
    let style = style(&["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_FB_USED"]);
    let part =
        |id| COMMON.replace("Hostname", &format!("GPU_I_ID=\"{id}\",GPU_I_PROFILE=\"1g.18gb\",Hostname"));
    let expected = [
        format!("DCGM_FI_DEV_FB_USED{{{}}} 12", part(7)),
        format!("DCGM_FI_DEV_FB_USED{{{}}} 13", part(9)),
        format!("DCGM_FI_DEV_GPU_TEMP{{{COMMON}}} 28"),
    ];
    assert_eq!(lines(&board, &style, None, now), expected);
    let repeating = Style { repeat_for_instances: true, ..style };
    let expected = [
        expected[0].clone(),
        expected[1].clone(),
        format!("DCGM_FI_DEV_GPU_TEMP{{{}}} 28", part(7)),
        format!("DCGM_FI_DEV_GPU_TEMP{{{}}} 28", part(9)),
    ];
    assert_eq!(lines(&board, &repeating, None, now), expected);
}

#[test]
fn who_holds_a_gpu_alone_is_on_its_lines() {
    let (board, now) = board(vec![read(&[("DCGM_FI_DEV_GPU_TEMP", 28.0)])]);
    let style = style(&["DCGM_FI_DEV_GPU_TEMP"]);
    let pods = |devices| Known { devices, processes: Vec::new() };
    let alone = pods(vec![("GPU-0", "train")]);
    let seen = lines(&board, &style, Some(&alone), now);
    assert!(seen[0].contains("container=\"main\"") && seen[0].contains("namespace=\"ml\""), "{seen:?}");
    assert!(seen[0].contains("pod=\"train\"") && !seen[0].contains("vgpu"), "{seen:?}");
    // A container that has two shares has it alone.
    let twice = pods(vec![("GPU-0::0", "train"), ("GPU-0::1", "train")]);
    assert_eq!(lines(&board, &style, Some(&twice), now), seen);
    // A sum over pods has to be right, so a shared one's value is said once.
    let shared = pods(vec![("GPU-0::0", "train"), ("GPU-0::1", "serve")]);
    assert_eq!(lines(&board, &style, Some(&shared), now), [format!("DCGM_FI_DEV_GPU_TEMP{{{COMMON}}} 28")]);
    let all = all_lines(&board, &style, Some(&shared), now);
    let info = "nodewarden_gpu_pod_info{GPU_I_ID=\"\",UUID=\"GPU-0\",container=\"main\",gpu=\"0\",namespace=\"ml\",\
                pod=\"serve\",vgpu=\"1\"} 1";
    assert!(all.iter().any(|line| line == info), "{all:?}");
    let repeating = Style { repeat_for_pods: true, ..style };
    let seen = lines(&board, &repeating, Some(&shared), now);
    assert_eq!(seen.len(), 2);
    assert!(
        seen[0].contains("pod=\"serve\",vgpu=\"1\"") && seen[1].contains("pod=\"train\",vgpu=\"0\""),
        "{seen:?}"
    );
}

#[test]
fn an_instance_s_holder_is_on_its_lines_alone() {
    let (board, now) = board(vec![divided()]);
    let style = style(&["DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_FB_USED"]);
    let pods = Known { devices: vec![("MIG-9", "train")], processes: vec![(9, "train")] };
    let seen = lines(&board, &style, Some(&pods), now);
    let with_pod: Vec<bool> = seen.iter().map(|line| line.contains("pod=\"train\"")).collect();
    assert_eq!(with_pod, [false, true, false], "{seen:?}");
    // Also when it is asked beforehand.
    let asked = crate::holders::Asked::about(board.pids(), &pods);
    assert_eq!(lines(&board, &style, Some(&asked), now), seen);
    let all = all_lines(&board, &style, Some(&asked), now);
    let memory: Vec<&String> =
        all.iter().filter(|line| line.starts_with("nodewarden_gpu_process_memory_bytes")).collect();
    assert_eq!(memory.len(), 2, "{memory:?}");
    assert!(memory[0].contains("GPU_I_ID=\"7\"") && memory[0].contains("pod=\"\"} 100"), "{memory:?}");
    assert!(memory[1].contains("GPU_I_ID=\"9\"") && memory[1].contains("pod=\"train\"} 100"), "{memory:?}");
}

#[test]
fn memory_is_summed_by_container() {
    let reading = Reading { processes: vec![(1, 10), (2, 20), (3, 40)], ..Reading::default() };
    let (board, now) = board(vec![reading]);
    let pods = Known { devices: Vec::new(), processes: vec![(1, "train"), (2, "train")] };
    let all = all_lines(&board, &style(&["DCGM_FI_DEV_GPU_TEMP"]), Some(&pods), now);
    let values: Vec<&str> = all
        .iter()
        .filter(|line| line.starts_with("nodewarden_gpu_process_memory_bytes"))
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(values, ["40", "30"]);
}

#[test]
fn xids_are_said_in_each_form() {
    let (mut board, now) = board(vec![Reading::default()]);
    let style = style(&["DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT"]);
    let extra = |extra: &str| COMMON.replace(",gpu=", &format!(",{extra},gpu="));
    let window = |rest: &str| format!("{COMMON},window_size_in_ms=\"300000\"{rest}");
    assert_eq!(
        lines(&board, &style, None, now),
        [
            format!("DCGM_EXP_XID_ERRORS_COUNT{{{}}} 0", window("")),
            format!("DCGM_FI_DEV_XID_ERRORS{{{}}} 0", extra("err_code=\"0\",err_msg=\"No Error\"")),
        ]
    );
    let told = Told { bus: Bus::parse("0000:0b:00").expect("an address"), instance: None, code: 31 };
    board.xids.take(told, Witness::Kernel, now);
    let gpus = vec![(0, Outcome::Read(Box::default()))];
    let xids = vec![Xid { gpu: 0, instance: None, code: 31 }, Xid { gpu: 0, instance: None, code: 31 }];
    let news = board.take(Cycle { gpus, xids, ..Cycle::default() }, now, now + WINDOW);
    assert_eq!(news, [told]);
    let text = "err_code=\"31\",err_msg=\"GPU memory page fault\"";
    assert_eq!(
        lines(&board, &style, None, now),
        [
            format!("DCGM_EXP_XID_ERRORS_COUNT{{{}}} 2", window(",xid=\"31\"")),
            format!("DCGM_FI_DEV_XID_ERRORS{{{}}} 31", extra(text)),
        ]
    );
    let own = "nodewarden_gpu_xid_errors_total{UUID=\"GPU-0\",gpu=\"0\",pci_bus_id=\"00000000:0B:00.0\",xid=\"31\"} 2";
    assert!(all_lines(&board, &style, None, now).iter().any(|line| line == own));
}

#[test]
fn clock_events_and_peers_have_a_line_each() {
    let reading = Reading { clock_reasons: Some(0b101), peers: vec![(1, 0), (2, 9)], ..Reading::default() };
    let (mut board, now) = board(vec![reading.clone()]);
    let gpus = vec![(0, Outcome::Read(Box::new(Reading { clock_reasons: Some(0b1), ..reading })))];
    board.take(Cycle { gpus, ..Cycle::default() }, now, now + WINDOW);
    let seen = lines(&board, &style(&["DCGM_EXP_CLOCK_EVENTS_COUNT", "DCGM_EXP_P2P_STATUS"]), None, now);
    let value =
        |word: &str| seen.iter().find(|line| line.contains(word)).and_then(|line| line.rsplit(' ').next());
    assert_eq!(seen.len(), 9 + 2);
    assert_eq!(value("clock_event=\"gpu_idle\""), Some("2"));
    assert_eq!(value("clock_event=\"power_cap\""), Some("1"));
    assert_eq!(value("clock_event=\"hw_thermal\""), Some("0"));
    assert_eq!(
        value("link_status=\"OK\",modelName=\"NVIDIA H200\",pci_bus_id=\"00000000:0B:00.0\",peer_gpu=\"1\""),
        Some("0")
    );
    assert_eq!(value("link_status=\"Unknown\""), Some("9"));
}
