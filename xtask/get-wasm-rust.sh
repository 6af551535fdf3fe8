#!/usr/bin/env bash
# A private rustc with prebuilt std for the WASI targets, from Debian's own packages, for machines where
# `rustup target add` cannot download. Installs nothing system-wide and needs no root.
#   get-wasm-rust.sh DEST [SUITE]     SUITE: forky (default) or sid
# Linkers (rust-lld, wasm-component-ld) come from rustup's toolchain.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"; dest=$(cd "$1" && pwd); work=$dest.partial
rm -rf "$work"
bash "$here/apt-unpack.sh" "$work" "${2:-forky}" rustc libstd-rust-dev-wasm32 --closure libstd-rust-dev > /dev/null || {
  echo "    or get the target yourself: rustup target add wasm32-wasip2" >&2
  exit 1
}
host=$(rustc -vV | sed -n 's/^host: //p'); multiarch=${host/-unknown/}
rustlib=$work/root/usr/lib/rustlib/$host
rm -rf "$rustlib/bin"; mkdir -p "$rustlib" "$work/bin"
ln -sfn "$(rustc --print sysroot)/lib/rustlib/$host/bin" "$rustlib/bin"
loader=$(find "$work/root" -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || { echo "the packages hold no dynamic loader" >&2; exit 1; }
# It finds the compiler from its own place, so that no path needs quoting and the folder can be moved.
cat > "$work/bin/rustc" <<WRAP
#!/bin/sh
here=\$(cd "\${0%/*}/.." && pwd)
lib="\$here/root/usr/lib/$multiarch:\$here/root/lib/$multiarch"
exec "\$here/${loader#"$work"/}" --library-path "\$lib" "\$here/root/usr/bin/rustc" "\$@"
WRAP
chmod +x "$work/bin/rustc"
rm -rf "$dest"; mv "$work" "$dest"
"$dest/bin/rustc" -V
