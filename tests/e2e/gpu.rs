//! GPUs: the agent with a library that answers, lies, hangs and goes away as drivers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Agent, FrozenDisk, Gpus, Launch, NO_LOGS, PodResources, Prometheus, http, repository, same, seconds,
    wait_until,
};

/// A look at the GPUs each second.
fn config(gpus: &Gpus, further: &str) -> String {
    let library = gpus.library();
    format!("{NO_LOGS}node_name: node-a\ngpu: {{interval: 1s, library: {}{further}}}\n", library.display())
}

fn start(gpus: &Gpus, further: &str) -> Agent {
    start_with(Launch::default(), gpus, further)
}

fn start_with(launch: Launch, gpus: &Gpus, further: &str) -> Agent {
    let flags = gpus.flags();
    Agent::start_as(launch, &config(gpus, further), &flags.each_ref().map(String::as_str))
}

/// The page's series, with their labels sorted.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let series = lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        Some((sorted(series), value.parse().ok()?))
    });
    series.collect()
}

/// `name{a="1",b="2"}`; no value here has a comma followed by a label's beginning.
fn sorted(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<&str> = labels.trim_end_matches("\"}").split("\",").collect();
    labels.sort_unstable();
    format!("{name}{{{}\"}}", labels.join("\","))
}

fn page(agent: &Agent) -> BTreeMap<String, f64> {
    series(&agent.get("/metrics").text())
}

