#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prepares a kernel source tree: unpacks Debian's, applies the series, copies
# the new sources in. Can be run again and again: a file whose content has not
# changed keeps its time, so that make rebuilds only what has to be rebuilt.
#
#   prepare.sh [--vanilla] [--source TAR|DIR] TREE
#
# --vanilla applies only the lab's own patches. If a patch does not fit, the
# message names the patch, the file and the hunk, and shows what the tree has
# where the hook should go.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(dirname "$here")
version=6.12
series=("$here/$version/lab/series" "$here/$version/series")
source=/usr/src/linux-source-$version.tar.xz

usage() { sed -n '3,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }

vanilla=
while [ $# -gt 1 ]; do
	case "$1" in
	--vanilla) vanilla=1 series=("$here/$version/lab/series") ;;
	--source) source=$2; shift ;;
	*) usage ;;
	esac
	shift
done
[ $# = 1 ] || usage
tree=$1

# The patches of a series file, as paths; quilt's "-p1" and comments go.
patches() {
	[ -f "$1" ] && sed -e 's/#.*//' -e '/^[[:space:]]*$/d' -e 's/[[:space:]].*//' \
		-e "s|^|$(dirname "$1")/|" "$1"
}

# What the tree is made from; a tree with another stamp is made anew.
stamp_of() {
	{
		stat -c '%n %s %Y' "$source"
		for s in "${series[@]}"; do
			patches "$s" | while read -r p; do cat "$p"; done
		done
	} | sha256sum
}

unpack() {
	rm -rf "$1"
	mkdir -p "$1"
	if [ -d "$source" ]; then
		rsync -a --exclude=.git "$source/" "$1/"
	else
		tar -xf "$source" -C "$1" --strip-components=1
	fi
}

# Shows what stands around the place a refused hunk wanted: reject file $1, file $2.
show_context() {
	local line
	line=$(sed -n 's/^@@ -\([0-9]*\).*/\1/p' "$1" | head -n 1)
	echo "--- the hunk that does not fit:"
	cat "$1"
	echo "--- what $2 has around line $line:"
	awk -v l="$line" 'NR >= l - 10 && NR <= l + 30 { printf "%6d  %s\n", NR, $0 }' "$2" 2>/dev/null ||
		echo "(there is no such file)"
}

# Applies patch $2 in tree $1, with fuzz; says which hook no longer fits.
apply() {
	local out rej file
	if out=$(patch -d "$1" -p1 -F 2 --forward --no-backup-if-mismatch <"$2" 2>&1); then
		# Fuzz is fine, but worth knowing of.
		grep -E 'fuzz' <<<"$out" | sed "s|^|prepare.sh: ${2##*/}: |" || true
		return 0
	fi
	echo "prepare.sh: patch ${2#"$top"/} does not apply:" >&2
	grep -E 'patching file|FAILED|find file' <<<"$out" >&2 || echo "$out" >&2
	while read -r rej; do
		file=${rej%.rej}
		{ echo "== hook in ${file#"$1"/}"; show_context "$rej" "$file"; } >&2
	done < <(find "$1" -name '*.rej')
	echo "prepare.sh: adapt the hunk to this tree, or use the sources the series was made for" >&2
	return 1
}

make_tree() {
	local fresh=$tree.new p
	echo "prepare.sh: making $tree from $source"
	unpack "$fresh"
	for s in "${series[@]}"; do
		while read -r p; do
			echo "prepare.sh: applying ${p#"$here"/}"
			apply "$fresh" "$p"
		done < <(patches "$s")
	done
	# What is the same as in the tree before keeps that tree's times.
	if [ -d "$tree" ]; then
		rsync -a --checksum --delete --no-times --exclude=.stamp "$fresh/" "$tree/"
		rm -rf "$fresh"
	else
		mv "$fresh" "$tree"
	fi
	stamp_of >"$tree/.stamp"
}

if [ ! -e "$source" ]; then
	echo "prepare.sh: $source is missing: run make deps (package linux-source-$version)" >&2
	exit 1
fi
mkdir -p "$(dirname "$tree")"
[ "$(cat "$tree/.stamp" 2>/dev/null)" = "$(stamp_of)" ] || make_tree
# The new sources: only files that differ are written, and those get a new time.
[ -n "$vanilla" ] || rsync -r --checksum "$top/net-tcp-migrate/kernel/" "$tree/"
