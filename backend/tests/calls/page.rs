use oakallow_policy::canonical::hex;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::stack::{OWNER, Stack, start};

struct Browser<'s> {
    stack: &'s Stack,
    cookie: String,
    csrf: String,
}

async fn login_token(stack: &Stack) -> String {
    let link = stack.running.issue_login_link("demo", OWNER).await.unwrap();
    link.split_once("token=").unwrap().1.to_owned()
}

async fn sign_in(stack: &Stack) -> Browser<'_> {
    let token = login_token(stack).await;
    let form = format!("token={token}");
    let answer = post_form(stack, "/login", &form).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    let mut browser = Browser { stack, cookie, csrf: String::new() };
    let page = browser.get("/approvals").send().await.unwrap().text().await.unwrap();
    let csrf = page.split_once("name=\"csrf\" value=\"").unwrap().1;
    browser.csrf = csrf.split('"').next().unwrap().to_owned();
    browser
}

fn post_form(stack: &Stack, path: &str, form: &str) -> RequestBuilder {
    stack
        .http
        .post(format!("{}{path}", stack.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", &stack.url)
        .body(form.to_owned())
}

impl Browser<'_> {
    fn get(&self, path: &str) -> RequestBuilder {
        self.stack.http.get(format!("{}{path}", self.stack.url)).header("cookie", &self.cookie)
    }

    /// One call's card.
    async fn card(&self, id: &str) -> String {
        let lists = self.get("/approvals/list").send().await.unwrap().text().await.unwrap();
        let (_, card) = lists.split_once(&format!("id=\"{id}\"")).unwrap();
        card.split("</article>").next().unwrap().to_owned()
    }

    async fn decide(&self, id: &str, decision: &str) -> Response {
        let form = format!("csrf={}&decision={decision}&note=looked", self.csrf);
        let request = post_form(self.stack, &format!("/approvals/{id}/decide"), &form);
        request.header("cookie", &self.cookie).send().await.unwrap()
    }
}

impl Stack {
    /// An approval that the owner may not decide.
    async fn of_owners_agent(&self) -> Value {
        let agent = json!({"id": "own", "owner": OWNER, "tenants": ["acme"]});
        let (_, made) = self.post(&self.management, "/v1/agents", &agent).await;
        let key = made["key"]["key"].as_str().unwrap();
        self.post(key, "/v1/approvals", &json!({"tool_name": "transfer_funds"})).await.1
    }
}

async fn pending(stack: &Stack) -> String {
    stack.ask("transfer_funds", json!({"amount": 1})).await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_login_link_survives_a_preview_and_works_once() {
    let stack = start().await;
    let token = login_token(&stack).await;
    for _ in 0..2 {
        let page = stack.http.get(format!("{}/login?token={token}", stack.url)).send().await.unwrap();
        assert_eq!(page.status(), 200);
    }
    let form = format!("token={token}");
    assert_eq!(post_form(&stack, "/login", &form).send().await.unwrap().status(), 303);
    let again = post_form(&stack, "/login", &form).send().await.unwrap();
    assert_eq!(says_how_to_sign_in(again).await, "This link was used already");
    let again = stack.http.get(format!("{}/login?token={token}", stack.url)).send().await.unwrap();
    assert_eq!(says_how_to_sign_in(again).await, "This link was used already");
    let late = login_token(&stack).await;
    stack.clock.advance_ms(15 * 60_000);
    let form = format!("token={late}");
    let late = post_form(&stack, "/login", &form).send().await.unwrap();
    assert_eq!(says_how_to_sign_in(late).await, "This link does not work");
}

/// The heading of a 401, which says where a link comes from and leads nowhere else.
async fn says_how_to_sign_in(answer: Response) -> String {
    assert_eq!(answer.status(), 401);
    let page = answer.text().await.unwrap();
    let command = "oakallow backend login-link --data-dir DIR --org ORG --email YOU";
    assert!(page.contains(command) && page.contains("administrator of the machine"), "{page}");
    assert!(!page.contains("Back to approvals"), "{page}");
    page.split_once("<h1>").unwrap().1.split("</h1>").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_first_visit_is_asked_to_sign_in() {
    let stack = start().await;
    let visit = stack.http.get(format!("{}/approvals", stack.url)).send().await.unwrap();
    assert_eq!(says_how_to_sign_in(visit).await, "Sign in");
    // Whoever is signed in and opens the old link is not told to fetch a new one.
    let token = login_token(&stack).await;
    post_form(&stack, "/login", &format!("token={token}")).send().await.unwrap();
    let browser = sign_in(&stack).await;
    let page = browser.get(&format!("/login?token={token}")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("used already") && page.contains("Back to approvals"), "{page}");
    assert!(!page.contains("login-link"), "{page}");
}

#[tokio::test]
async fn long_arguments_have_a_page_of_their_own() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let long = format!("{}<b>\u{202e}THE END", "x".repeat(100_000));
    let many: Vec<u32> = (0..1_998).collect();
    let asked = stack.ask("transfer_funds", json!({"long": long, "last": "z", "many": many})).await;
    let lists = browser.get("/approvals/list").send().await.unwrap().text().await.unwrap();
    assert!(lists.len() < 10_000, "{} bytes", lists.len());
    let path = format!("/approvals/{}/arguments", asked["id"].as_str().unwrap());
    assert!(lists.contains(&path) && lists.contains("The arguments are long (109 kB)"), "{lists}");
    let page = browser.get(&path).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("U+202E") && page.contains("THE END") && !page.contains("<b>"));
    assert!(page.contains(">109 kB, 2,000 values<"), "{page:.2000}");
    let decided = format!("action=\"/approvals/{}/decide\"", asked["id"].as_str().unwrap());
    assert!(page.contains(&decided), "it can be decided where it is read");
    // Not to somebody who may not decide it.
    let own = stack.of_owners_agent().await;
    let path = format!("/approvals/{}/arguments", own["id"].as_str().unwrap());
    assert_eq!(browser.get(&path).send().await.unwrap().status(), 403);
    assert_eq!(browser.get("/approvals/apr_none/arguments").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_form_is_small() {
    let stack = start().await;
    let form = format!("token={}", "x".repeat(100_000));
    assert_eq!(post_form(&stack, "/login", &form).send().await.unwrap().status(), 413);
}

#[tokio::test]
async fn people_decide_on_the_page() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let id = pending(&stack).await;
    let page = browser.get("/approvals").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(page.contains(&id) && page.contains("transfer_funds") && page.contains("agent-acme"));
    assert!(!page.contains("<script>") && !page.contains("onclick") && !page.contains("style="));
    assert_eq!(browser.decide(&id, "approved").await.status(), 303);
    assert_eq!(stack.status(&id).await, "approved");
    let (_, seen) = stack.get(&stack.approver, &format!("/v1/approvals/{id}")).await;
    assert_eq!(seen["decided_by"], OWNER);
    assert_eq!(browser.decide(&id, "denied").await.status(), 409);
}

#[tokio::test]
async fn the_page_says_in_words_why_a_call_needs_a_person() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let rule = json!({"tenant_id": "acme", "tool_name": "transfer_funds", "permission": "requires_approval"});
    let (_, rule) = stack.post(&stack.management, "/v1/rules", &rule).await;
    let rule = rule["id"].as_str().unwrap();
    let tool = json!({"name": "bare", "audience": "demo-tools", "risk_level": "low"});
    stack.post(&stack.management, "/v1/tools", &tool).await;
    for (tool, words, behind) in [
        ("transfer_funds", "A rule of tenant acme for this tool asks for a person.", &*format!("L4 {rule}")),
        ("wipe_disk", "This tool asks for a person by default.", "L9"),
        ("nobody_knows", "Nobody registered this tool.", "L12"),
        ("bare", "No rule and no default says what to do with this tool.", "L12"),
    ] {
        let asked = stack.ask(tool, json!({})).await;
        let card = browser.card(asked["id"].as_str().unwrap()).await;
        let (_, said) = card.split_once("Why it needs you</dt><dd>").unwrap();
        assert!(said.starts_with(words), "{said}");
        let small = said.split_once("<span class=\"soft mono\">").unwrap().1.split("</span>").next().unwrap();
        assert_eq!(small, behind);
    }
    let own = stack.of_owners_agent().await;
    let card = browser.card(own["id"].as_str().unwrap()).await;
    assert!(card.contains(">You answer for the agent that asks, so somebody else must decide.<"), "{card}");
}

#[tokio::test]
async fn only_high_and_critical_calls_ask_again_before_they_are_approved() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let medium = pending(&stack).await;
    let critical = stack.ask("wipe_disk", json!({})).await["id"].as_str().unwrap().to_owned();
    assert!(!browser.card(&medium).await.contains("Confirm"));
    let card = browser.card(&critical).await;
    assert!(card.contains("hidden>Approve a critical call?") && card.contains(">Confirm<"), "{card}");
    // That is the page's; the server takes the decision as it comes.
    assert_eq!(browser.decide(&critical, "approved").await.status(), 303);
}

