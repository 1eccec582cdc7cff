//! What is wanted of `ListPodResourcesResponse`, read from its protobuf bytes.
//!
//! The numbers are those of `k8s.io/kubelet`'s `podresources/v1/api.proto`. What is not named here (CPUs, memory, topology, what later
//! versions add) is skipped.

use super::{DeviceId, Error, Holder};

/// More than any node has.
const DEVICES: usize = 1 << 16;
/// `ListPodResourcesResponse.pod_resources`.
const POD: u64 = 1;
mod pod {
    pub const NAME: u64 = 1;
    pub const NAMESPACE: u64 = 2;
    pub const CONTAINER: u64 = 3;
}
mod container {
    pub const NAME: u64 = 1;
    pub const DEVICES: u64 = 2;
    pub const DYNAMIC: u64 = 5;
}
mod devices {
    pub const RESOURCE: u64 = 1;
    pub const ID: u64 = 2;
}
/// `DynamicResource.claim_resources`.
const CLAIM: u64 = 4;
mod claim {
    pub const CDI_DEVICE: u64 = 1;
    pub const DRIVER: u64 = 2;
    pub const POOL: u64 = 3;
    pub const DEVICE: u64 = 4;
    pub const SHARE: u64 = 5;
}
/// `CDIDevice.name`.
const CDI_NAME: u64 = 1;

type Found = Vec<(DeviceId, String, Holder)>;

/// Every device of every container.
pub fn read(message: &[u8]) -> Result<Found, Error> {
    let mut found = Vec::new();
    each(message, |number, pod| if number == POD { read_pod(pod, &mut found) } else { Ok(()) })?;
    Ok(found)
}

fn read_pod(bytes: &[u8], found: &mut Found) -> Result<(), Error> {
    // Names may come behind what they name.
    let (mut name, mut namespace) = (String::new(), String::new());
    each(bytes, |number, field| {
        match number {
            pod::NAME => name = text(field),
            pod::NAMESPACE => namespace = text(field),
            _ => {}
        }
        Ok(())
    })?;
    each(bytes, |number, field| {
        if number == pod::CONTAINER { read_container(field, &namespace, &name, found) } else { Ok(()) }
    })
}

fn read_container(bytes: &[u8], namespace: &str, pod: &str, found: &mut Found) -> Result<(), Error> {
    let mut name = String::new();
    each(bytes, |number, field| {
        if number == container::NAME {
            name = text(field);
        }
        Ok(())
    })?;
    let holder = Holder { namespace: namespace.to_owned(), pod: pod.to_owned(), container: name };
    let mut add = |id: DeviceId, resource: &str| {
        if found.len() >= DEVICES {
            return Err(Error::Answer("it has more than 65536 devices"));
        }
        found.push((id, resource.to_owned(), holder.clone()));
        Ok(())
    };
    each(bytes, |number, field| match number {
        container::DEVICES => read_devices(field, &mut add),
        container::DYNAMIC => {
            each(field, |number, field| if number == CLAIM { read_claim(field, &mut add) } else { Ok(()) })
        }
        _ => Ok(()),
    })
}

fn read_devices(
    bytes: &[u8],
    add: &mut impl FnMut(DeviceId, &str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut resource = String::new();
    each(bytes, |number, field| {
        if number == devices::RESOURCE {
            resource = text(field);
        }
        Ok(())
    })?;
    each(
        bytes,
        |number, field| {
            if number == devices::ID { add(DeviceId::parse(&text(field)), &resource) } else { Ok(()) }
        },
    )
}

/// A device that was claimed. Kubelets before 1.34 name it only in the device of the container device interface, as
/// `k8s.gpu.nvidia.com/claim=CLAIM-gpu-0` or `nvidia.com/gpu=gpu-0`.
fn read_claim(bytes: &[u8], add: &mut impl FnMut(DeviceId, &str) -> Result<(), Error>) -> Result<(), Error> {
    let [mut driver, mut pool, mut device, mut share] = [const { String::new() }; 4];
    let mut cdi = String::new();
    each(bytes, |number, field| {
        match number {
            claim::DRIVER => driver = text(field),
            claim::POOL => pool = text(field),
            claim::DEVICE => device = text(field),
            claim::SHARE => share = text(field),
            claim::CDI_DEVICE if cdi.is_empty() => each(field, |number, field| {
                if number == CDI_NAME {
                    cdi = text(field);
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    if device.is_empty() {
        device = cdi.rsplit_once('=').map_or(cdi.as_str(), |(_, device)| device).to_owned();
    }
    if device.is_empty() {
        return Ok(());
    }
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    add(DeviceId { name: device, share: known(share), pool: known(pool) }, &driver)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Calls `take` with the number and the bytes of each field of a message that has a length: texts and messages. Numbers are skipped.
fn each<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(u64, &'a [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    const CUT: Error = Error::Answer("a field of it is cut");
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let skipped = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| CUT)?;
                let (field, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
                bytes = rest;
                take(key >> 3, field)?;
                0
            }
            5 => 4,
            _ => return Err(Error::Answer("a field of it is of no known kind")),
        };
        bytes = bytes.get(skipped..).ok_or(CUT)?;
    }
    Ok(())
}

/// Seven bits in each byte, the lowest first; the highest bit says that more follow.
fn varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::Answer("a number of it does not end"))
}
