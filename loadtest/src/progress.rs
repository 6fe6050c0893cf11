//! How far a run is, for whoever watches a terminal; nothing is printed elsewhere.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of so many steps, gone once it is dropped.
#[allow(clippy::expect_used, reason = "the template is constant and valid")]
pub(crate) fn bar(title: &str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:24} {wide_bar} {pos}/{len} {msg}");
    let bar = ProgressBar::new(steps).with_style(style.expect("the template is valid"));
    bar.set_prefix(title.to_owned());
    bar
}

/// A bar that fills with time, until dropped.
pub(crate) async fn watch(
    title: &str,
    length: Duration,
    message: impl Fn() -> String,
) -> Infallible {
    let bar = bar(title, length.as_secs());
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        bar.set_position(bar.elapsed().as_secs());
        bar.set_message(message());
    }
}
