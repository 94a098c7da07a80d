//! What ELS does with each event.

use std::time::Duration;

use lacuna_instrument::outcome::outcome;
use lacuna_instrument::postgres::Pool;
use lacuna_instrument::redis::Traced;
use opentelemetry::KeyValue;
use redis::AsyncConnectionConfig;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::SERVICE;
use super::faults::{FaultKind, Faults};
use super::idempotency::Idempotency;
use super::slots::{Assignment, Essay, Slots};
use super::store::{Progress, Store};
use crate::bus::Publisher;
use crate::business::Coordination;
use crate::envelope::{
    BATCH_READY, BatchReady, BatchRegistered, EXCESS_CONTENT, Envelope, EssayProvisioned,
    ExcessContent, SLOT_ASSIGNED, SlotAssigned,
};
use crate::error::Error;
use crate::http::annotate;
use crate::stop::Stop;

/// Batches and essays travel on different topics, so an essay may come first. It waits this long
/// for its batch before the batch counts as unknown.
const WAIT_FOR_BATCH: Duration = Duration::from_secs(30);

/// How often a process looks which of the batches that it has series of are ready. Series linger for
/// much longer.
const LOOK_FOR_READY: Duration = Duration::from_secs(5);

/// Why an essay is excess, as ELS publishes it.
const NO_AVAILABLE_SLOT: &str = "NO_AVAILABLE_SLOT";

/// Shared by ELS's consumers.
#[derive(Clone)]
pub struct Handlers {
    slots: Slots,
    store: Store,
    idempotency: Idempotency,
    publisher: Publisher,
    coordination: Coordination,
    faults: Faults,
}

