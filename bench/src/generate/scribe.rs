//! Writes spans as the services' instrumentation would.

use super::model::{At, Fault, Kind, Node, SERVICES, Value};
use super::rng::Rng;

const FAULTS: &[Fault] = &[
    Fault {
        class: "TimeoutError",
        message: "deadline exceeded after 2000 ms waiting for upstream",
    },
    Fault {
        class: "java.sql.SQLTransientConnectionException",
        message: "pool main: connection is not available, request timed out after 3000 ms",
    },
    Fault { class: "ConflictError", message: "the row was changed by another transaction" },
    Fault { class: "redis.ConnectionError", message: "connection reset by peer while reading" },
];

const AGENTS: &[&str] = &[
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.2 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Safari/605.1.15",
];

/// W3C baggage as an edge adds it; ends where the session's id begins.
const BAGGAGE: &str = "tenant.id=eu-central-retail,user.tier=gold,market=de-DE,experiment.checkout=variant-b,experiment.search=control,device.class=mobile,app.version=2026.11.3,consent=analytics;functional,request.priority=interactive,cdn.pop=fra-07,campaign=autumn-sale-2026-newsletter-b,referrer=search.organic,store.pickup=berlin-mitte-004,ab.layout=grid-4-columns,session.id=";

const QUERY: &str = "tenant=eu-central-retail&locale=de-DE&currency=EUR&channel=web&include=prices,stock,media,ratings,delivery-options&fields=id,sku,title,price,availability,variants,badges&page=1&size=48&client=storefront-web-2026.11.3&consistency=read-your-writes&timeout_ms=2000&price_list=retail-de-2026q4&segments=returning,newsletter,loyalty-gold&exclude=discontinued,preorder&sort=relevance-desc";

/// What sqlcommenter appends to each statement.
const SQL_COMMENT: &str = "/*application='shop',controller='storefront',action='handle_request',framework='axum%3A0.8',db_driver='sqlx%3A0.9',route='%2Finternal%2F%7Bid%7D',team='checkout-platform',deployment='2026-11-03-r2',service_version='11.6.0',request_class='interactive',pool='main',isolation='read%20committed'*/";

const REDIS_VALUE: &str = "{\"id\":?,\"sku\":?,\"title\":?,\"price_minor\":?,\"currency\":?,\"stock\":?,\"badges\":[?,?,?],\"variants\":[{\"sku\":?,\"color\":?,\"size\":?,\"available\":?},{\"sku\":?,\"color\":?,\"size\":?,\"available\":?}],\"delivery\":{\"earliest\":?,\"latest\":?,\"carriers\":[?,?],\"pickup\":?},\"ratings\":{\"count\":?,\"average\":?},\"updated_at\":?,\"etag\":?,\"ttl\":?,\"source\":?,\"schema\":?} EX ? NX KEEPTTL";

const BROKERS: &str = "kafka-0.kafka-brokers.shop.svc.cluster.local:9092,kafka-1.kafka-brokers.shop.svc.cluster.local:9092,kafka-2.kafka-brokers.shop.svc.cluster.local:9092";

const FLAGS: &[&str] = &[
    "new-checkout-flow-2026",
    "price-cache-v2-read-through",
    "eu-tax-2026-one-stop-shop",
    "stock-reservation-optimistic",
    "recommendation-model-17b-shadow",
    "carrier-choice-cost-weighted",
    "invoice-peppol-format-v3",
    "fraud-score-async-fallback",
    "loyalty-points-double-november",
];

/// Writes spans as the services' instrumentation would.
#[derive(Debug)]
pub struct Scribe {
    /// The choices that differ from template to template.
    pub rng: Rng,
    messages: u32,
    uuids: u32,
    fault: Option<Fault>,
}

impl Scribe {
    /// A scribe of one flow; `failing` flows have one operation that goes wrong.
    pub fn new(seed: u64, failing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let fault = failing.then(|| FAULTS[rng.below(FAULTS.len())]);
        Self { rng, messages: 0, uuids: 1, fault }
    }

    /// A UUID of the flow that nothing else has.
    pub fn fresh_uuid(&mut self) -> u32 {
        self.uuids += 1;
        self.uuids - 1
    }

    /// A message of the flow.
    pub fn fresh_message(&mut self) -> u32 {
        self.messages += 1;
        self.messages - 1
    }

    fn take_fault(&mut self, one_in: usize) -> Option<Fault> {
        if self.fault.is_some() && self.rng.one_in(one_in) { self.fault.take() } else { None }
    }

    fn thread(&mut self) -> (&'static str, Value) {
        ("thread.id", Value::Int(20 + self.rng.below(24) as u64))
    }

