//! Names of OpenTelemetry's semantic conventions (1.44) that code refers to.

/// Resource attribute: logical name of the service.
pub const SERVICE_NAME: &str = "service.name";
/// Resource attribute: namespace of `service.name`.
pub const SERVICE_NAMESPACE: &str = "service.namespace";
/// Resource attribute: instance of the service.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Class of the error that an operation ended with.
pub const ERROR_TYPE: &str = "error.type";
/// Messaging system, such as `kafka`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// Topic or queue name.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// Database system, such as `redis` or `postgresql`.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// Remote service name as the caller knows it.
pub const PEER_SERVICE: &str = "peer.service";

/// Whether a log record's event name names an event, and not the line of code that told it, as Rust's
/// `tracing` does where nothing else is said: `event src/lib.rs:17`.
pub fn is_event_name(name: &str) -> bool {
    let place = name.strip_prefix("event ").and_then(|place| place.rsplit_once(':'));
    !name.is_empty() && place.is_none_or(|(_, line)| line.parse::<u32>().is_err())
}
