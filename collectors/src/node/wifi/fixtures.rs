//! Made-up wireless interfaces out of JSON files.

use std::{io, path::Path};

use super::{Interface, Network, Station};
use crate::{
    CollectError,
    json::{self, Object},
};

/// `interfaces.json`: `[{"name": "wlan0", "frequency": 2412}]`; a device without a name is no interface.
pub(super) fn interfaces(directory: &Path) -> Result<Vec<Interface>, CollectError> {
    let mut interfaces = Vec::new();
    for object in json::read_list(&directory.join("interfaces.json"))? {
        let (name, megahertz) = (object.text("Name")?, object.integer("Frequency")?);
        if !name.is_empty() {
            interfaces.push(Interface { index: 0, name: name.to_owned(), megahertz });
        }
    }
    Ok(interfaces)
}

/// `wlan0/bss.json`: `{"ssid": "rack", "bssid": "ABEiM0RV", "status": 1}`
pub(super) fn network(directory: &Path, device: &str) -> Result<Option<Network>, CollectError> {
    let Some(object) = there(json::read_object(&directory.join(device).join("bss.json")))? else {
        return Ok(None);
    };
    Ok(Some(Network {
        address: object.bytes("BSSID")?,
        name: object.text("SSID")?.to_owned(),
        status: object.integer("Status")?,
    }))
}

/// `wlan0/stationinfo.json`: `[{"hardwareaddr": "ABEiM0RV", "connected": 30000000000, "signal": -52}]`, times in
/// nanoseconds.
pub(super) fn stations(directory: &Path, device: &str) -> Result<Vec<Station>, CollectError> {
    let objects = there(json::read_list(&directory.join(device).join("stationinfo.json")))?;
    objects.unwrap_or_default().iter().map(station).collect()
}

fn station(object: &Object) -> Result<Station, CollectError> {
    Ok(Station {
        address: object.bytes("HardwareAddr")?,
        connected_seconds: seconds(object.integer("Connected")?),
        inactive_seconds: seconds(object.integer("Inactive")?),
        receive_rate: object.integer("ReceiveBitrate")?,
        transmit_rate: object.integer("TransmitBitrate")?,
        received_bytes: object.integer("ReceivedBytes")?,
        transmitted_bytes: object.integer("TransmittedBytes")?,
        received_packets: object.integer("ReceivedPackets")?,
        transmitted_packets: object.integer("TransmittedPackets")?,
        signal: object.integer("Signal")?,
        retries: object.integer("TransmitRetries")?,
        failed: object.integer("TransmitFailed")?,
        beacon_loss: object.integer("BeaconLoss")?,
    })
}

fn seconds(nanoseconds: i64) -> f64 {
    (nanoseconds / 1_000_000_000) as f64 + (nanoseconds % 1_000_000_000) as f64 / 1e9
}

/// Nothing, where the file is missing.
fn there<T>(result: Result<T, CollectError>) -> Result<Option<T>, CollectError> {
    match result {
        Err(CollectError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
