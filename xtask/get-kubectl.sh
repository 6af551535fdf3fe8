#!/usr/bin/env bash
# A private kubectl from Debian's kubernetes-client, unpacked below DEST/root; installs nothing and needs no root.
#   get-kubectl.sh DEST [SUITE]     SUITE: forky (default) or sid
set -euo pipefail
dest=$(realpath -m "$1"); suite=${2:-forky}; apt=$dest/apt
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$' || true)}
[ -n "$mirror" ] || { echo "apt knows no Debian mirror: set DEBIAN_MIRROR to one" >&2; exit 1; }
rm -rf "$dest"; mkdir -p "$apt"/lists/partial "$apt"/archives/partial "$apt"/debs "$dest/root"
: > "$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/sources.list"
cat > "$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status"; Dir::Cache "$apt";
APT::Sandbox::User ""; Acquire::Languages "none";
CONF
export APT_CONFIG=$apt/apt.conf
apt-get update -qq
(cd "$apt/debs" && apt-get download -qq kubernetes-client)
for deb in "$apt"/debs/*.deb; do dpkg -x "$deb" "$dest/root"; done
