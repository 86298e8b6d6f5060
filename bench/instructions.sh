#!/usr/bin/env bash
# Counts the instructions of one decision under callgrind and fails when a count exceeds its budget.
# Counts do not depend on the machine's load, so they can gate where times cannot.
# usage: bench/instructions.sh            (needs valgrind)
set -euo pipefail
cd "$(dirname "$0")/.."

# rules : most instructions per decision. Measured 2026-11-24, plus a tenth.
readonly budgets=(10:1050 1000:1140 100000:1150)
readonly decisions=1000

cargo build --quiet --release -p oakallow-bench --bin decide-instructions
binary=${CARGO_TARGET_DIR:-target}/release/decide-instructions
out=$(mktemp) && trap 'rm -f "$out"' EXIT
failed=0
for budget in "${budgets[@]}"; do
  rules=${budget%%:*} most=${budget##*:}
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured_decisions*' \
    "$binary" "$rules" >/dev/null 2>"$out"
  total=$(sed -n 's/.*Collected *: *\([0-9]*\).*/\1/p' "$out")
  per=$((total / decisions))
  echo "decide with $rules rules: $per instructions (at most $most)"
  ((per <= most && per > 0)) || failed=1
done
exit $failed
