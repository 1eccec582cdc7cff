//! A session with the driver: the library is loaded, every GPU has a name.

use std::{path::PathBuf, sync::Arc};

use crate::{
    fields::LABELS,
    nvml::{Code, Device, LoadError, Nvml},
    protocol::{Identity, Obstacle, Session},
};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NoSession {
    /// What kind of obstacle it is.
    pub obstacle: Obstacle,
    /// In words.
    pub reason: String,
}

/// What stands once a library answered.
pub struct Opened {
    /// The library.
    pub nvml: Arc<Nvml>,
    /// What is said of it.
    pub session: Session,
    /// The handles of its GPUs, in the same order.
    pub devices: Vec<Device>,
}

/// Tries the libraries in turn and takes the first that can be loaded and initialised.
pub fn open(libraries: &[PathBuf]) -> Result<Opened, NoSession> {
    let mut failure = None;
    for path in libraries {
        match Nvml::open(path) {
            Ok(nvml) => return Ok(look(nvml, path.clone())),
            // A library that answers says more than one that can't be loaded; of several of a kind the first is the likeliest.
            Err(LoadError::Init(code)) => {
                let reason = format!("{} answers: {code}", path.display());
                failure = Some(NoSession { obstacle: Obstacle::of(code), reason });
            }
            Err(LoadError::Load(error)) => {
                let reason = format!("{} can't be loaded: {error}", path.display());
                failure.get_or_insert(NoSession { obstacle: Obstacle::NoLibrary, reason });
            }
        }
    }
    Err(failure.unwrap_or_else(|| NoSession {
        obstacle: Obstacle::NoLibrary,
        reason: "no libnvidia-ml.so.1 was found; gpu.library says where it is".into(),
    }))
}

fn look(nvml: Nvml, library: PathBuf) -> Opened {
    let driver = nvml.driver_version().unwrap_or_default();
    let mut session = Session { library, driver, ..Session::default() };
    let mut devices = Vec::new();
    let count = nvml.device_count().unwrap_or_else(|code| {
        session.refused.push((0, code));
        0
    });
    for index in 0..count {
        let known = nvml.device(index).and_then(|device| Ok((device, identity(&nvml, index, device)?)));
        match known {
            Ok((device, identity)) => {
                devices.push(device);
                session.gpus.push(identity);
            }
            Err(code) => session.refused.push((index, code)),
        }
    }
    Opened { nvml: Arc::new(nvml), session, devices }
}

fn identity(nvml: &Nvml, index: u32, device: Device) -> Result<Identity, Code> {
    let labels =
        LABELS.iter().filter_map(|label| Some(((*label).to_owned(), label_of(nvml, device, label)?)));
    Ok(Identity {
        index,
        uuid: nvml.uuid(device)?,
        bus_id: nvml.bus_id(device)?,
        model: nvml.name(device).unwrap_or_default(),
        labels: labels.collect(),
    })
}

/// The text of a label; none where NVML has none.
fn label_of(nvml: &Nvml, device: Device, label: &str) -> Option<String> {
    const OEM: u32 = 0;
    const ECC: u32 = 1;
    const POWER: u32 = 2;
    let text = match label {
        "DCGM_FI_DRIVER_VERSION" => nvml.driver_version(),
        "DCGM_FI_NVML_VERSION" => nvml.library_version(),
        "DCGM_FI_DEV_BRAND" => return nvml.brand(device).ok().and_then(brand).map(str::to_owned),
        "DCGM_FI_DEV_SERIAL" => nvml.serial(device),
        "DCGM_FI_DEV_OEM_INFOROM_VER" => nvml.inforom_version(device, OEM),
        "DCGM_FI_DEV_ECC_INFOROM_VER" => nvml.inforom_version(device, ECC),
        "DCGM_FI_DEV_POWER_INFOROM_VER" => nvml.inforom_version(device, POWER),
        "DCGM_FI_DEV_INFOROM_IMAGE_VER" => nvml.inforom_image_version(device),
        "DCGM_FI_DEV_VBIOS_VERSION" => nvml.vbios_version(device),
        _ => return None,
    };
    text.ok().filter(|text| !text.is_empty())
}

/// The brand of NVML's number; none of one that is not known yet.
fn brand(number: u32) -> Option<&'static str> {
    const NAMES: [&str; 18] = [
        "Unknown",
        "Quadro",
        "Tesla",
        "NVS",
        "Grid",
        "GeForce",
        "Titan",
        "NvidiaVApps",
        "NvidiaVPC",
        "NvidiaVCS",
        "NvidiaVWS",
        "NvidiaCloudGaming",
        "QuadroRTX",
        "NvidiaRTX",
        "Nvidia",
        "GeForceRTX",
        "TitanRTX",
        "Unknown",
    ];
    NAMES.get(number as usize).copied()
}
