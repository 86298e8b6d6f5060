# shellcheck shell=bash disable=SC2034
# What building and checking need from the machine: the one list. Sourced by scripts/setup and check.

# when | Debian package | probe | what for
#   build   `cargo run --release -- dev`
#   check   `./check`, on top of build
#   bench   `bench/proxy/run`, on top of build
SYSTEM_NEEDS=(
  "build|build-essential|command -v cc|links every crate; compiles SQLite and the TLS provider"
  "build|build-essential|command -v make|drives the build of zlib-ng"
  "build|cmake|command -v cmake|configures zlib-ng, which Pingora depends on"
  "check|build-essential|command -v c++|links the fuzz targets"
  "check|python3|command -v python3|runs the Python clients of the end-to-end tests"
  "check|python3-venv|python3 -c 'import venv, ensurepip'|keeps the Python clients out of the system's packages"
  "check|npm|command -v npm|installs the TypeScript clients of the end-to-end tests"
  "check|chromium|command -v chromium|presses Approve in the end-to-end tests, driven by Playwright"
  "check|libnss-wrapper|ls /usr/lib/*/libnss_wrapper.so|gives the names of tool servers the addresses of a test"
  "check|curl|command -v curl|runs the commands of the README"
  "check|jq|command -v jq|reads JSON in scripts"
  "check|postgresql|ls /usr/lib/postgresql/*/bin/initdb|the tests of the backend on PostgreSQL, with servers of their own"
  "bench|nginx-light|command -v nginx|the tool server of bench/proxy, and one of the proxies beside ours"
  "bench|wrk|command -v wrk|sends the calls of bench/proxy"
  "bench|strace|command -v strace|counts system calls"
  "bench|npm|command -v npm|installs Cerbos for bench/proxy"
  "bench|python3-venv|python3 -c 'import venv, ensurepip'|keeps Envoy out of the system's packages"
  "check|strace|command -v strace|sees what the spool has synced to the disk"
  "check|faketime|command -v faketime|sets the clock of a proxy in tests"
  "check|valgrind|command -v valgrind|counts the instructions of a decision"
)

# name | minimum accepted when already installed | version installed when missing
CARGO_NEEDS=(
  "cargo-nextest|0.9.100|0.9.143"
  "cargo-deny|0.19.0|0.20.2"
  "cargo-fuzz|0.13.0|0.13.2"
)

# Checks the rules and dashboards that are shipped. Taken out of Debian's package of Prometheus without installing that,
# so that no service is started; an installed one of this version or newer will do.
PROMTOOL_PACKAGE=prometheus
PROMTOOL_MIN=2.42.0

# The MCP SDKs and their servers want a current Node; an older one stays untouched and ours goes to the cache.
NODE_MAJOR_MIN=24
NODE_VERSION=24.21.0

# The decision point behind Envoy in bench/proxy; Envoy's version stands in bench/proxy/requirements.txt.
CERBOS_VERSION=0.55.0

# Everything installed without the system's package manager goes here, and may be deleted at any time.
OAKALLOW_CACHE=${OAKALLOW_CACHE:-${HOME:?}/.cache/oakallow}
export OAKALLOW_CACHE