#[tokio::test]
async fn what_was_decided_last_is_on_top() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let mut asked = Vec::new();
    for amount in 1..=3 {
        let one = stack.ask("transfer_funds", json!({"amount": amount})).await;
        asked.push((one["id"].as_str().unwrap().to_owned(), one["reference"].as_str().unwrap().to_owned()));
        stack.clock.advance_ms(1_000);
    }
    for (id, _) in [&asked[1], &asked[2], &asked[0]] {
        assert_eq!(browser.decide(id, "denied").await.status(), 303);
        stack.clock.advance_ms(1_000);
    }
    let page = browser.get("/approvals").send().await.unwrap().text().await.unwrap();
    let recent = page.split_once("id=\"recent\"").unwrap().1;
    let place = |of: &(String, String)| recent.find(&of.1).unwrap();
    assert!(place(&asked[0]) < place(&asked[2]) && place(&asked[2]) < place(&asked[1]), "{recent}");
}

#[tokio::test]
async fn what_an_agent_wrote_is_shown_and_never_run() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let body = json!({"tool_name": "transfer_funds", "reason": "<img src=x onerror=alert(1)>\u{202e}gnp",
                      "parameters": {"to": "</pre><script>alert(1)</script>", "hidden": "a\u{200b}b\u{0}"}});
    let (status, _) = stack.post(&stack.acme, "/v1/approvals", &body).await;
    assert_eq!(status, 201);
    for path in ["/approvals", "/approvals/list"] {
        let page = browser.get(path).send().await.unwrap().text().await.unwrap();
        assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
        assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
        assert!(page.contains("U+202E") && page.contains("U+200B"), "{page}");
        assert!(!page.contains('\u{202e}') && !page.contains('\u{200b}'));
        assert!(page.contains("The agent claims"));
    }
}