/// Waits until a series that begins with `name` and holds all words has a value.
#[track_caller]
fn wait_for(agent: &Agent, name: &str, words: &[&str], value: f64) {
    wait_until(&format!("{name} {words:?} is {value}"), seconds(30), || {
        let page = page(agent);
        let is_it = |series: &str| series.starts_with(name) && words.iter().all(|word| series.contains(word));
        let found: Vec<(&String, &f64)> = page.iter().filter(|(series, _)| is_it(series)).collect();
        if found.iter().any(|(_, seen)| **seen == value) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[track_caller]
fn wait_for_state(agent: &Agent, state: &str) {
    wait_for(agent, "nodewarden_gpu_collector_state", &[&format!("state=\"{state}\"")], 1.0);
}

/// The GPUs that have DCGM's series.
fn shown(agent: &Agent) -> BTreeSet<String> {
    let page = page(agent);
    let temperatures = page.keys().filter(|series| series.starts_with("DCGM_FI_DEV_GPU_TEMP{"));
    temperatures
        .filter_map(|series| Some(series.split(",gpu=\"").nth(1)?.split('"').next()?.to_owned()))
        .collect()
}

#[track_caller]
fn wait_shown(agent: &Agent, gpus: &[&str]) {
    let expected: BTreeSet<String> = gpus.iter().map(ToString::to_string).collect();
    wait_until("just these GPUs are shown", seconds(30), || same(&shown(agent), &expected));
}

/// The agent's child processes.
fn children(agent: &Agent) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("its threads").flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

fn is_running(pid: u32) -> bool {
    // A process that ended and was not waited for is no process any more.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[track_caller]
fn wait_for_reason(agent: &Agent, words: &str) {
    wait_until("the feature says why", seconds(30), || {
        let text = agent.get("/metrics").text();
        let line = text.lines().find(|line| line.contains("feature=\"gpu\"")).unwrap_or_default().to_owned();
        if line.contains(words) { Ok(()) } else { Err(line) }
    });
}

#[test]
fn the_page_is_dcgm_exporter_s() {
    let gpus = Gpus::new(1);
    gpus.set(&[
        ("0.used", "1000"),
        ("0.nvmlDeviceGetUtilizationRates.gpu", "37"),
        ("0.nvmlDeviceGetUtilizationRates.memory", "21"),
        ("0.gpm.1", "50"),
        ("0.gpm.5", "25"),
        ("0.gpm.10", "12.5"),
        ("0.gpm.20", "1.5"),
        ("0.gpm.21", "2"),
        ("0.fv.142", "2"),
        // Some drivers call this one a double.
        ("0.fv.82.tag", "0"),
    ]);
    let agent = start(&gpus, "");
    let golden = fs::read_to_string(repository().join("tests/golden/gpu/h200.txt")).expect("the golden page");
    let heads = |text: &str| -> BTreeSet<String> {
        let heads = text.lines().filter(|line| line.starts_with("# ") && line.contains(" DCGM_"));
        heads.map(str::to_owned).collect()
    };
    wait_for(&agent, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &[], 0.5);
    let text = agent.get("/metrics").text();
    assert_eq!(heads(&text), heads(&golden));
    let seen: BTreeMap<String, f64> =
        series(&text).into_iter().filter(|(name, _)| name.starts_with("DCGM_")).collect();
    assert_eq!(seen, series(&golden));
    wait_for_state(&agent, "ready");
    assert_eq!(agent.metric("nodewarden_feature_enabled", &["feature=\"gpu\""]), 1.0);
    // Whoever names collectors asks for those.
    assert!(!agent.get("/metrics?collect[]=loadavg").text().contains("DCGM_"));
    assert!(agent.get("/metrics?exclude[]=loadavg").text().contains("DCGM_"));
}

#[test]
fn without_a_driver_there_is_nothing_until_one_is_loaded() {
    let gpus = Gpus::new(8);
    gpus.unload();
    let mut agent = start(&gpus, "");
    wait_for_reason(&agent, "there is no NVIDIA driver");
    assert!(children(&agent).is_empty());
    assert!(gpus.noted().is_empty());
    let text = agent.get("/metrics").text();
    assert!(!text.contains("DCGM_") && !text.contains("nodewarden_gpu_"));
    assert!(!agent.log().contains("GPU"), "nothing is said of GPUs");
    gpus.load();
    wait_shown(&agent, &["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(children(&agent).len(), 1);
    assert!(agent.end_by(Signal::TERM).success());
    // The driver was given back what was held of it.
    let noted: Vec<String> =
        gpus.noted().iter().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect();
    assert_eq!(noted, ["init", "events freed", "shutdown"]);
}

#[test]
fn a_driver_without_gpus_is_no_fault() {
    let gpus = Gpus::new(0);
    let agent = start(&gpus, "");
    wait_for_state(&agent, "ready");
    wait_shown(&agent, &[]);
}

#[test]
fn gpus_that_may_not_be_seen_are_no_healthy_node() {
    let gpus = Gpus::new(2);
    gpus.set(&[("count", "0")]);
    let agent = start(&gpus, "");
    wait_for_reason(&agent, "none of 2 GPUs may be opened from here");
    wait_for_state(&agent, "no_permission");
    wait_for(&agent, "nodewarden_gpu_expected", &[], 2.0);
    gpus.set(&[("count", "2"), ("1.nvmlDeviceGetHandleByIndex!", "4")]);
    wait_shown(&agent, &["0"]);
    wait_for_state(&agent, "degraded");
}

#[test]
fn a_gpu_that_comes_later_is_seen() {
    let gpus = Gpus::new(1);
    let agent = start(&gpus, "");
    wait_shown(&agent, &["0"]);
    gpus.plug_in(2);
    wait_shown(&agent, &["0", "1"]);
}

#[test]
fn a_gpu_that_hangs_costs_its_own_series_alone() {
    let gpus = Gpus::new(2);
    let mut agent = start(&gpus, "");
    wait_shown(&agent, &["0", "1"]);
    gpus.set(&[("1.hang", "1")]);
    wait_shown(&agent, &["0"]);
    wait_for_state(&agent, "degraded");
    wait_for(&agent, "nodewarden_gpu_up", &["gpu=\"1\""], 0.0);
    gpus.set(&[("1.hang", "")]);
    wait_shown(&agent, &["0", "1"]);
    assert_eq!(children(&agent).len(), 1, "it is the same process");
    assert_eq!(gpus.noted().iter().filter(|line| line.starts_with("init")).count(), 1);
    // All of them: the agent answers and ends as always.
    gpus.set(&[("0.hang", "1"), ("1.hang", "1")]);
    wait_for_state(&agent, "stuck");
    wait_shown(&agent, &[]);
    assert_eq!(agent.get("/healthz").status, 200);
    let helper = children(&agent)[0];
    assert!(agent.end_by(Signal::TERM).success());
    wait_until("the helper is gone too", seconds(10), || same(&is_running(helper), &false));
}

#[test]
fn a_driver_that_can_not_be_killed_is_left_behind() {
    let Some(mut disk) = FrozenDisk::mount() else { return };
    let gpus = Gpus::new(1);
    let mut agent = start(&gpus, "");
    wait_shown(&agent, &["0"]);
    let helper = children(&agent)[0];
    gpus.set(&[("0.block", &disk.file().display().to_string())]);
    wait_for_reason(&agent, "hangs in the driver and can't be ended");
    wait_for_state(&agent, "stuck");
    assert_eq!((agent.get("/healthz").status, agent.get("/metrics").status), (200, 200));
    assert_eq!(children(&agent), [helper], "there is never a second one");
    wait_for(&agent, "nodewarden_gpu_helper_starts_total", &[], 1.0);
    assert!(agent.end_by(Signal::TERM).success());
    assert!(fs::exists(format!("/proc/{helper}")).expect("/proc"), "it hangs still");
    disk.thaw();
    wait_until("the helper is gone", seconds(30), || same(&is_running(helper), &false));
}

#[test]
fn a_driver_that_hangs_at_the_start_holds_nobody_up() {
    let gpus = Gpus::new(1);
    gpus.set(&[("init.hang", "1")]);
    let mut agent = start(&gpus, "");
    let helper = wait_until("the helper runs", seconds(30), || {
        children(&agent).first().copied().ok_or_else(String::new)
    });
    wait_for_state(&agent, "starting");
    assert_eq!(agent.get("/readyz").status, 200);
    assert!(agent.end_by(Signal::TERM).success());
    wait_until("the helper is gone too", seconds(10), || same(&is_running(helper), &false));
}

#[test]
fn a_lost_gpu_is_left_out_until_it_is_back() {
    let gpus = Gpus::new(2);
    let agent = start(&gpus, "");
    wait_shown(&agent, &["0", "1"]);
    gpus.set(&[("0.lost", "1")]);
    wait_shown(&agent, &["1"]);
    wait_for(&agent, "nodewarden_gpu_up", &["gpu=\"0\""], 0.0);
    wait_for(&agent, "nodewarden_gpu_up", &["gpu=\"1\""], 1.0);
    gpus.set(&[("0.lost", "")]);
    wait_shown(&agent, &["0", "1"]);
    wait_for_state(&agent, "ready");
}

#[test]
fn a_reloaded_driver_begins_another_session() {
    let gpus = Gpus::new(1);
    let agent = start(&gpus, "");
    wait_for(&agent, "DCGM_FI_DEV_GPU_TEMP", &["DCGM_FI_DRIVER_VERSION=\"580.159.04\""], 28.0);
    gpus.set(&[("0.lost", "1"), ("driver", "590.48.01")]);
    wait_shown(&agent, &[]);
    gpus.set(&[("0.lost", "")]);
    wait_for(&agent, "DCGM_FI_DEV_GPU_TEMP", &["DCGM_FI_DRIVER_VERSION=\"590.48.01\""], 28.0);
    // A driver that takes its process along.
    let helper = children(&agent)[0];
    kill_process(Pid::from_raw(helper.cast_signed()).expect("a number"), Signal::KILL).expect("it is killed");
    wait_until("another one runs", seconds(30), || match children(&agent).first() {
        Some(other) if *other != helper => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait_shown(&agent, &["0"]);
}

#[test]
fn every_obstacle_is_named_and_passes() {
    let gpus = Gpus::new(1);
    gpus.set(&[("init", "18")]);
    let agent = start(&gpus, "");
    for (code, state, words) in [
        ("18", "mismatch", "different versions"),
        ("4", "no_permission", "no permission"),
        ("12", "no_library", "library not found"),
        ("999", "failed", "NVML error 999"),
        ("3", "failed", "not supported"),
        ("27", "failed", "not ready"),
    ] {
        gpus.set(&[("init", code)]);
        wait_for_reason(&agent, words);
        wait_for_state(&agent, state);
    }
    // The files of the driver are there, and the module is not: as without a driver.
    gpus.set(&[("init", "9")]);
    wait_for_reason(&agent, "driver not loaded");
    gpus.set(&[("init", "")]);
    wait_shown(&agent, &["0"]);
    assert!(
        agent.get("/metrics").text().contains("nodewarden_feature_enabled{feature=\"gpu\",reason=\"\"} 1")
    );
}

#[test]
fn what_a_gpu_does_not_support_has_no_series() {
    let gpus = Gpus::new(2);
    // An Ampere board with ECC off, and one whose memory is not to be seen.
    gpus.set(&[
        ("0.gpm", "0"),
        ("0.fv.3.untouched", "1"),
        ("0.nvmlDeviceGetUtilizationRates!", "3"),
        ("1.nvmlDeviceGetMemoryInfo_v2!", "4"),
        ("1.gpm.1", "NaN"),
        ("1.gpm.5!", "3"),
        ("1.gpm.10", "40"),
        ("1.fv.3", "7"),
        ("1.fv.3.tag", "0"),
        ("1.fv.38", "11"),
        ("1.nvmlDeviceGetRetiredPages.0", "2"),
    ]);
    let counters = repository().join("target/tmp/gpu-counters.csv");
    let names = [
        "DCGM_FI_DEV_GPU_TEMP",
        "DCGM_FI_DEV_GPU_UTIL",
        "DCGM_FI_DEV_FB_USED",
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        "DCGM_FI_DEV_RETIRED_SBE",
        "DCGM_FI_DEV_FAN_SPEED",
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        "DCGM_FI_DEV_POWER_VIOLATION",
        "DCGM_FI_DEV_POWER_USAGE_INSTANT",
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "DCGM_EXP_CLOCK_EVENTS_COUNT",
        "DCGM_EXP_P2P_STATUS",
    ];
    let lines: Vec<String> = names.iter().map(|name| format!("{name}, gauge, What it is.\n")).collect();
    let labels = "DCGM_FI_DEV_SERIAL, label, x\nDCGM_FI_DEV_ECC_INFOROM_VER, label, x\nDCGM_FI_DEV_POWER_INFOROM_VER, label, x\n";
    fs::create_dir_all(counters.parent().expect("a folder")).expect("a folder");
    fs::write(&counters, lines.concat() + labels).expect("written");
    let agent = start(&gpus, &format!(", counters_file: {}", counters.display()));
    wait_for(&agent, "DCGM_FI_PROF_DRAM_ACTIVE", &["gpu=\"1\""], 0.4);
    let page = page(&agent);
    let of = |gpu: &str| -> BTreeMap<&str, f64> {
        let mine = page.iter().filter(|(series, _)| {
            series.starts_with("DCGM_FI_") && series.contains(&format!(",gpu=\"{gpu}\""))
        });
        mine.map(|(series, value)| (series.split('{').next().unwrap_or_default(), *value)).collect()
    };
    let common = [
        ("DCGM_FI_DEV_GPU_TEMP", 28.0),
        ("DCGM_FI_DEV_POWER_VIOLATION", 0.0),
        ("DCGM_FI_DEV_POWER_USAGE_INSTANT", 77.0),
    ];
    let first = [("DCGM_FI_DEV_FB_USED", 4.0)];
    let second = [
        ("DCGM_FI_DEV_GPU_UTIL", 0.0),
        ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", 7.0),
        ("DCGM_FI_DEV_RETIRED_SBE", 2.0),
        ("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", 11.0),
        ("DCGM_FI_PROF_DRAM_ACTIVE", 0.4),
    ];
    assert_eq!(of("0"), common.into_iter().chain(first).collect());
    assert_eq!(of("1").len(), common.len() + second.len(), "{:?}", of("1"));
    assert!(second.iter().all(|(name, value)| of("1")[name] == *value), "{:?}", of("1"));
    wait_for(&agent, "DCGM_EXP_P2P_STATUS", &["gpu=\"0\"", "peer_gpu=\"1\"", "link_status=\"OK\""], 0.0);
    let failed = "nodewarden_gpu_nvml_errors_total{call=\"nvmlDeviceGetMemoryInfo\",code=\"4\"}";
    assert!(page.get(failed).is_some_and(|count| *count > 0.0), "{page:?}");
    let unsupported =
        page.keys().filter(|series| series.contains("errors_total") && series.contains("code=\"3\""));
    assert_eq!(unsupported.count(), 0, "what is not supported is no failure");
    let labels = "DCGM_FI_DEV_ECC_INFOROM_VER=\"7.16\",DCGM_FI_DEV_SERIAL=\"1650000000001\",Hostname=";
    assert!(
        page.keys().any(|series| series.contains(labels))
            && !page.keys().any(|series| series.contains("POWER_INFOROM"))
    );
}

#[test]
fn mig_instances_have_lines_of_their_own() {
    let gpus = Gpus::new(1);
    gpus.set(&[
        ("0.nvmlDeviceGetMigMode", "1"),
        ("0.mig0.gi", "2"),
        ("0.mig0.profile", "1c.3g.71gb"),
        ("0.mig0.used", "500"),
        // A second compute instance in the same GPU instance, and a hole before the next one.
        ("0.mig1.gi", "2"),
        ("0.mig1.profile", "2c.3g.71gb"),
        ("0.mig4.gi", "9"),
        ("0.mig4.used", "7"),
        ("0.gi2.gpm.1", "30"),
        ("0.gi9.gpm.1", "60"),
    ]);
    let agent = start(&gpus, "");
    wait_for(&agent, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &["GPU_I_ID=\"2\"", "GPU_I_PROFILE=\"3g.71gb\""], 0.3);
    wait_for(&agent, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &["GPU_I_ID=\"9\"", "GPU_I_PROFILE=\"1g.18gb\""], 0.6);
    let page_now = page(&agent);
    let count = |name: &str, is_part: bool| {
        let mine = page_now.keys().filter(|series| series.starts_with(&format!("{name}{{")));
        mine.filter(|series| series.contains("GPU_I_ID") == is_part).count()
    };
    assert_eq!((count("DCGM_FI_DEV_FB_USED", true), count("DCGM_FI_DEV_FB_USED", false)), (2, 0));
    assert_eq!((count("DCGM_FI_DEV_GPU_TEMP", true), count("DCGM_FI_DEV_GPU_TEMP", false)), (0, 1));
    assert_eq!((count("DCGM_FI_DEV_GPU_UTIL", true), count("DCGM_FI_DEV_GPU_UTIL", false)), (0, 0));
    assert_eq!(
        (count("DCGM_FI_PROF_PCIE_TX_BYTES", true), count("DCGM_FI_PROF_PCIE_TX_BYTES", false)),
        (0, 1)
    );
    wait_for(&agent, "DCGM_FI_DEV_FB_USED", &["GPU_I_ID=\"2\""], 500.0);
    // It is divided anew, then not at all.
    gpus.set(&[("0.mig4.gi", ""), ("0.mig5.gi", "11"), ("0.gi11.gpm.1", "90")]);
    wait_for(&agent, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &["GPU_I_ID=\"11\""], 0.9);
    gpus.set(&[("0.nvmlDeviceGetMigMode", "0"), ("0.gpm.1", "10")]);
    wait_for(&agent, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", &["DCGM_FI_DRIVER_VERSION"], 0.1);
    assert!(!page(&agent).keys().any(|series| series.contains("GPU_I_ID")));
}

#[test]
fn an_xid_that_both_tell_of_is_counted_once() {
    let gpus = Gpus::new(2);
    gpus.kernel_says("NVRM: Xid (PCI:0000:1b:00): 13, of before the start");
    let agent = start(&gpus, "");
    wait_shown(&agent, &["0", "1"]);
    let total = |gpu: &str, code: &str, count: f64| {
        let words = [format!("gpu=\"{gpu}\""), format!("xid=\"{code}\"")];
        wait_for(&agent, "nodewarden_gpu_xid_errors_total", &[&words[0], &words[1]], count);
    };
    gpus.driver_tells("0 31");
    total("0", "31", 1.0);
    gpus.kernel_says("NVRM: Xid (PCI:0000:1b:00): 31, pid=7, name=python3, Ch 00000010");
    // The driver keeps this one to itself; when it is there the line before it was read too.
    gpus.kernel_says("NVRM: Xid (PCI:0000:2b:00): 62, 0a1b");
    total("1", "62", 1.0);
    total("0", "31", 1.0);
    gpus.kernel_says("NVRM: Xid (PCI:0000:1b:00): 31, pid=8, name=python3, Ch 00000010");
    total("0", "31", 2.0);
    gpus.driver_tells("0 31");
    // An instance of the GPU is meant.
    gpus.driver_tells("0 43 3");
    total("0", "43", 1.0);
    total("0", "31", 2.0);
    wait_for(
        &agent,
        "DCGM_FI_DEV_XID_ERRORS",
        &["gpu=\"0\"", "err_code=\"31\"", "err_msg=\"GPU memory page fault\""],
        31.0,
    );
    assert!(
        !page(&agent).keys().any(|series| series.contains("xid=\"13\"")),
        "what was there before is not counted"
    );
    // One that says that calls will hang: that GPU is left alone, the other is not.
    gpus.kernel_says("NVRM: Xid (PCI:0000:2b:00): 79, GPU has fallen off the bus.");
    wait_shown(&agent, &["0"]);
    assert!(agent.log().contains("GPU has fallen off the bus"));
}

#[test]
fn dcgm_exporter_s_port_is_served_too() {
    let gpus = Gpus::new(1);
    let env = [("DCGM_EXPORTER_LISTEN", "127.0.0.1:0"), ("DCGM_EXPORTER_INTERVAL", "20000")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let agent = start_with(Launch { env, ..Launch::default() }, &gpus, "");
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("GPU metrics listener ready")).expect("it is said");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).expect("its address");
    let get = |path| http::get(address, path).expect("an answer");
    wait_until("the GPU's series are there", seconds(30), || {
        let text = get("/metrics").text();
        if text.contains("DCGM_FI_DEV_GPU_TEMP{") { Ok(()) } else { Err(text) }
    });
    assert!(!get("/metrics").text().contains("node_load1"), "GPUs alone");
    assert_eq!((get("/health").status, get("/other").status), (200, 404));
}

#[test]
fn a_reload_lets_go_of_the_driver() {
    let gpus = Gpus::new(1);
    let agent = start(&gpus, "");
    wait_shown(&agent, &["0"]);
    agent.configure(&config(&gpus, ", enabled: false"));
    agent.signal(Signal::HUP);
    wait_for_reason(&agent, "gpu.enabled is false");
    wait_until("the driver is let go of", seconds(30), || {
        let noted = gpus.noted();
        if noted.iter().any(|line| line.starts_with("shutdown")) { Ok(()) } else { Err(format!("{noted:?}")) }
    });
    assert!(children(&agent).is_empty() && !agent.get("/metrics").text().contains("DCGM_"));
    agent.configure(&config(&gpus, ", hostname_label: hostname"));
    agent.signal(Signal::HUP);
    wait_for(&agent, "DCGM_FI_DEV_GPU_TEMP", &["hostname=\"node-a\""], 28.0);
}

#[test]
fn memory_of_processes_is_counted_also_without_pods() {
    let gpus = Gpus::new(1);
    gpus.set(&[("0.compute", "100:10,200:20,300:?"), ("0.graphics", "200:20")]);
    let agent = start(&gpus, "");
    wait_for(&agent, "nodewarden_gpu_process_memory_bytes", &["pod=\"\""], 30.0 * 1_048_576.0);
}

/// A GPU of one container has its labels, one that is shared has them on a series to be joined with.
#[test]
fn who_holds_a_gpu_is_the_kubelet_s_to_say() {
    let gpus = Gpus::new(3);
    let kubelet = PodResources::start(&gpus.root());
    let [first, shared] = [0, 1].map(|gpu| format!("GPU-0000000{gpu}-1111-2222-3333-444444444444"));
    let shares = [format!("{shared}::0"), format!("{shared}::1")];
    kubelet.set(&[
        ["ml", "train-0", "main", "nvidia.com/gpu", &first],
        ["ml", "infer-0", "main", "nvidia.com/gpu.shared", &shares[0]],
        ["web", "infer-1", "app", "nvidia.com/gpu.shared", &shares[1]],
    ]);
    let agent = start(&gpus, "");
    let temperature = |gpu: &str, holder: [&str; 3], words: &[&str]| {
        let [container, namespace, pod] = holder;
        let labels = [("gpu", gpu), ("container", container), ("namespace", namespace), ("pod", pod)];
        let labels = labels.map(|(name, text)| format!("{name}=\"{text}\""));
        let all: Vec<&str> = labels.iter().map(String::as_str).chain(words.iter().copied()).collect();
        wait_until(&format!("{all:?}"), seconds(30), || {
            let page = page(&agent);
            let found = page.keys().any(|series| all.iter().all(|word| series.contains(word)));
            if found { Ok(()) } else { Err(page.keys().cloned().collect::<Vec<_>>().join("\n")) }
        });
    };
    temperature("0", ["main", "ml", "train-0"], &["DCGM_FI_DEV_GPU_TEMP"]);
    temperature("1", ["main", "ml", "infer-0"], &["nodewarden_gpu_pod_info", "vgpu=\"0\""]);
    temperature("1", ["app", "web", "infer-1"], &["nodewarden_gpu_pod_info", "vgpu=\"1\""]);
    let page = page(&agent);
    let others = |gpu: &str| {
        let of = |series: &&String| {
            series.starts_with("DCGM_FI_DEV_GPU_TEMP{") && series.contains(&format!(",gpu=\"{gpu}\""))
        };
        page.keys().find(of).is_some_and(|series| !series.contains("pod="))
    };
    assert!(others("1") && others("2"), "{:?}", page.keys());
    assert_eq!(agent.metric("nodewarden_feature_enabled", &["feature=\"gpu_pods\""]), 1.0);
}

/// Grafana's dashboard 12239, which most users of dcgm-exporter have: six metrics by `instance` and `gpu`.
#[test]
fn dcgm_exporter_s_dashboard_has_data() {
    let gpus = Gpus::new(2);
    let agent = start(&gpus, "");
    wait_shown(&agent, &["0", "1"]);
    let prometheus = Prometheus::start(&agent.metrics);
    let chosen = format!("{{instance=~\"{}\",gpu=~\"0|1\"}}", agent.metrics);
    for metric in [
        "DCGM_FI_DEV_GPU_TEMP",
        "DCGM_FI_DEV_POWER_USAGE",
        "DCGM_FI_DEV_SM_CLOCK",
        "DCGM_FI_DEV_GPU_UTIL",
        "DCGM_FI_DEV_FB_USED",
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    ] {
        for query in
            [format!("{metric}{chosen}"), format!("sum({metric}{chosen})"), format!("avg({metric}{chosen})")]
        {
            wait_until(&format!("{query} has data"), seconds(60), || prometheus.has_data(&query));
        }
    }
}
