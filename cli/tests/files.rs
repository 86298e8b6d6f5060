//! Commands that read files: every example is accepted, and what is wrong is shown with its place.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn oakallow(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oakallow")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn config_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn config(name: &str) -> String {
    config_dir().join(name).display().to_string()
}

fn written(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("written.yaml");
    fs::write(&file, text).unwrap();
    (dir, file.display().to_string())
}

#[test]
fn every_example_is_accepted() {
    let files: Vec<PathBuf> =
        fs::read_dir(config_dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    let dir = tempfile::tempdir().unwrap();
    tls_files(dir.path());
    for file in files {
        // The files that it names are not ours to have; these stand in for them.
        let text = fs::read_to_string(&file).unwrap();
        let file = if text.contains("/etc/oakallow") {
            let copy = dir.path().join(file.file_name().unwrap());
            fs::write(&copy, text.replace("/etc/oakallow", &dir.path().display().to_string())).unwrap();
            copy
        } else {
            file
        };
        let checked = oakallow(&["check", file.to_str().unwrap()]);
        assert!(checked.status.success(), "{}", stdout(&checked));
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_a_hint() {
    let (_dir, file) = written("org: demo\nrules:\n  - tool: x\n    permision: allowed\n");
    let checked = oakallow(&["check", &file]);
    assert_eq!(checked.status.code(), Some(1));
    let said = stdout(&checked);
    assert!(said.contains(&format!("{file}:4:5: ")) && said.contains("did you mean `permission`?"), "{said}");
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let (_dir, bad) = written("org: demo\nrules: 7\n");
    let checked = oakallow(&["check", &bad, &config("policy.yaml")]);
    assert_eq!(checked.status.code(), Some(1));
    let said = stdout(&checked);
    assert!(said.contains(&format!("{bad}:2:8: ")) && said.contains("policy.yaml: ok"), "{said}");
}

#[test]
fn a_join_token_that_is_none_is_told_without_being_shown() {
    let (dir, token) = written("null\n");
    let text = fs::read_to_string(config("proxy.yaml")).unwrap();
    let file = dir.path().join("proxy.yaml");
    for (content, accepted) in
        [("null", false), ("oak_live_0123456789", false), ("oak_join_0123456789", true)]
    {
        fs::write(&token, content).unwrap();
        fs::write(&file, text.replace("/run/secrets/oakallow-join-token", &token)).unwrap();
        let checked = oakallow(&["check", file.to_str().unwrap()]);
        assert_eq!(checked.status.success(), accepted, "{content}");
        let said = stdout(&checked);
        assert!(!said.contains(content) && said.contains("oak_join_") != accepted, "{said}");
    }
}

#[test]
fn an_admin_listener_that_others_could_reach_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    let text = fs::read_to_string(config("proxy.yaml")).unwrap();
    for (address, accepted) in [("0.0.0.0:9901", false), ("10.0.0.1:9901", false), ("'[::1]:9901'", true)] {
        fs::write(&file, text.replace("admin: 127.0.0.1:9901", &format!("admin: {address}"))).unwrap();
        let checked = oakallow(&["check", file.to_str().unwrap()]);
        assert_eq!(checked.status.success(), accepted, "{address}: {}", stdout(&checked));
    }
}

#[test]
fn a_file_of_no_known_kind_is_not_in_order() {
    let (_dir, file) = written("hello: world\n");
    assert_eq!(oakallow(&["check", &file]).status.code(), Some(1));
}

#[test]
fn broken_yaml_is_told_before_what_stands_in_it() {
    let (_dir, file) = written("a: [1\n");
    for arguments in [
        &["check", &file][..],
        &["check", "--kind", "proxy", &file],
        &["policy", "test", &file],
        &["explain", "--policy", &file, "--tool", "x"],
    ] {
        let output = oakallow(arguments);
        assert_eq!(output.status.code(), Some(1));
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(&format!("{file}:2:1: did not find expected ',' or ']'")), "{said}");
    }
}

#[test]
fn a_file_of_another_kind_is_told_as_such() {
    let (policy, tests) = (config("policy.yaml"), config("policy-tests.yaml"));
    let said = stderr(&oakallow(&["policy", "test", &policy]));
    assert!(said.contains(&format!("{policy}: this looks like a policy document, not like policy tests")));
    assert!(said.contains("hint: give a file with `cases:`"), "{said}");
    let said = stderr(&oakallow(&["explain", "--policy", &tests, "--tool", "x"]));
    assert!(said.contains(&format!("{tests}: this looks like policy tests, not like a policy document")));
    assert!(said.contains("hint: a policy document has `org:`"), "{said}");
}

#[test]
fn explain_shows_what_matched_and_what_it_overrode() {
    let policy = config("policy.yaml");
    let arguments = ["explain", "--policy", &policy, "--tool", "restart_service", "--tenant", "globex"];
    let said = stdout(&oakallow(&arguments));
    assert!(said.starts_with("requires_approval  (resolved_from: tenant_tool)\n"), "{said}");
    let line = |name: &str| said.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line(" tenant_tool ").starts_with("=> 4") && line(" tenant_tool ").contains("globex-restarts"));
    assert!(line(" org_tool ").contains("overridden"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("=>")).count(), 1, "{said}");
}

