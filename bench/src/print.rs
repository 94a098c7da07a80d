//! Lines on standard output, aligned.

use std::io::Write;

/// A heading.
pub fn heading(text: &str) {
    line(&format!("\n{text}"));
}

/// A figure and its name.
pub fn figure(name: &str, value: impl AsRef<str>) {
    line(&format!("  {name:<44} {}", value.as_ref()));
}

/// One line. A reader that has gone away ends nothing: the measurement is in the exit status.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// A whole number with thin groups of three.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}
