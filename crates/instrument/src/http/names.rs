//! Names that the conventions give to methods and hosts.

/// `http.request.method` of a method that is not known: clients choose it, and it is a label.
pub(super) const OTHER: &str = "_OTHER";

/// The method as a label.
pub(super) fn method_name(method: &str) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|k| *k == method).unwrap_or(OTHER)
}

/// The method as it begins a span's name.
pub(super) fn name_of(method: &'static str) -> &'static str {
    if method == OTHER { "HTTP" } else { method }
}

/// A host without the brackets that a URL puts around IPv6 addresses.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// `host`, `host:port`, `[::1]:port` taken apart.
pub(super) fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (bare(host), port.parse().ok()),
        _ => (bare(authority), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_apart_with_and_without_ports() {
        assert_eq!(host_and_port("example.org:81"), ("example.org", Some(81)));
        assert_eq!(host_and_port("example.org"), ("example.org", None));
        assert_eq!(host_and_port("[::1]:81"), ("::1", Some(81)));
        assert_eq!(host_and_port("[::1]"), ("::1", None));
    }
}
