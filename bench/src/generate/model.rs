//! The modelled system: a shop of twenty services, with what each of its spans carries.

/// A service and what its resource says beside the common part.
#[derive(Debug)]
pub struct Service {
    /// `service.name`.
    pub name: &'static str,
    /// `telemetry.sdk.language`.
    pub language: &'static str,
    /// `service.version`.
    pub version: &'static str,
}

macro_rules! services {
    ($($id:ident $name:literal $language:literal $version:literal;)*) => {
        /// A service's place in [`SERVICES`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the names are the documentation")]
        pub enum At { $($id),* }
        /// All services.
        pub const SERVICES: &[Service] =
            &[$(Service { name: $name, language: $language, version: $version }),*];
    };
}

services! {
    Gateway "edge-gateway" "go" "2.14.3";
    Auth "auth-service" "rust" "1.8.0";
    Users "user-profile-service" "java" "5.2.11";
    Catalog "catalog-service" "java" "7.0.4";
    Search "search-service" "rust" "3.3.1";
    Recommend "recommendation-service" "python" "0.19.2";
    Cart "cart-service" "go" "4.1.0";
    Price "pricing-service" "rust" "2.2.7";
    Orders "order-service" "java" "11.6.0";
    Payments "payment-service" "rust" "6.0.2";
    Stock "inventory-service" "go" "3.9.5";
    Shipping "shipping-service" "java" "2.7.1";
    Notify "notification-service" "nodejs" "1.12.9";
    Invoices "invoice-service" "java" "3.4.4";
    Fraud "fraud-scoring-service" "python" "2.0.8";
    Reviews "review-service" "nodejs" "1.3.6";
    Media "media-service" "go" "0.9.14";
    Loyalty "loyalty-service" "rust" "1.1.1";
    Reports "report-service" "java" "4.8.2";
    Audit "audit-log-service" "go" "2.5.0";
}

/// A value of an attribute.
#[derive(Debug, Clone)]
pub enum Value {
    /// Text, the same in each copy.
    Text(String),
    /// A whole number, the same in each copy.
    Int(u64),
    /// A truth value.
    Bool(bool),
    /// A list of texts.
    Texts(Vec<&'static str>),
    /// Text around a UUID of the flow; number 0 is the correlation id.
    Uuid(&'static str, u32),
    /// Text around eight digits.
    Path(String, String),
    /// A Kafka offset.
    Offset,
    /// A size in bytes.
    Size,
    /// A floating-point number from 0 to 1000.
    Double,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(number)
    }
}

/// OTLP's span kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "OTLP's own names")]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// What went wrong in a span.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// `exception.type` and `error.type`.
    pub class: &'static str,
    /// `exception.message` and the status message.
    pub message: &'static str,
}

/// A span to be.
#[derive(Debug, Clone)]
pub struct Node {
    /// Who records it.
    pub service: At,
    /// The instrumentation scope.
    pub scope: &'static str,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Microseconds of its own before, between and after its children.
    pub own: u32,
    /// Its error, if it has one.
    pub fault: Option<Fault>,
    /// The message that it sends, by number within the flow.
    pub sends: Option<u32>,
    /// The message that it takes, by number within the flow.
    pub takes: Option<u32>,
    /// Its children.
    pub children: Vec<Node>,
}

impl Node {
    /// The same with children.
    pub fn with(mut self, children: Vec<Node>) -> Self {
        self.children = children;
        self
    }
}

/// A trace of a flow, and how many microseconds after the flow's begin it begins.
pub type Root = (u32, Node);
