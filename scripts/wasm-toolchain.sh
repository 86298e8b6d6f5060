#!/usr/bin/env bash
# Prints the rustc to use for wasm32-unknown-unknown, as the last line of stdout. Anything else goes to stderr.
#
#   RUSTC=$(scripts/wasm-toolchain.sh) cargo build --target wasm32-unknown-unknown …
#
# Three ways, the first that works:
#   1. the installed toolchain already has the target;
#   2. Debian offers rustc-web (a rustc made for wasm): its packages are unpacked into a private folder, nothing
#      is installed system-wide, and std is compiled once from the packaged sources (about a minute, 0.5 GiB);
#   3. `rustup target add`.
# The second comes before the third because it needs nothing but the package mirror, and mirrors are what closed
# networks have. It needs root only because it runs `apt-get update`.
set -euo pipefail

TARGET=wasm32-unknown-unknown
HOME_DIR=$(realpath -m "${1:-${OAKALLOW_CACHE:-${HOME:?}/.cache/oakallow}/wasm-toolchain}")
LIB_DIR=lib/x86_64-linux-gnu # the Debian way is for x86_64 hosts

say() { printf 'wasm-toolchain: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

has_std() { compgen -G "$1/libstd-*.rlib" >/dev/null; }

installed_target() { has_std "$(rustc --print target-libdir --target "$TARGET")"; }

# --- the Debian way ----------------------------------------------------------------------------------------

debian_offers_it() {
  [[ $(id -u) == 0 && $(uname -m) == x86_64 ]] || return 1
  command -v apt-get >/dev/null || return 1
  apt-get update -qq >&2 || true
  apt-cache show rust-web-src >/dev/null 2>&1
}

unpacked() { [[ -e $HOME_DIR/.complete ]] && "$HOME_DIR/bin/rustc" -V >&2; }

# Five packages of one version: the compiler, its libraries, its LLVM, and the sources of std.
unpack_packages() {
  local version series llvm package
  version=$(apt-cache show rustc-web | sed -n 's/^Version: //p' | sort -V | tail -n 1)
  series=$(cut -d. -f1,2 <<<"$version")
  llvm=$(apt-cache show "libstd-rust-web-$series=$version" | grep -oE 'libllvm[0-9]+' | head -n 1)
  say "unpacking Debian's rustc-web $version with $llvm"
  mkdir -p "$HOME_DIR/debs"
  (
    cd "$HOME_DIR/debs"
    apt-get download -qq "rustc-web=$version" "libstd-rust-web-$series=$version" \
      "libstd-rust-web-dev=$version" "rust-web-src=$version" "$llvm" 2>&1 | grep -v unsandboxed >&2 || true
    for package in rustc-web "libstd-rust-web-$series" libstd-rust-web-dev "$llvm"; do
      dpkg -x "$package"_*.deb "$HOME_DIR"
    done
    dpkg-deb --fsys-tarfile rust-web-src_*.deb | tar -x -C "$HOME_DIR" --wildcards './usr/src/rustc-*/library/*'
  )
  rm -rf "${HOME_DIR:?}/debs" "${HOME_DIR:?}/usr/share"
}

# The compiler finds its libraries in the private folder, and the linker that rustup ships.
write_wrapper() {
  local usr=$HOME_DIR/usr missing host
  missing=$(LD_LIBRARY_PATH=$usr/$LIB_DIR ldd "$usr/$LIB_DIR"/*.so* | grep 'not found' || true)
  [[ -z $missing ]] || die "libraries are missing: $missing"
  mkdir -p "$HOME_DIR/bin"
  cat >"$HOME_DIR/bin/rustc" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH=$usr/$LIB_DIR\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec $usr/bin/rustc "\$@"
WRAPPER
  chmod +x "$HOME_DIR/bin/rustc"
  host=$(rustc -vV | sed -n 's/^host: //p')
  mkdir -p "$usr/lib/rustlib/$host/bin"
  # A symlink, not a copy: rust-lld looks for its own libLLVM beside the file it really is.
  ln -s "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" "$usr/lib/rustlib/$host/bin/rust-lld"
}

# A crate whose only job is to depend on std, with the sources' own vendored crates.
write_std_crate() {
  local crate=$1 library=$2
  mkdir -p "$crate"
  : >"$crate/lib.rs"
  cp "$library/Cargo.lock" "$crate/"
  cat >"$crate/Cargo.toml" <<MANIFEST
[package]
name = "wasm-sysroot"
version = "0.0.0"
edition = "2021"
[lib]
path = "lib.rs"
[workspace]
[dependencies]
std = { path = "$library/std", features = ["panic-unwind"] }
proc_macro = { path = "$library/proc_macro" }
test = { path = "$library/test" }
[profile.release]
codegen-units = 1
debug = 0
[profile.release.package.compiler_builtins]
codegen-units = 10000
[patch.crates-io]
rustc-std-workspace-core = { path = "$library/rustc-std-workspace-core" }
rustc-std-workspace-alloc = { path = "$library/rustc-std-workspace-alloc" }
rustc-std-workspace-std = { path = "$library/rustc-std-workspace-std" }
MANIFEST
}

# RUSTC_BOOTSTRAP is how std itself is always built: its sources use features that only std may use.
build_std() {
  local library crate=$HOME_DIR/std out=$HOME_DIR/usr/lib/rustlib/$TARGET/lib
  library=$(compgen -G "$HOME_DIR/usr/src/rustc-*/library")
  write_std_crate "$crate" "$library"
  (
    cd "$crate"
    env -u CARGO_ENCODED_RUSTFLAGS RUSTC="$HOME_DIR/bin/rustc" RUSTC_BOOTSTRAP=1 \
      __CARGO_DEFAULT_LIB_METADATA=wasmsysroot CARGO_TARGET_DIR="$crate/target" CARGO_INCREMENTAL=0 \
      RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes" \
      cargo build -q --offline --release --target "$TARGET" \
      --config 'source.crates-io.replace-with="v"' --config "source.v.directory=\"$library/vendor\"" >&2
  ) 2> >(grep -v 'dropping unsupported' >&2)
  mkdir -p "$out"
  cp "$crate/target/$TARGET/release/deps/"*.rlib "$crate/target/$TARGET/release/deps/"*.rmeta "$out/"
  rm -rf "$out"/libwasm_sysroot* "$crate" "$HOME_DIR/usr/src" "$HOME_DIR/usr/lib/rustlib/src"
  has_std "$out" || die "building std left no libstd"
}

prove_it_links() {
  local probe=$HOME_DIR/probe
  # shellcheck disable=SC2016
  echo '#[no_mangle] pub extern "C" fn sum(a: u32) -> u32 { vec![a; 3].iter().sum() }' >"$probe.rs"
  "$HOME_DIR/bin/rustc" --crate-type cdylib --target "$TARGET" -O "$probe.rs" -o "$probe.wasm" >&2
  rm "$probe.rs" "$probe.wasm"
}

make_from_debian() {
  local started=$SECONDS
  rm -rf "$HOME_DIR"
  mkdir -p "$HOME_DIR"
  unpack_packages
  write_wrapper
  build_std
  prove_it_links
  touch "$HOME_DIR/.complete"
  say "made in $((SECONDS - started)) s, $(du -sh "$HOME_DIR" | cut -f1)"
}

# -----------------------------------------------------------------------------------------------------------

main() {
  if installed_target; then
    command -v rustc
  elif unpacked; then
    echo "$HOME_DIR/bin/rustc"
  elif debian_offers_it; then
    make_from_debian
    echo "$HOME_DIR/bin/rustc"
  elif rustup target add "$TARGET" >&2 && installed_target; then
    command -v rustc
  else
    die "no way to get $TARGET here: install it with your Rust distribution"
  fi
}

main
