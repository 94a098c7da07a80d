//! Cross-origin requests (the Fetch standard, "CORS protocol"): telemetry straight from browsers.
//!
//! A browser asks before it sends OTLP to another origin, since `application/json` is not a form's
//! content type, and hides the answer from the page unless it is told not to.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Seconds for which a browser need not ask again. Browsers take two hours at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Whether `text` can be given as an origin: `*`, or a scheme, a host and perhaps a port, as
/// browsers send them.
///
/// # Errors
/// What is wrong with it.
pub fn check_origin(text: &str) -> Result<(), String> {
    let expected =
        || format!("`{text}` is no origin: expected `*` or one such as https://shop.example");
    if text == "*" {
        return Ok(());
    }
    let url = url::Url::parse(text).map_err(|_| expected())?;
    // A browser sends no slash at the end, no usual port, and everything in lower case.
    if url.origin().ascii_serialization() == text { Ok(()) } else { Err(expected()) }
}

/// `routes`, open to pages of `origins`; as they are if there are none.
pub fn allow(routes: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return routes;
    }
    let origins: Arc<[String]> = origins.into();
    routes.layer(from_fn_with_state(origins, answer))
}

async fn answer(State(origins): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    let allowed = allowed(&origins, request.headers());
    let headers = request.headers();
    let asks = request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks {
        let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let mut response = StatusCode::NO_CONTENT.into_response();
        if allowed.is_some() {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            // Whatever a page sets beside them, exporters set what they are configured to.
            if let Some(wanted) = wanted {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            }
        }
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    }
    response
}

/// The origin that is to be named to a page that asks.
fn allowed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let allowed = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
    origins.iter().any(allowed).then(|| origin.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in ["*", "https://shop.example", "http://localhost:3000", "http://127.0.0.1:8080"]
        {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "shop.example",
            "https://shop.example/",
            "https://shop.example/a",
            "null",
            "https://Shop.example",
            "https://shop.example:443",
            "file:///a",
        ] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }
}