    /// The serving side of an HTTP request.
    pub fn http_server(
        &mut self,
        service: At,
        method: &str,
        route: &str,
        children: Vec<Node>,
    ) -> Node {
        let failed = children.iter().any(|c| c.fault.is_some() && c.kind == Kind::Client);
        let fault =
            if failed && self.rng.one_in(2) { children.iter().find_map(|c| c.fault) } else { None };
        let status = if fault.is_some() {
            500
        } else {
            [200_u64, 200, 200, 200, 201, 204, 304, 404][self.rng.below(8)]
        };
        let url = match route.split_once("{id}") {
            Some((before, after)) => Value::Path(before.to_owned(), after.to_owned()),
            None => Value::from(route),
        };
        let mut attributes = vec![
            ("http.request.method", method.into()),
            ("http.route", route.into()),
            ("url.path", url),
            ("http.request.header.baggage", Value::Uuid(BAGGAGE, 0)),
            ("server.address", format!("{}.shop.svc.cluster.local", name(service)).as_str().into()),
            ("server.port", Value::Int(8443)),
            ("http.response.status_code", Value::Int(status)),
            ("network.protocol.version", "1.1".into()),
            (
                "client.address",
                format!("10.42.{}.{}", self.rng.below(6), self.rng.below(250)).as_str().into(),
            ),
            ("http.response.body.size", Value::Size),
            ("user_agent.original", AGENTS[self.rng.below(AGENTS.len())].into()),
            ("correlation_id", Value::Uuid("", 0)),
        ];
        if let Some(fault) = fault {
            attributes.push(("error.type", fault.class.into()));
        }
        Node {
            service,
            scope: "io.opentelemetry.http.server",
            name: format!("{method} {route}"),
            kind: Kind::Server,
            attributes,
            own: 180 + self.rng.below(900) as u32,
            fault,
            sends: None,
            takes: None,
            children,
        }
    }

    /// A call over HTTP: the client's span with the server's below.
    pub fn call(
        &mut self,
        from: At,
        to: At,
        method: &str,
        route: &str,
        children: Vec<Node>,
    ) -> Node {
        let server = self.http_server(to, method, route, children);
        self.http_client(from, &format!("{}.shop.svc.cluster.local", name(to)), method, route)
            .with(vec![server])
    }

    /// The calling side of an HTTP request.
    pub fn http_client(&mut self, from: At, host: &str, method: &str, route: &str) -> Node {
        let fault = self.take_fault(6);
        let (before, after) = route.split_once("{id}").unwrap_or((route, ""));
        let mut attributes = vec![
            ("http.request.method", method.into()),
            (
                "url.full",
                Value::Path(format!("https://{host}:8443{before}"), format!("{after}?{QUERY}")),
            ),
            ("url.template", route.into()),
            ("server.address", host.into()),
            ("server.port", Value::Int(8443)),
            ("http.response.status_code", Value::Int(if fault.is_some() { 503 } else { 200 })),
            ("network.protocol.version", "2".into()),
            (
                "network.peer.address",
                format!("10.43.{}.{}", self.rng.below(4), self.rng.below(250)).as_str().into(),
            ),
            ("http.request.resend_count", Value::Int(self.rng.below(2) as u64)),
            ("http.request.body.size", Value::Size),
            (
                "code.function.name",
                format!(
                    "{}::clients::{}::send_with_retry",
                    name(from).replace('-', "_"),
                    method.to_lowercase()
                )
                .as_str()
                .into(),
            ),
            self.thread(),
        ];
        if let Some(fault) = fault {
            attributes.push(("error.type", fault.class.into()));
        }
        Node {
            service: from,
            scope: "io.opentelemetry.http.client",
            name: method.to_owned(),
            kind: Kind::Client,
            attributes,
            own: 350 + self.rng.below(2500) as u32,
            fault,
            sends: None,
            takes: None,
            children: Vec::new(),
        }
    }

    /// A statement sent to PostgreSQL.
    pub fn pg(&mut self, service: At, operation: &str, table: &str, statement: &str) -> Node {
        let fault = self.take_fault(8);
        let mut attributes = vec![
            ("db.system.name", "postgresql".into()),
            ("db.namespace", format!("{}|public", name(service).replace('-', "_")).as_str().into()),
            ("db.operation.name", operation.into()),
            ("db.collection.name", table.into()),
            ("db.query.summary", format!("{operation} {table}").as_str().into()),
            ("db.query.text", format!("{statement} {SQL_COMMENT}").as_str().into()),
            ("db.response.returned_rows", Value::Int(self.rng.below(40) as u64)),
            ("server.address", format!("pg-{}.db.shop.internal", name(service)).as_str().into()),
            ("server.port", Value::Int(5432)),
            ("db.client.connection.pool.name", "main".into()),
            (
                "code.function.name",
                format!(
                    "{}::repository::{table}::{}",
                    name(service).replace('-', "_"),
                    operation.to_lowercase()
                )
                .as_str()
                .into(),
            ),
            self.thread(),
        ];
        if operation != "SELECT" {
            attributes.push(("correlation_id", Value::Uuid("", 0)));
        }
        if let Some(fault) = fault {
            attributes.push(("error.type", fault.class.into()));
        }
        Node {
            service,
            scope: "sqlx",
            name: format!("{operation} {table}"),
            kind: Kind::Client,
            attributes,
            own: 300 + self.rng.below(4000) as u32,
            fault,
            sends: None,
            takes: None,
            children: Vec::new(),
        }
    }

