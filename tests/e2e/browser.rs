use crate::support::{Service, node};

#[test]
fn two_tabs_chat_count_and_are_notified() {
    Service::fanfare().run(node("page.mjs", &["/usr/bin/chromium"]));
}
