//! Whose a process is: from its number to its pod and container.

use std::{fs::File, io, io::Read, path::Path};

use nodewarden_collectors::cgroup;

/// A process has a line for each hierarchy, at most a dozen; longer texts are cut.
const LONGEST_TEXT: u64 = 64 << 10;

/// The pod that a process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodProcess {
    /// The pod's uid, as the API server and log folders write it.
    pub pod_uid: String,
    /// The id that the runtime gave the container, where the process is in one.
    pub container_id: Option<String>,
}

/// The pod of process `pid`, by the kernel's text below `procfs`; `None` for one outside all pods. An error, of kind `NotFound` for a process
/// that is gone, when there is no such text.
///
/// With control groups of version 2, an agent in a container sees paths relative to its own: a process of its own pod, and none
/// other, then counts as outside.
pub fn of_process(procfs: &Path, pid: u32) -> io::Result<Option<PodProcess>> {
    let mut text = Vec::new();
    let file = File::open(procfs.join(format!("{pid}/cgroup")))?;
    match file.take(LONGEST_TEXT).read_to_end(&mut text) {
        Ok(_) => Ok(parse(&String::from_utf8_lossy(&text))),
        // It ended in between.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            Err(io::ErrorKind::NotFound.into())
        }
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Option<PodProcess> {
    let found = cgroup::of_process(text)?;
    Some(PodProcess {
        pod_uid: found.pod_uid.into_owned(),
        container_id: found.container_id.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "5d1f0a7c2b3e4f60718293a4b5c6d7e8f90123456789abcdef0123456789abcd";

    #[test]
    fn a_process_is_of_a_pod_or_of_none() {
        let procfs = tempfile::tempdir().expect("a temporary directory");
        let write = |pid: u32, text: &str| {
            fs::create_dir_all(procfs.path().join(pid.to_string())).expect("made");
            fs::write(procfs.path().join(format!("{pid}/cgroup")), text).expect("written");
        };
        write(
            7,
            &format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b_1c.slice/cri-containerd-{ID}.scope\n"
            ),
        );
        write(8, &format!("4:memory:/kubepods/besteffort/pod4f2a/{ID}\n1:name=systemd:/\n"));
        write(9, "0::/system.slice/sshd.service\n");
        write(10, "");
        let of =
            |pid| of_process(procfs.path(), pid).map(|found| found.map(|it| (it.pod_uid, it.container_id)));
        assert_eq!(of(7).expect("read"), Some(("0b-1c".to_owned(), Some(ID.to_owned()))));
        assert_eq!(of(8).expect("read"), Some(("4f2a".to_owned(), Some(ID.to_owned()))));
        assert_eq!((of(9).expect("read"), of(10).expect("read")), (None, None));
        assert_eq!(of(11).expect_err("it is gone").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_kernels_own_text_is_read() {
        let own = of_process(Path::new("/proc"), std::process::id());
        assert!(own.is_ok(), "{own:?}");
    }
}