    /// A command sent to Redis; `key` ends where the flow's own id begins.
    pub fn redis(&mut self, service: At, command: &str, key: &'static str) -> Node {
        let fault = self.take_fault(12);
        let mut attributes = vec![
            ("db.system.name", "redis".into()),
            ("db.namespace", "0".into()),
            ("db.operation.name", command.into()),
            ("db.redis.key", Value::Uuid(key, 0)),
            ("db.query.text", format!("{command} {key}? {REDIS_VALUE}").as_str().into()),
            ("server.address", "redis-main.cache.shop.internal".into()),
            ("server.port", Value::Int(6379)),
            ("network.peer.address", "10.43.7.21".into()),
            ("db.redis.hit", Value::Bool(!self.rng.one_in(5))),
            ("db.client.connection.pool.name", format!("{}-redis", name(service)).as_str().into()),
            (
                "code.function.name",
                format!("{}::cache::{}", name(service).replace('-', "_"), command.to_lowercase())
                    .as_str()
                    .into(),
            ),
            self.thread(),
        ];
        if let Some(fault) = fault {
            attributes.push(("error.type", fault.class.into()));
        }
        Node {
            service,
            scope: "redis",
            name: command.to_owned(),
            kind: Kind::Client,
            attributes,
            own: 90 + self.rng.below(600) as u32,
            fault,
            sends: None,
            takes: None,
            children: Vec::new(),
        }
    }

    fn kafka(&mut self, event: &str, uuid: u32) -> Vec<(&'static str, Value)> {
        vec![
            ("messaging.system", "kafka".into()),
            ("messaging.destination.name", format!("shop.{event}.v1").as_str().into()),
            ("messaging.destination.partition.id", self.rng.below(12).to_string().as_str().into()),
            ("messaging.kafka.offset", Value::Offset),
            ("messaging.message.id", Value::Uuid("", uuid)),
            ("messaging.message.body.size", Value::Size),
            ("server.address", BROKERS.into()),
            ("messaging.kafka.message.key", Value::Uuid("tenant/eu-central-retail/order/", 0)),
            ("event_type", format!("shop.{event}.v1").as_str().into()),
            ("correlation_id", Value::Uuid("", 0)),
        ]
    }

    /// The sending of `message`, whose event id is the UUID of number `uuid`.
    pub fn produce(&mut self, service: At, event: &str, message: u32, uuid: u32) -> Node {
        let mut attributes = self.kafka(event, uuid);
        attributes.push(("messaging.operation.type", "send".into()));
        attributes
            .push(("messaging.client.id", format!("{}-producer-1", name(service)).as_str().into()));
        Node {
            service,
            scope: "rdkafka",
            name: format!("send shop.{event}.v1"),
            kind: Kind::Producer,
            attributes,
            own: 700 + self.rng.below(5000) as u32,
            fault: None,
            sends: Some(message),
            takes: None,
            children: Vec::new(),
        }
    }

    /// The processing of `message` by a consumer, in a trace of its own that links back.
    pub fn consume(
        &mut self,
        service: At,
        event: &str,
        message: u32,
        uuid: u32,
        children: Vec<Node>,
    ) -> Node {
        let fault = self.take_fault(4);
        let mut attributes = self.kafka(event, uuid);
        attributes.push(("messaging.operation.type", "process".into()));
        attributes.push((
            "messaging.consumer.group.name",
            format!("{}-v2", name(service)).as_str().into(),
        ));
        if let Some(fault) = fault {
            attributes.push(("error.type", fault.class.into()));
        }
        Node {
            service,
            scope: "rdkafka",
            name: format!("process shop.{event}.v1"),
            kind: Kind::Consumer,
            attributes,
            own: 250 + self.rng.below(1500) as u32,
            fault,
            sends: None,
            takes: Some(message),
            children,
        }
    }

    /// A step inside a service.
    pub fn step(&mut self, service: At, name_: &str, children: Vec<Node>) -> Node {
        let attributes = vec![
            (
                "code.function.name",
                format!("{}::domain::{name_}", name(service).replace('-', "_")).as_str().into(),
            ),
            ("code.file.path", format!("src/domain/{name_}.rs").as_str().into()),
            ("code.line.number", Value::Int(30 + self.rng.below(400) as u64)),
            self.thread(),
            ("thread.name", format!("worker-{}", self.rng.below(24)).as_str().into()),
            ("feature.flags", Value::Texts(FLAGS.to_vec())),
            ("tenant.id", "eu-central-retail".into()),
            ("step.score", Value::Double),
            ("step.items", Value::Int(1 + self.rng.below(30) as u64)),
            ("order.number", Value::Path("ORD-2026-".to_owned(), String::new())),
            ("correlation_id", Value::Uuid("", 0)),
        ];
        Node {
            service,
            scope: "shop.domain",
            name: name_.to_owned(),
            kind: Kind::Internal,
            attributes,
            own: 60 + self.rng.below(900) as u32,
            fault: None,
            sends: None,
            takes: None,
            children,
        }
    }
}

fn name(service: At) -> &'static str {
    SERVICES[service as usize].name
}
