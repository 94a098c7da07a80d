//! Spans whose resource has no `service.name`: they too must be found.

use lacuna_signal::rows::SpanRows;
use lacuna_signal::selector::{Expr, Field};

/// What Jaeger calls their service (`noServiceName` of the Collector's Jaeger translator). There, it
/// is the name of a resource without any attribute; one with others gets an empty name, which no
/// client can select.
pub const NO_SERVICE: &str = "OTLPResourceNoServiceName";

/// The service `name` as it is shown.
pub fn shown(name: &str) -> &str {
    if name.is_empty() { NO_SERVICE } else { name }
}

/// The service of a span as it is shown.
pub fn service_of<'a>(rows: &SpanRows<'a>, row: usize) -> &'a str {
    shown(rows.service(row).unwrap_or_default())
}

/// The span is of the service that is shown as `name`.
pub fn service_expr(name: &str) -> Expr {
    let named = Expr::service(name);
    if name != NO_SERVICE {
        return named;
    }
    let absent = Expr::Not(Box::new(Expr::exists(Field::service())));
    Expr::any([named, Expr::service(""), absent])
}