impl Handlers {
    /// Opens the Redis connections.
    pub async fn connect(
        client: redis::Client,
        pool: Pool,
        publisher: Publisher,
        coordination: Coordination,
        faults: Faults,
        workers: usize,
    ) -> Result<Self, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_response_timeout(Some(Duration::from_secs(10)));
        let plain = client.get_multiplexed_async_connection_with_config(&config).await?;
        let store = Store::new(pool);
        let (coordinated, faulty) = (coordination.clone(), faults.clone());
        let slots = Slots::connect(&client, store.clone(), coordinated, faulty, workers).await?;
        Ok(Self {
            slots,
            coordination,
            faults,
            store,
            idempotency: Idempotency::new(Traced::new(plain, client.get_connection_info())),
            publisher,
        })
    }

    /// A batch was registered: makes its slots.
    pub async fn batch_registered(&self, event: Envelope<Value>) -> Result<(), Error> {
        let batch: BatchRegistered = event.payload()?;
        tracing::info!(
            target: "batch_coordination_handler",
            layer = "application",
            batch_id = event.batch_id,
            expected_essays = batch.expected_essays,
            "Processing BatchEssaysRegisteredV1 event"
        );
        let work = async {
            self.store
                .batch_registered(&event.batch_id, &event.correlation_id, batch.expected_essays)
                .await?;
            // Before there are slots that a worker could take.
            self.coordination.batch_opened(&event.batch_id);
            self.slots.create(&event.batch_id, &event.correlation_id, batch.expected_essays).await
        };
        self.idempotency.once(&event, work).await
    }

    /// An essay's content is stored: gives it a slot, or calls it excess.
    pub async fn essay_provisioned(&self, event: Envelope<Value>) -> Result<(), Error> {
        let provisioned: EssayProvisioned = event.payload()?;
        annotate([KeyValue::new("essay_id", provisioned.essay_id.clone())]);
        let essay = Essay {
            essay_id: provisioned.essay_id,
            batch_id: event.batch_id.clone(),
            correlation_id: event.correlation_id.clone(),
            file_name: provisioned.file_name,
        };
        tracing::info!(
            target: "batch_coordination_handler",
            layer = "application",
            batch_id = essay.batch_id,
            essay_id = essay.essay_id,
            "Processing EssayContentProvisionedV1 event"
        );
        self.coordination.essay_provisioned();
        if let Some(late) = self.faults.for_essay(&essay.essay_id)
            && late.kind == FaultKind::Late
        {
            tokio::time::sleep(late.window).await;
        }
        self.idempotency.once(&event, self.place(&essay)).await
    }

    async fn place(&self, essay: &Essay) -> Result<(), Error> {
        if let Some(slot) = self.store.decided(&essay.essay_id).await? {
            // Delivered again after a crash: the outcome stands, its events may not have gone out.
            self.publish_outcome(essay, slot.as_deref(), NO_AVAILABLE_SLOT).await?;
            return match self.store.unannounced(&essay.batch_id).await? {
                Some(complete) => self.publish_ready(essay, &complete).await,
                None => Ok(()),
            };
        }
        let (slot, reason) = self.assign(essay).await?;
        let progress = self.store.decide(essay, slot.as_deref()).await?;
        let utilization = progress.as_ref().map(Progress::utilization);
        self.coordination.decided(&essay.batch_id, utilization);
        self.publish_outcome(essay, slot.as_deref(), reason).await?;
        match progress {
            Some(progress) if progress.is_complete() => self.publish_ready(essay, &progress).await,
            Some(_) => Ok(()),
            // One essay too many came for a batch that is ready: what was counted of it ends too.
            None => {
                let batch = self.store.progress(&essay.batch_id).await?;
                if batch.is_none_or(|batch| batch.is_complete()) {
                    self.coordination.batch_closed(&essay.batch_id);
                }
                Ok(())
            }
        }
    }

    /// A slot, or what ELS gives as the reason for none, which need not be true.
    async fn assign(&self, essay: &Essay) -> Result<(Option<String>, &'static str), Error> {
        if !self.batch_is_known(&essay.batch_id).await? {
            self.coordination.attempted(&essay.batch_id, Some("unknown_batch"));
            return Ok((None, "UNKNOWN_BATCH"));
        }
        Ok(match self.slots.assign_slot_atomic(essay).await? {
            Assignment::Taken(slot) => (Some(slot), NO_AVAILABLE_SLOT),
            Assignment::Refused(_) => (None, NO_AVAILABLE_SLOT),
        })
    }

    async fn batch_is_known(&self, batch_id: &str) -> Result<bool, Error> {
        let deadline = tokio::time::Instant::now() + WAIT_FOR_BATCH;
        let mut pause = Duration::from_millis(10);
        while !self.slots.exist(batch_id).await? {
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        Ok(true)
    }

    async fn publish_outcome(
        &self,
        essay: &Essay,
        slot: Option<&str>,
        reason: &'static str,
    ) -> Result<(), Error> {
        let Essay { essay_id, batch_id, correlation_id, .. } = essay;
        let told = outcome("slot_assigned")
            .key("correlation_id", correlation_id.clone())
            .key("batch_id", batch_id.clone())
            .key("essay_id", essay_id.clone());
        match slot {
            Some(slot) => {
                let wrong = self.faults.is(FaultKind::WrongValue, essay_id);
                let data = SlotAssigned {
                    essay_id: essay_id.clone(),
                    slot: if wrong { format!("{slot}-wrong") } else { slot.to_owned() },
                };
                let event = Envelope::new(SLOT_ASSIGNED, SERVICE, correlation_id, batch_id, data);
                self.publish(event, essay_id, essay).await?;
                self.coordination.slot_assigned();
                tracing::info!(
                    target: "batch_coordination_handler",
                    layer = "application",
                    batch_id,
                    essay_id,
                    slot,
                    "Assigned slot to essay"
                );
                told.attribute("slot", slot.to_owned()).reached();
            }
            None => {
                let data = ExcessContent { essay_id: essay_id.clone(), reason: reason.to_owned() };
                let event = Envelope::new(EXCESS_CONTENT, SERVICE, correlation_id, batch_id, data);
                self.publish(event, essay_id, essay).await?;
                self.coordination.excess_content(batch_id);
                // An ordinary line at an ordinary level, as the incident's code had it.
                tracing::info!(
                    target: "batch_coordination_handler",
                    layer = "application",
                    batch_id,
                    essay_id,
                    reason,
                    "No available slot, published excess content"
                );
                told.missed(reason.to_ascii_lowercase());
            }
        }
        Ok(())
    }

    /// Publishes that the batch is ready, which `last` made it.
    async fn publish_ready(&self, last: &Essay, complete: &Progress) -> Result<(), Error> {
        let batch_id = &last.batch_id;
        let wrong = self.faults.is(FaultKind::WrongValue, &last.essay_id);
        let data = BatchReady { assigned_essays: complete.assigned - u32::from(wrong) };
        let mut event =
            Envelope::new(BATCH_READY, SERVICE, &complete.correlation_id, batch_id, data);
        // A worker that dies between publishing and noting so publishes again after its restart: by
        // the id, whoever listens knows that it is the same event.
        event.event_id =
            Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{BATCH_READY}/{batch_id}").as_bytes())
                .to_string();
        self.publish(event, batch_id, last).await?;
        self.coordination.batch_ready();
        self.coordination.batch_closed(batch_id);
        self.store.announced(batch_id).await?;
        tracing::info!(
            target: "batch_coordination_handler",
            layer = "application",
            batch_id,
            assigned_essays = complete.assigned,
            "All slots are taken, published BatchEssaysReadyV1"
        );
        Ok(())
    }

    /// Ends the series of batches that are ready, until it is time to stop. A batch's essays are handled
    /// by every process of the group, and only one of them publishes that the batch is ready; what that
    /// one wrote down tells the others. They do not listen for the event: its consumption is a promise
    /// of BOS's, which contracts count.
    pub async fn end_series_of_ready_batches(self, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(LOOK_FOR_READY) => {}
            }
            let open = self.coordination.open_batches();
            if open.is_empty() {
                continue;
            }
            match self.store.published(&open).await {
                Ok(ready) => ready.iter().for_each(|id| self.coordination.batch_closed(id)),
                Err(error) => tracing::warn!(
                    layer = "infrastructure",
                    error = %error,
                    "Whether batches are ready is not known; their series go on"
                ),
            }
        }
    }

    /// Publishes an event that `essay` caused: once, unless a fault wants it otherwise.
    async fn publish<T: Serialize>(
        &self,
        mut event: Envelope<T>,
        key: &str,
        essay: &Essay,
    ) -> Result<(), Error> {
        if self.faults.is(FaultKind::DropPublish, &essay.essay_id) {
            return Ok(());
        }
        self.publisher.publish(&event, key).await?;
        if self.faults.is(FaultKind::PublishTwice, &essay.essay_id) {
            event.event_id = Uuid::new_v4().to_string();
            self.publisher.publish(&event, key).await?;
        }
        Ok(())
    }
}
