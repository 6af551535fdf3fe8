#!/usr/bin/env bash
# Downloads Debian packages and unpacks them below DEST/root; installs nothing and needs no root.
#   apt-unpack.sh DEST SUITE PACKAGE... [--closure PACKAGE]     SUITE: such as forky (testing) or sid
# --closure takes a package together with all that it depends on. Prints the names of the packages' files.
# The mirror is the one that this machine's apt already uses; DEBIAN_MIRROR overrides it.
set -euo pipefail
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
fail() {
  echo "cannot take packages from Debian: $1" >&2
  echo "    to make it possible, install apt, dpkg and debian-archive-keyring, and set" >&2
  echo "    DEBIAN_MIRROR to a mirror, such as http://deb.debian.org/debian" >&2
  exit 1
}
mkdir -p "$1"; dest=$(cd "$1" && pwd); suite=$2; shift 2
packages=(); closed=
while [ $# -gt 0 ]; do
  case $1 in
    --closure) closed=$2; shift 2 ;;
    *) packages+=("$1"); shift ;;
  esac
done
command -v apt-get > /dev/null && command -v dpkg > /dev/null || fail "this system has no apt"
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$' || true)}
[ -n "$mirror" ] || fail "apt here knows no mirror of Debian, and DEBIAN_MIRROR is not set"
[ -e "$keyring" ] || fail "$keyring does not exist"

apt=$dest/apt
rm -rf "$apt" "$dest/root"
mkdir -p "$apt"/lists/partial "$apt"/archives/partial "$apt"/debs "$dest/root"
: > "$apt/status"
echo "deb [signed-by=$keyring arch=$(dpkg --print-architecture)] $mirror $suite main" > "$apt/sources.list"
cat > "$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status"; Dir::Cache "$apt";
APT::Sandbox::User ""; Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"; Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
CONF
export APT_CONFIG=$apt/apt.conf
apt-get update -qq || fail "no package lists of $suite from $mirror"
if [ -n "$closed" ]; then
  for package in $(apt-cache depends --recurse --important "$closed" | grep -v '^[ |<]' | sort -u); do
    packages+=("$package")
  done
fi
cd "$apt/debs"
apt-get download -qq "${packages[@]}" || fail "no ${packages[*]} in $suite from $mirror"
for deb in *.deb; do
  echo "$deb"
  dpkg -x "$deb" "$dest/root"
done
rm -rf "$apt"
