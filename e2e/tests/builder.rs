//! The guide's pages about registering tools and keeping a policy in files: their commands, as they are written,
//! against `oakallow dev`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use oakallow_e2e::process::{oakallow, repository};
use oakallow_e2e::readme::blocks;
use oakallow_e2e::stack::Stack;

/// Runs every `sh` block of a page, in order, in one directory; what each said. The last command of a block ends with
/// the status that the block says of it.
async fn run_page(stack: &Stack, page: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/guide").join(page)).unwrap();
    let bin = stack.dir().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(oakallow().get_program(), bin.join("oakallow")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut said = Vec::new();
    for block in blocks(&text).into_iter().filter(|block| block.language == "sh") {
        let mut command = Command::new("bash");
        command.args(["-uo", "pipefail", "-c", &block.text]).current_dir(stack.dir());
        command.envs(stack.envs()).env("PATH", &path).stdin(std::process::Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("bash");
        let all = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(promised(&block.text)), "{}\n{all}", block.text);
        said.push(all);
    }
    said
}

/// `# exits with 2: …`; of several, the last.
fn promised(block: &str) -> i32 {
    let said = block.split("# exits with ").skip(1).last();
    said.map_or(0, |said| said.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn the_page_about_imports_does_what_it_says() {
    let stack = Stack::start().await;
    let said = run_page(&stack, "import.md").await;
    let [planned, imported, listed, script] = said.as_slice() else { panic!("{said:#?}") };
    assert!(planned.contains("4 to create") && planned.contains("say --yes"), "{planned}");
    assert!(imported.contains("Done.") && imported.contains("3 unchanged"), "{imported}");
    assert!(listed.contains("0 to create, 0 to change, 0 to delete, 4 unchanged"), "{listed}");
    assert_eq!(script.matches("unchanged").count(), 3, "{script}");
    let tool = stack.control().management().get("/v1/tools/deletePet").await.body;
    assert_eq!(
        (&tool["risk_level"], &tool["default_permission"]),
        (&"high".into(), &"requires_approval".into())
    );
}

#[tokio::test]
async fn the_page_about_policies_in_files_does_what_it_says() {
    let stack = Stack::start().await;
    let said = run_page(&stack, "policy-files.md").await;
    let [pulled, planned, applied, kept, made, tested, explained] = said.as_slice() else {
        panic!("{said:#?}")
    };
    for part in ["wrote policy/tools/demo-tools.yaml", "org: demo", "guardrail: true"] {
        assert!(pulled.contains(part), "{part}: {pulled}");
    }
    assert!(planned.contains("0 to create, 0 to change, 0 to delete"), "{planned}");
    assert!(planned.contains("+ tool=transfer_funds: disabled (guardrail)"), "{planned}");
    assert!(applied.contains("Done."), "{applied}");
    assert!(kept.contains("- tool=transfer_funds: disabled (guardrail)"), "{kept}");
    assert!(made.contains("+ tool=read_record: disabled (guardrail)") && made.contains("Done."), "{made}");
    assert!(tested.contains("1 passed, 0 failed") && tested.contains("0 passed, 1 failed"), "{tested}");
    assert_eq!(explained.matches("allowed  (resolved_from: tenant_tool)").count(), 2, "{explained}");
}