#[tokio::test]
async fn a_request_from_elsewhere_is_refused() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let id = pending(&stack).await;
    let path = format!("/approvals/{id}/decide");
    let good = format!("csrf={}&decision=approved", browser.csrf);
    let send = async |form: &str, header: (&'static str, &str)| {
        let request = stack
            .http
            .post(format!("{}{path}", stack.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", &browser.cookie)
            .header(header.0, header.1)
            .body(form.to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(&good, ("origin", "https://evil.example")).await, 403);
    assert_eq!(send(&good, ("origin", "null")).await, 403);
    assert_eq!(send(&good, ("sec-fetch-site", "cross-site")).await, 403);
    assert_eq!(send(&good, ("host", "evil.example:4000")).await, 403);
    assert_eq!(send("csrf=wrong&decision=approved", ("origin", &stack.url)).await, 403);
    assert_eq!(send("decision=approved", ("origin", &stack.url)).await, 422);
    // The same through the API: a session needs its token and JSON there too.
    let api = format!("{}/v1/approvals/{id}/decide", stack.url);
    let request = || stack.http.post(&api).header("cookie", &browser.cookie).header("origin", &stack.url);
    let body = json!({"decision": "approved"});
    assert_eq!(request().json(&body).send().await.unwrap().status(), 403);
    let text = request().header("x-csrf-token", &browser.csrf).body(body.to_string());
    assert_eq!(text.send().await.unwrap().status(), 400);
    assert_eq!(stack.status(&id).await, "pending");
    let whole = request().header("x-csrf-token", &browser.csrf).json(&body);
    assert_eq!(whole.send().await.unwrap().status(), 200);
    let rebound = browser.get("/approvals").header("host", "rebound.example").send().await.unwrap();
    assert_eq!(rebound.status(), 403);
}

#[tokio::test]
async fn a_session_ends_by_signing_out_and_by_time() {
    let stack = start().await;
    let browser = sign_in(&stack).await;
    let out =
        post_form(&stack, "/logout", &format!("csrf={}", browser.csrf)).header("cookie", &browser.cookie);
    assert_eq!(browser.get("/session").send().await.unwrap().status(), 204);
    assert_eq!(out.send().await.unwrap().status(), 200);
    assert_eq!(browser.get("/approvals").send().await.unwrap().status(), 401);
    assert_eq!(browser.get("/session").send().await.unwrap().status(), 401);
    let other = sign_in(&stack).await;
    stack.clock.advance_ms(12 * 3600 * 1000);
    assert_eq!(other.get("/approvals").send().await.unwrap().status(), 401);
    assert_eq!(stack.events("session.created").await.len(), 2);
    assert_eq!(stack.events("session.ended").await.len(), 1);
}

#[tokio::test]
async fn no_secret_is_stored_as_it_is() {
    let stack = start().await;
    let link = login_token(&stack).await;
    let browser = sign_in(&stack).await;
    let proxy = stack.enrol().await;
    let (_, minted) = stack.post(&stack.acme, "/v1/tokens/mint", &json!({"tool_name": "read_record"})).await;
    let (_, keys) = stack.get(&stack.tool, "/v1/audiences/demo-tools/keys").await;
    let cookie = browser.cookie.split_once('=').unwrap().1;
    let secrets = [
        &stack.management,
        &stack.approver,
        &stack.acme,
        &stack.tool,
        &link,
        cookie,
        &proxy.key,
        minted["token"].as_str().unwrap(),
        keys["keys"][0]["k"].as_str().unwrap(),
    ];
    let (_, export) = stack.get(&stack.management, "/v1/audit/export").await;
    let mut places = vec![export.as_str().unwrap().as_bytes().to_vec()];
    for entry in std::fs::read_dir(stack.dir.path()).unwrap() {
        places.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    for secret in secrets {
        for place in &places {
            assert!(!place.windows(secret.len()).any(|w| w == secret.as_bytes()), "a secret is in the clear");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_key_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let stack = start().await;
    let file = stack.dir.path().join("key-encryption-key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let dir = stack.dir;
    stack.running.shutdown().await;
    let config = oakallow_backend::Config::new("127.0.0.1:0".parse().unwrap(), dir.path().to_owned());
    let refused = oakallow_backend::start(config).await.err().unwrap().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[tokio::test]
async fn a_card_shows_how_the_tool_changed() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let browser = sign_in(&stack).await;
    for description in ["Transfers funds.", "Transfers funds <b>to mallory</b>\u{202e}."] {
        let definition = json!({"name": "transfer_funds", "description": description});
        let sha256 = hex(&oakallow_policy::pin::digest(&definition));
        let seen = json!({"name": "transfer_funds", "sha256": sha256, "definition": definition.to_string()});
        let body = json!({"audience": "demo-tools", "definitions": [seen]});
        let (status, said) = stack.post(&proxy.key, &proxy.path("definitions"), &body).await;
        assert_eq!(status, 204, "{said}");
    }
    let id = pending(&stack).await;
    let card = browser.card(&id).await;
    assert!(card.contains("not what it was when it was pinned") && card.contains("/description"), "{card}");
    assert!(card.contains("<del>Transfers funds.</del>"), "{card}");
    assert!(card.contains("to mallory") && !card.contains("<b>") && card.contains("U+202E"), "{card}");
    assert!(card.contains("describes this tool otherwise"), "{card}");
}
