//! The same import as a shell script that needs bash, curl and jq: for a place without this command, or to
//! read before it is run.

use std::io::{self, Write};

use oakallow_policy::id::Name;
use serde_json::{Value, json};

use super::found::Found;
use super::plan::{category_body, definition};
use crate::client::segment;
use crate::differences::tame;

/// Its functions. The key is never an argument of a process, where others on the machine could see it.
const HEAD: &str = r#"set -euo pipefail
: "${OAKALLOW_BACKEND:?the backend, such as http://127.0.0.1:4000}" "${OAKALLOW_MANAGEMENT_KEY:?a management key}"

# call METHOD PATH < BODY: prints the answer, and the status on a line of its own.
call() {
  curl -sS -X "$1" "$OAKALLOW_BACKEND$2" -H 'Content-Type: application/json' --data-binary @- \
    -w '\n%{http_code}\n' -K <(printf 'header = "X-API-Key: %s"\n' "$OAKALLOW_MANAGEMENT_KEY")
}
# must WHAT METHOD PATH < BODY: the status has to be one of success.
must() {
  local answer; answer=$(call "$2" "$3")
  case ${answer##*$'\n'} in
    2??) echo "$1" ;;
    *) printf '%s\n' "$1 failed: $answer" >&2; exit 1 ;;
  esac
}
# ensure PATH BODY: creates it unless it is there.
ensure() {
  local answer; answer=$(call POST "$1" <<<"$2")
  case ${answer##*$'\n'} in
    2??) echo "created in $1: $(jq -r .name <<<"$2")" ;;
    409) ;;
    *) printf '%s\n' "$1 failed: $answer" >&2; exit 1 ;;
  esac
}
# tool PATH BODY DEFINITION: registers it, or brings the definition of the registered one up to date.
tool() {
  local answer have; answer=$(call GET "$1" </dev/null); have=${answer%$'\n'*}
  case ${answer##*$'\n'} in
    404) must "created $1" POST /v1/tools <<<"$2"; return ;;
    200) ;;
    *) printf '%s\n' "$1 failed: $answer" >&2; exit 1 ;;
  esac
  if [ "$(jq -r .status <<<"$have")" != active ]; then
    must "created $1" POST /v1/tools <<<"$2"
  elif [ "$(jq .audience <<<"$have")" != "$(jq .audience <<<"$2")" ]; then
    echo "$1 is registered for another audience: left as it is" >&2; exit 1
  elif [ "$(jq -S "{description: (.description // \"\"), parameter_schema}" <<<"$have")" = "$(jq -S . <<<"$3")" ]; then
    echo "unchanged $1"
  else
    must "changed $1" PATCH "$1" <<<"$3"
  fi
}
"#;

/// Writes the script. What is refused stands in it as a comment.
pub(super) fn write(found: &Found, source: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "#!/usr/bin/env bash")?;
    writeln!(out, "# Registers the tools of {}.", tame(source))?;
    for (origin, reason) in &found.refused {
        writeln!(out, "# Left out: {}: {}", tame(origin), tame(reason))?;
    }
    out.write_all(HEAD.as_bytes())?;
    for name in found.categories() {
        writeln!(out, "\nensure /v1/categories {}", quoted(&category_body(name)))?;
    }
    for one in &found.tools {
        let path = path(&one.tool.name);
        writeln!(out, "\n# {}", tame(&one.origin))?;
        let definition = Value::Object(definition(&one.tool));
        writeln!(out, "tool {path} {} \\\n  {}", quoted(&json!(one.tool)), quoted(&definition))?;
    }
    Ok(())
}

fn path(name: &Name) -> String {
    format!("/v1/tools/{}", segment(name))
}

/// A JSON text in single quotes, within which a shell looks at nothing but their end.
fn quoted(value: &Value) -> String {
    format!("'{}'", value.to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_the_quotes() {
        assert_eq!(quoted(&json!("it's $(x)")), r#"'"it'\''s $(x)"'"#);
    }
}
