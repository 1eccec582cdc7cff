//! Names of control groups: whose pod and whose container one is, as kubelets and container runtimes write them.
//!
//! Two ways to write them are in use. With systemd: `kubepods-burstable-pod1a2b_3c.slice/cri-containerd-ID.scope`, the uid's
//! dashes written as underscores, for a dash separates levels there. Without: `kubepods/burstable/pod1a2b-3c/ID`. A static pod's uid is
//! the hash of its manifest and has no dashes. Nested kubelets put a name of their own in front (`kubelet-kubepods.slice`).

use std::borrow::Cow;

/// Longer texts are no uids.
const UID_LIMIT: usize = 128;

/// Where a control group belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership<'a> {
    /// The uid of the pod, as the API server and log folders write it.
    pub pod_uid: Cow<'a, str>,
    /// The runtime's id of the container, when it is the control group of one, or one inside it.
    pub container_id: Option<&'a str>,
}

/// Whether this is the name of a directory below which a kubelet keeps its pods: `kubepods`, `kubepods.slice`,
/// `kubelet-kubepods.slice`.
pub fn is_kubepods(name: &str) -> bool {
    name == "kubepods" || name.strip_suffix(".slice").is_some_and(|name| last_level(name) == "kubepods")
}

/// Whether this is the name of a directory of pods of one quality of service: `burstable`, `kubepods-besteffort.slice`. Guaranteed
/// pods lie beside those two.
pub fn is_quality(name: &str) -> bool {
    let name = name.strip_suffix(".slice").map_or(name, last_level);
    matches!(name, "burstable" | "besteffort")
}

/// The uid of the pod whose directory has this name: `pod1a2b-3c`, `kubepods-burstable-pod1a2b_3c.slice`.
pub fn pod_uid(name: &str) -> Option<Cow<'_, str>> {
    let Some(slice) = name.strip_suffix(".slice") else {
        return name.strip_prefix("pod").filter(|uid| is_uid(uid)).map(Cow::Borrowed);
    };
    let (above, uid) = slice.rsplit_once("-pod")?;
    if !above.contains("kubepods") || !is_uid(uid) {
        return None;
    }
    Some(if uid.contains('_') { uid.replace('_', "-").into() } else { uid.into() })
}

/// The id of the container whose directory has this name: `ID`, `crio-ID`, `cri-containerd-ID.scope`, `docker-ID.scope`. What
/// watches over a container of CRI-O (`crio-conmon-ID`) is none.
pub fn container_id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    (is_container_id(id) && !runtime.ends_with("conmon")).then_some(id)
}

/// Whether this is written as runtimes write ids: 64 hexadecimal digits, fewer in old versions.
pub fn is_container_id(text: &str) -> bool {
    (32..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whose the control group at this path is; nothing for one outside all pods. Of pods in pods it is the outermost.
pub fn membership(path: &str) -> Option<Membership<'_>> {
    // Seen from inside another control group, the levels that both have in common are not there: `/../../pod1a2b-3c/ID`.
    let is_relative = path.starts_with("/../");
    let mut is_below = false;
    let mut names = path.split('/');
    while let Some(name) = names.next() {
        // Where systemd is the kubelet's way and not the runtime's, that takes the whole for one name.
        let (name, rest) = match name.split_once(".slice:") {
            Some((slice, rest)) => (&name[..slice.len() + ".slice".len()], rest.rsplit(':').next()),
            None => (name, None),
        };
        let is_sure = |uid: &str| is_below || name.contains("kubepods") || is_relative && is_generated(uid);
        if let Some(pod_uid) = pod_uid(name).filter(|uid| is_sure(uid)) {
            let container_id = rest.or_else(|| names.next()).and_then(container_id);
            return Some(Membership { pod_uid, container_id });
        }
        is_below |= is_kubepods(name);
    }
    None
}

/// Whose a process is, by the text of its `/proc/PID/cgroup`: "0::/kubepods/burstable/pod1a2b-3c/ID" with version 2, a line such as
/// "4:memory:/kubepods/..." for each hierarchy with version 1.
///
/// With version 2 and a reader in a control group namespace of its own, a process of the reader's own pod can't be told.
pub fn of_process(text: &str) -> Option<Membership<'_>> {
    let mut found = None;
    for line in text.lines() {
        let path = line.splitn(3, ':').nth(2).and_then(membership);
        match path {
            Some(Membership { container_id: Some(_), .. }) => return path,
            Some(_) => found = found.or(path),
            None => {}
        }
    }
    found
}

fn last_level(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(_, last)| last)
}

fn is_uid(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=UID_LIMIT).contains(&text.len()) && text.bytes().all(is_fit)
}

