#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Configures a kernel build directory from fragments, and checks that every
# line of them was taken.
#
#   configure.sh [--from CONFIG.xz] ARCH TREE BUILD FRAGMENT...
#
# Fragments are named as "lab". They change the given configuration, or else are
# all that is switched on.

set -eu
from=
if [ "$1" = --from ]; then
	from=$2
	shift 2
fi
arch=$1 tree=$(realpath "$2") build=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$build"
build=$(realpath "$build")

files=
for name in "$@"; do
	files="$files $here/6.12/config/$name.config"
done
# Options that this arch or version does not have are no mistake, but one that
# was switched on and is off in the end may be; the names are shown.
if [ -n "$from" ]; then
	xzcat "$from" >"$build/.config"
else
	make -s -C "$tree" O="$build" ARCH="$arch" allnoconfig >/dev/null
fi
cd "$build"
# shellcheck disable=SC2086
"$tree/scripts/kconfig/merge_config.sh" -m -O "$build" .config $files >/dev/null
make -s -C "$tree" O="$build" ARCH="$arch" olddefconfig >/dev/null
# shellcheck disable=SC2086
for want in $(sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=y$/\1/p' $files | sort -u); do
	grep -q "^$want=[ym]" .config || missing="${missing:-} $want"
done
[ -z "${missing:-}" ] || echo "configure.sh: not taken on $arch:$missing"
