use crate::support::{Service, program, run, with_secrets};

#[test]
fn every_endpoint_answers() {
    let server = Service::fanfare();
    for (path, expected) in [
        ("/health", "200"),
        ("/ready", "200"),
        ("/metrics", "200"),
        ("/", "200"),
        ("/ws/chat", "426"),
        ("/api/info", "401"),
        ("/nothing", "404"),
    ] {
        let url = format!("{}{path}", server.url);
        let options = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url];
        assert_eq!(run(&program("curl", &options)), expected, "{path}");
    }
    let metrics = run(&program("curl", &["--silent", &format!("{}/metrics", server.url)]));
    assert!(metrics.contains("\nfanfare_connections 0\n"), "{metrics}");
}

#[test]
fn the_lines_that_dev_prints_can_be_pasted() {
    let server = Service::fanfare();
    let lines = server.lines.iter().filter(|line| line.trim_start().starts_with("curl "));
    let paste = |line: String| run(&with_secrets(program("sh", &["-c", &line])));
    let answers: Vec<_> = lines.take(3).map(paste).collect();
    assert_eq!(answers[0], r#"{"result":{"connections":0}}"#);
    assert_eq!(answers[1], r#"{"result":{"connections":0}}"#);
    assert!(answers[2].starts_with(r#"{"result":{"nodes":[{"uid":"#), "{}", answers[2]);
}
