#!/usr/bin/env bash
# A private kubectl from Debian's package kubectl, unpacked below DEST/root; installs nothing and needs no root.
#   get-kubectl.sh DEST [SUITE]     SUITE: forky (default) or sid
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bash "$here/apt-unpack.sh" "$1" "${2:-forky}" kubectl > /dev/null || {
  echo "    or install kubectl yourself: https://kubernetes.io/docs/tasks/tools/" >&2
  exit 1
}
