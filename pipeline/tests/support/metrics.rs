//! A service's `/metrics`, read as a scraper would.

use std::collections::BTreeMap;

use super::otlp::Point;

/// Samples by name and labels, the labels in order: `name{a="1",b="2"}`.
pub struct Scrape {
    pub samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Scrapes a service.
    pub async fn of(base: &str) -> Self {
        let response = reqwest::get(format!("{base}/metrics")).await.unwrap();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
        let text = response.text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (in_order(series), value.parse().unwrap())
        });
        Self { samples: samples.collect() }
    }

    /// The value of a series; panics with its likes when it is not there.
    pub fn value(&self, series: &str) -> f64 {
        let name = series.split('{').next().unwrap();
        *self.samples.get(&in_order(series)).unwrap_or_else(|| {
            let like: Vec<_> = self.samples.keys().filter(|key| key.starts_with(name)).collect();
            panic!("no {series} among {like:#?}")
        })
    }

    /// The series that mention `text`.
    pub fn mentioning(&self, text: &str) -> Vec<&str> {
        self.samples.keys().map(String::as_str).filter(|series| series.contains(text)).collect()
    }
}

/// Labels sorted by name. No value of the pipeline's holds a comma or a brace.
fn in_order(series: &str) -> String {
    let Some((name, labels)) = series.trim_end_matches('}').split_once('{') else {
        return series.to_owned();
    };
    let mut labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// The last value of each series that came by OTLP, under the names that [`Scrape`] has.
pub fn last_of(points: &[Point], service: &str) -> BTreeMap<String, f64> {
    let of_service = points.iter().filter(|point| point.service == service);
    let named = of_service.map(|point| {
        let labels: Vec<String> =
            point.attributes.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let series = if labels.is_empty() {
            point.name.clone()
        } else {
            in_order(&format!("{}{{{}}}", point.name, labels.join(",")))
        };
        (series, point.value)
    });
    named.collect()
}
