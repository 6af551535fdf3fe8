#!/usr/bin/env bash
# A private rustc with prebuilt std for the WASI targets, from Debian's own packages, for machines where
# `rustup target add` cannot download. Installs nothing system-wide and needs no root.
#   get-wasm-rust.sh DEST [SUITE]     SUITE: forky (default) or sid
# The mirror is the one that this machine's apt already uses ($DEBIAN_MIRROR overrides it). Linkers (rust-lld,
# wasm-component-ld) come from rustup's toolchain.
set -euo pipefail
dest=$(realpath -m "$1"); suite=${2:-forky}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$' || true)}
[ -n "$mirror" ] || { echo "apt knows no Debian mirror: set DEBIAN_MIRROR to one" >&2; exit 1; }
work=$dest.partial; apt=$work/apt
rm -rf "$work"; mkdir -p "$apt"/lists/partial "$apt"/archives/partial "$apt"/debs "$work"/root "$work"/bin
: > "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/sources.list"
cat > "$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status"; Dir::Cache "$apt";
APT::Sandbox::User ""; Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
CONF
export APT_CONFIG=$apt/apt.conf
apt-get update -qq
std=$(apt-cache depends libstd-rust-dev | sed -n 's/.*Depends: \(libstd-rust-[0-9.]*\)$/\1/p')
[ -n "$std" ] || { echo "$suite has no libstd-rust-dev" >&2; exit 1; }
closure=$(apt-cache depends --recurse --important "$std" | grep -v '^[ |<]' | sort -u)
# shellcheck disable=SC2086  # one package a word
(cd "$apt/debs" && apt-get download -qq rustc libstd-rust-dev libstd-rust-dev-wasm32 $closure)
for deb in "$apt"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
host=$(rustc -vV | sed -n 's/^host: //p'); multiarch=${host/-unknown/}
rustlib=$work/root/usr/lib/rustlib/$host
rm -rf "$rustlib/bin"; mkdir -p "$rustlib"
ln -sfn "$(rustc --print sysroot)/lib/rustlib/$host/bin" "$rustlib/bin"
loader=$(find "$work/root" -name 'ld-linux-*.so.*' | head -n 1)
rel() { echo "${1#"$work"/}"; }
cat > "$work/bin/rustc" <<WRAP
#!/bin/sh
here=$dest
exec "\$here/$(rel "$loader")" --library-path "\$here/root/usr/lib/$multiarch:\$here/root/lib/$multiarch" "\$here/root/usr/bin/rustc" "\$@"
WRAP
chmod +x "$work/bin/rustc"
rm -rf "$apt" "$dest"; mv "$work" "$dest"
"$dest/bin/rustc" -V