/// Whether it was made up by an API server or out of a manifest: a UUID or a hash.
fn is_generated(uid: &str) -> bool {
    uid.bytes().filter(u8::is_ascii_hexdigit).count() == 32
        && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5d1f0a7c2b3e4f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";
    const UID: &str = "0b9c1d2e-3f40-4a51-8b62-7c83d94ea5f6";
    const SLICE_UID: &str = "0b9c1d2e_3f40_4a51_8b62_7c83d94ea5f6";
    /// Of a static pod.
    const HASH: &str = "4f2a9d1c7b3e5f60718293a4b5c6d7e8";

    /// The path with `UID`, `SLICE_UID`, `HASH` and `ID` filled in.
    #[track_caller]
    fn assert_membership(path: &str, expected: Option<(&str, bool)>) {
        let path =
            path.replace("SLICE_UID", SLICE_UID).replace("UID", UID).replace("HASH", HASH).replace("ID", ID);
        let found = membership(&path);
        let found = found.as_ref().map(|found| (&*found.pod_uid, found.container_id));
        assert_eq!(found, expected.map(|(uid, is_container)| (uid, is_container.then_some(ID))), "{path}");
    }

    #[test]
    fn every_way_to_write_a_container_is_read() {
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE_UID.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE_UID.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-podSLICE_UID.slice/docker-ID.scope/init.scope",
            "/kubepods/burstable/podUID/ID",
            "/kubepods/podUID/crio-ID",
            "/kubepods/besteffort/podUID/ID/deeper/still",
            "/kubelet/kubepods/burstable/podUID/ID",
            "/docker/ID/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podSLICE_UID.slice/cri-containerd-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-podSLICE_UID.slice:cri-containerd:ID",
            // From inside a container of another pod.
            "/../../podUID/ID",
            "/../../kubepods-burstable-podSLICE_UID.slice/cri-containerd-ID.scope",
        ] {
            assert_membership(path, Some((UID, true)));
        }
        assert_membership("/kubepods/burstable/podHASH/ID", Some((HASH, true)));
        assert_membership(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
            Some((HASH, true)),
        );
    }

    #[test]
    fn a_pod_itself_and_what_watches_over_a_container_are_of_no_container() {
        for path in [
            "/kubepods/burstable/podUID",
            "/kubepods/podUID/",
            "/kubepods.slice/kubepods-podSLICE_UID.slice/crio-conmon-ID.scope",
            "/kubepods.slice/kubepods-podSLICE_UID.slice/something.scope",
        ] {
            assert_membership(path, Some((UID, false)));
        }
    }

    #[test]
    fn what_is_in_no_pod_is_nobodys() {
        for path in [
            "",
            "/",
            "/system.slice/kubelet.service",
            "/docker/ID",
            "/user.slice/podman/ID",
            // Podman's pods.
            "/machine.slice/machine-libpod_pod_ID.slice/libpod-ID.scope",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods/pod/ID",
            "/kubepods/poda b/ID",
            "/../ID",
            "/../podman",
        ] {
            assert_membership(path, None);
        }
        assert_eq!(membership(&format!("/kubepods/pod{}/{ID}", "a".repeat(UID_LIMIT + 1))), None);
    }

    #[test]
    fn of_pods_in_pods_it_is_the_outer_one() {
        assert_membership("/kubepods/podUID/ID/kubelet/kubepods/podHASH/ID", Some((UID, true)));
    }

    #[test]
    fn a_process_is_found_in_any_hierarchy() {
        let of = |text: &str| of_process(text).map(|found| found.container_id.is_some());
        assert_eq!(of(&format!("0::/kubepods/pod{UID}/{ID}\n")), Some(true));
        let text =
            format!("9:name=systemd:/\n8:pids:/kubepods/pod{UID}\n4:memory:/kubepods/pod{UID}/{ID}\n0::/\n");
        assert_eq!(of(&text), Some(true));
        assert_eq!(of(&format!("8:cpu,cpuacct:/kubepods/pod{UID}\n")), Some(false));
        for text in ["", "0::/\n", "0::", "4:memory\n", "\u{0}:\n:::::\n"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }

    #[test]
    fn directories_are_told_by_their_names() {
        for name in ["kubepods", "kubepods.slice", "kubelet-kubepods.slice", "a-b-kubepods.slice"] {
            assert!(is_kubepods(name), "{name}");
        }
        for name in ["kubepods-burstable.slice", "system.slice", "mykubepods", "kubepods.scope"] {
            assert!(!is_kubepods(name), "{name}");
        }
        for name in ["burstable", "kubepods-besteffort.slice", "kubelet-kubepods-burstable.slice"] {
            assert!(is_quality(name), "{name}");
        }
        for name in ["podburstable", "guaranteed", "kubepods-podburstable.slice", "kubepods.slice"] {
            assert!(!is_quality(name), "{name}");
        }
    }
}
