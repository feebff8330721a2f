#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Generates the netlink policy and the uapi header from the YAML specification
# with the kernel's own tool. Usage: regen.sh LINUX_TREE; "regen.sh -c
# LINUX_TREE" only checks that the files in git are up to date.
set -eu
check=
[ "${1:-}" = -c ] && { check=1; shift; }
[ -f "${1:-}/tools/net/ynl/ynl-gen-c.py" ] || { echo "usage: $0 [-c] LINUX_TREE" >&2; exit 2; }
top=$(cd "$(dirname "$0")/kernel" && pwd)
tree=$(cd "$1" && pwd)
spec=Documentation/netlink/specs/tcp_migrate.yaml
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# ynl-gen-c names the spec and the header as it sees them: run it in a tree of the same shape.
mkdir -p "$tmp/Documentation/netlink/specs" "$tmp/net/ipv4" "$tmp/include/uapi/linux"
cp "$tree"/Documentation/netlink/*.yaml "$tmp/Documentation/netlink/"
cp "$top/$spec" "$tmp/$spec"
: >"$tmp/MAINTAINERS" # marks the top of the tree; the tool looks for it for ever
gen() {
	out=$3
	(cd "$tmp" && /usr/bin/python3 "$tree/tools/net/ynl/ynl-gen-c.py" --spec "$spec" --mode "$1" "--$2" -o "$out")
	# The generator writes a family for "genetlink" specifications only, but the
	# groups for all; ours stand beside the family in tcp_migrate_nl.c.
	sed -i '/^static const struct genl_multicast_group/,/^};/d' "$tmp/$out"
	if [ -n "$check" ]; then
		cmp "$tmp/$out" "$top/$out" || { echo "$out is not what $spec gives: run net-tcp-migrate/regen.sh" >&2; exit 1; }
	else
		cp "$tmp/$out" "$top/$out"
	fi
}
gen uapi header include/uapi/linux/tcp_migrate.h
gen kernel header net/ipv4/tcp_migrate_nl_gen.h
gen kernel source net/ipv4/tcp_migrate_nl_gen.c
