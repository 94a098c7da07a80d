//! The events between the services: one envelope, five payloads.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::Error;

/// A batch was registered: BOS to ELS.
pub const BATCH_REGISTERED: &str = "huleedu.batch.essays.registered.v1";
/// An essay's content is stored: file service to ELS.
pub const ESSAY_PROVISIONED: &str = "huleedu.file.essay.content.provisioned.v1";
/// An essay got its slot: ELS to whom it concerns.
pub const SLOT_ASSIGNED: &str = "huleedu.els.essay.slot.assigned.v1";
/// An essay found no slot: ELS to BOS.
pub const EXCESS_CONTENT: &str = "huleedu.els.excess.content.v1";
/// Every slot of a batch is taken: ELS to BOS.
pub const BATCH_READY: &str = "huleedu.els.batch.essays.ready.v1";

/// What every event carries beside its payload. The W3C trace context travels in Kafka's headers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Unique to this event; the idempotency layer's key.
    pub event_id: String,
    /// One of the constants above, whatever the topic is called.
    pub event_type: String,
    /// RFC 3339, UTC.
    pub event_timestamp: String,
    /// The service that published it.
    pub source_service: String,
    /// The essay's id through the pipeline, or the batch's where the event is about the batch.
    pub correlation_id: String,
    /// The batch that the event belongs to.
    pub batch_id: String,
    /// The payload.
    pub data: T,
}

impl<T> Envelope<T> {
    /// A new event, as of now.
    pub fn new(
        event_type: &str,
        source_service: &str,
        correlation_id: &str,
        batch_id: &str,
        data: T,
    ) -> Self {
        Self {
            event_id: Uuid::new_v4().to_string(),
            event_type: event_type.to_owned(),
            event_timestamp: jiff::Timestamp::now().to_string(),
            source_service: source_service.to_owned(),
            correlation_id: correlation_id.to_owned(),
            batch_id: batch_id.to_owned(),
            data,
        }
    }
}

impl Envelope<serde_json::Value> {
    /// Reads an envelope whose payload is not yet known.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|e| Error::Event(format!("not an envelope: {e}")))
    }

    /// Reads the payload.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.data)
            .map_err(|e| Error::Event(format!("{} {}: {e}", self.event_type, self.event_id)))
    }
}

/// Payload of [`BATCH_REGISTERED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchRegistered {
    /// How many essays the batch waits for, and so how many slots it has.
    pub expected_essays: u32,
}

/// Payload of [`ESSAY_PROVISIONED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EssayProvisioned {
    /// The essay.
    pub essay_id: String,
    /// As uploaded.
    pub file_name: String,
    /// Bytes.
    pub content_length: u64,
}

/// Payload of [`SLOT_ASSIGNED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SlotAssigned {
    /// The essay.
    pub essay_id: String,
    /// The slot that it took.
    pub slot: String,
}

/// Payload of [`EXCESS_CONTENT`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExcessContent {
    /// The essay.
    pub essay_id: String,
    /// Why ELS believes that there is no slot.
    pub reason: String,
}

/// Payload of [`BATCH_READY`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchReady {
    /// How many essays hold a slot: all that were expected.
    pub assigned_essays: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_the_wire() {
        let sent = Envelope::new(
            SLOT_ASSIGNED,
            "essay_lifecycle_service",
            "c-1",
            "b-1",
            SlotAssigned { essay_id: "e-1".into(), slot: "s-1".into() },
        );
        let read = Envelope::parse(&serde_json::to_vec(&sent).unwrap()).unwrap();
        assert_eq!(
            (read.event_id.as_str(), read.correlation_id.as_str()),
            (sent.event_id.as_str(), "c-1")
        );
        assert_eq!(read.payload::<SlotAssigned>().unwrap().slot, "s-1");
    }

    #[test]
    fn a_wrong_payload_names_the_event() {
        let sent = Envelope::new(
            BATCH_REGISTERED,
            "x",
            "c",
            "b",
            serde_json::json!({"expected_essays": -1}),
        );
        let error = sent.payload::<BatchRegistered>().unwrap_err().to_string();
        assert!(error.contains(&sent.event_id) && error.contains(BATCH_REGISTERED), "{error}");
        assert!(Envelope::parse(b"{}").is_err());
    }
}