#[test]
fn explain_speaks_json() {
    let policy = config("policy.yaml");
    let output = oakallow(&["explain", "--policy", &policy, "--tool", "drop_database", "--json"]);
    let explained: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explained["decision"]["permission"], "disabled");
    assert_eq!(explained["decision"]["resolved_from"], "guardrail");
    assert_eq!(explained["trace"].as_array().unwrap().len(), 23);
}

#[test]
fn explain_names_everything_that_the_document_does_not_have() {
    let policy = config("policy.yaml");
    let output = oakallow(&["explain", "--policy", &policy, "--tool", "x", "--tenant", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: no decision: the document has no tenant `nobody` (it has: acme, globex), and has no tool `x` (it \
         has: read_record, restart_service, transfer_funds, drop_database): the tenant does not exist\n"
    );
    let output = oakallow(&["explain", "--policy", &policy, "--tool", "read_record", "--tenant", "nobody"]);
    let said = stderr(&output);
    assert!(said.contains("no tenant `nobody`") && !said.contains("no tool"), "{said}");
}

#[test]
fn a_stdio_route_has_nothing_that_only_http_has() {
    let text = fs::read_to_string(config("stdio.yaml")).unwrap();
    let http = "  - {name: web, kind: http, path: \"/tools/{tool}\", audience: web, upstream: \"http://127.0.0.1:1\"}\n";
    for (from, to, said) in [
        ("    audience: files\n", "    audience: files\n    path: /mcp\n", "`path` is for routes over HTTP"),
        (
            "    audience: files\n",
            "    audience: files\n    timeouts: {}\n",
            "`timeouts` is for routes over HTTP",
        ),
        ("    audience: files\n", "    audience: files\n    command: npx\n", "unknown field `command`"),
        ("# listen:\n", "listen: {data: \"127.0.0.1:8080\"}\n", "`data`: nobody connects"),
        ("routes:\n", &format!("routes:\n{http}"), "`stdio` routes stand in a file of their own"),
        ("    kind: stdio\n", "    kind: mcp\n", "has no `upstream`"),
    ] {
        let (_dir, file) = written(&text.replacen(from, to, 1));
        let checked = oakallow(&["check", &file]);
        assert!(!checked.status.success() && stdout(&checked).contains(said), "{said}: {}", stdout(&checked));
    }
}

#[test]
fn a_proxy_that_listens_does_not_start_with_stdio_routes_nor_the_other_way_round() {
    let listens = oakallow(&["proxy", "--config", &config("stdio.yaml")]);
    assert!(
        !listens.status.success() && stderr(&listens).contains("oakallow proxy --stdio"),
        "{}",
        stderr(&listens)
    );
    let wraps = oakallow(&["proxy", "--stdio", "--config", &config("proxy.yaml"), "--", "true"]);
    assert!(
        !wraps.status.success() && stderr(&wraps).contains("no route of the kind `stdio`"),
        "{}",
        stderr(&wraps)
    );
    let two = fs::read_to_string(config("stdio.yaml")).unwrap();
    let (_dir, two) = written(&format!("{two}  - {{name: mail, kind: stdio, audience: mail}}\n"));
    let several = oakallow(&["proxy", "--stdio", "--config", &two, "--", "true"]);
    assert!(stderr(&several).contains("name one of them with --route (files, mail)"), "{}", stderr(&several));
    let unknown = oakallow(&["proxy", "--stdio", "--route", "web", "--config", &two, "--", "true"]);
    assert!(stderr(&unknown).contains("no route `web`; it has files, mail"), "{}", stderr(&unknown));
    let commandless = oakallow(&["proxy", "--stdio", "--config", &config("stdio.yaml")]);
    assert!(
        !commandless.status.success() && stderr(&commandless).contains("COMMAND"),
        "{}",
        stderr(&commandless)
    );
}

/// A server's certificate and key, an authority of clients, and another key.
fn tls_files(dir: &Path) {
    let server = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(dir.join("tls.crt"), server.cert.pem()).unwrap();
    fs::write(dir.join("tls.key"), server.signing_key.serialize_pem()).unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = authority.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    fs::write(dir.join("clients.crt"), authority.pem()).unwrap();
    fs::write(dir.join("other.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    fs::write(dir.join("empty.json"), "{\"keys\": []}").unwrap();
}

/// What of `config/identity.yaml` is changed, into what, and what is said about it.
const BAD_IDENTITY: [(&str, &str, &str); 26] = [
    ("certificate: DIR/tls.crt", "certificate: DIR/none.crt", "none.crt`: No such file"),
    ("key: DIR/tls.key", "key: DIR/other.key", "other.key`: the key is not that of the certificate"),
    ("key: DIR/tls.key", "key: DIR/tls.crt", "there is no private key in PEM in it"),
    ("client_ca: DIR/clients.crt", "client_ca: DIR/tls.key", "there is no certificate in PEM in it"),
    (
        "client_ca: DIR/clients.crt",
        "client_ca: DIR/tls.crt",
        "tls.crt`: a certificate in it is no authority's",
    ),
    (
        "client_ca: DIR/clients.crt",
        "client_certificate: required",
        "certificates of clients take a `client_ca`",
    ),
    ("client_ca: DIR/clients.crt", "", "certificates of clients take a `client_ca`"),
    ("[keys, corp]", "[keys, corp, corq]", "`corq` is neither"),
    ("[keys, corp]", "[keys, corp, certificates]", "takes `tls` with a `client_ca`"),
    ("[keys, corp]", "[keys]", "`corp`: no listener has this issuer"),
    ("[keys, corp]", "[]", "`identities` is empty"),
    ("[keys, corp]", "[corp, corp]", "`corp` stands twice"),
    ("identities: [certificates]", "identities: [keys]", "`client_tenant` is for listeners with"),
    ("mode: \"0660\"", "mode: \"rw\"", "is written in octal"),
    ("mode: \"0660\"", "modes: x", "unknown field `modes`"),
    ("address: 0.0.0.0:8443", "address: localhost", "neither IP:PORT nor unix:/PATH"),
    ("url: https://tools.example ", "url: https://tools.example/x ", "nothing behind it"),
    ("discovery: true", "discovery: false", "has one of `jwks_url`, `jwks_file`"),
    ("discovery: true", "jwks_url: http://login.example/keys", "keys come by https://"),
    (
        "discovery: true",
        "jwks_file: DIR/empty.json\n    ca: DIR/clients.crt",
        "a `ca` is for keys that come by",
    ),
    ("# ca: DIR/login-ca.pem", "ca: DIR/tls.key", "tls.key`: there is no certificate in PEM in it"),
    ("discovery: true", "jwks_file: DIR/empty.json", "none of its keys can be used"),
    ("# algorithms: [RS256", "algorithms: [HS256", "unknown variant `HS256`"),
    ("# algorithms: [RS256", "algorithms: [none", "unknown variant `none`"),
    ("tenant_claim: tenant", "tenant_claim: tenant\n    tenant: acme", "exclude each other"),
    (
        "# token_audience: https://tools.example/mcp ",
        "token_audience: other ",
        "`other` is the `audience` of no issuer",
    ),
];

#[test]
fn a_listener_that_could_not_know_its_callers_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    tls_files(dir.path());
    let text = fs::read_to_string(config("identity.yaml")).unwrap();
    let file = dir.path().join("identity.yaml");
    for (good, bad, said) in BAD_IDENTITY {
        let (good, bad) = (good.replace("DIR", "/etc/oakallow"), bad.replace("DIR", "/etc/oakallow"));
        let changed = text.replacen(&good, &bad, 1);
        assert_ne!(changed, text, "{good}");
        fs::write(&file, changed.replace("/etc/oakallow", &dir.path().display().to_string())).unwrap();
        let checked = oakallow(&["check", file.to_str().unwrap()]);
        assert_eq!(checked.status.code(), Some(1), "{bad}: {}", stdout(&checked));
        assert!(stdout(&checked).contains(said), "{bad}: {}", stdout(&checked));
    }
}

#[test]
fn the_doctor_says_how_long_certificates_are_good() {
    let dir = tempfile::tempdir().unwrap();
    tls_files(dir.path());
    let file = dir.path().join("identity.yaml");
    let text = fs::read_to_string(config("identity.yaml")).unwrap();
    let text = text.replace("# ca: /etc/oakallow/login-ca.pem", "ca: /etc/oakallow/clients.crt");
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    fs::write(&file, text.replace("/etc/oakallow", &dir.path().display().to_string())).unwrap();
    let said = stdout(&oakallow(&["doctor", "--config", file.to_str().unwrap()]));
    assert!(said.contains("0.0.0.0:8443: its certificate is good for"), "{said}");
    assert!(said.contains("corp ca: its certificate is good for"), "{said}");
    assert!(said.contains("0.0.0.0:8444 client_ca: its certificate is good for"), "{said}");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("tls.key"), key.serialize_pem()).unwrap();
    let said = stdout(&oakallow(&["doctor", "--config", file.to_str().unwrap()]));
    assert!(said.contains("0.0.0.0:8443: its certificate has ended"), "{said}");
    // What is shown to a tool server ends too.
    let upstream = "upstream: https://127.0.0.1:9000\n    upstream_tls: {certificate: /etc/oakallow/tls.crt, key: /etc/oakallow/tls.key}";
    let text = text.replace("upstream: http://127.0.0.1:9000", upstream);
    fs::write(&file, text.replace("/etc/oakallow", &dir.path().display().to_string())).unwrap();
    let said = stdout(&oakallow(&["doctor", "--config", file.to_str().unwrap()]));
    assert!(said.contains("ops-mcp upstream_tls.certificate: its certificate has ended"), "{said}");
}

#[test]
fn the_doctor_asks_issuers_for_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    tls_files(dir.path());
    let file = dir.path().join("identity.yaml");
    let text = fs::read_to_string(config("identity.yaml")).unwrap();
    let text = text.replace("/etc/oakallow", &dir.path().display().to_string());
    let said = |keys: &str| {
        fs::write(&file, text.replace("discovery: true", keys)).unwrap();
        stdout(&oakallow(&["doctor", "--config", file.to_str().unwrap()]))
    };
    let good =
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    fs::write(dir.path().join("good.json"), good).unwrap();
    let file = |name: &str| format!("jwks_file: {}", dir.path().join(name).display());
    let found = said(&file("good.json"));
    assert!(found.contains("ok    issuer   corp: its keys can be read"), "{found}");
    let found = said(&file("empty.json"));
    assert!(found.contains("FAIL  issuer   corp: its keys cannot be read: none of its keys"), "{found}");
    // Nobody listens on port 1.
    let found = said("jwks_url: http://127.0.0.1:1/jwks");
    assert!(
        found.contains("corp: its keys cannot be read") && found.contains("Connection refused"),
        "{found}"
    );
}

#[test]
fn keys_in_the_clear_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    let text = fs::read_to_string(config("proxy.yaml")).unwrap();
    let said = |listen: &str| {
        let changed = text.replacen("data: 127.0.0.1:8080", &format!("data: {listen}"), 1);
        fs::write(&file, changed).unwrap();
        let checked = oakallow(&["check", file.to_str().unwrap()]);
        assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
        stdout(&checked) + &stdout(&oakallow(&["doctor", "--config", file.to_str().unwrap()]))
    };
    let warning = "`0.0.0.0:8080` can be reached from elsewhere without TLS";
    let told = said("0.0.0.0:8080");
    assert!(told.contains(&format!("warning: {warning}")), "{told}");
    assert!(told.lines().any(|line| line.starts_with("warn") && line.contains(warning)), "{told}");
    assert!(!said("127.0.0.1:8080").contains("without TLS"));
}
