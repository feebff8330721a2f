#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Installs what building, the lab and the tests need, on Debian 12. Does
# nothing, and asks nothing of the network, if all of it is there.
#
#   install-deps.sh [SET...]
#
# Sets, beside what building needs: deb (to make Debian packages), kernel-deb (of the kernel,
# too), debug-info (with debug information), guide (to install them on emulated machines).

set -eu

build="build-essential bc bison flex libelf-dev libssl-dev rsync cpio kmod xz-utils patch quilt
	linux-source-6.12 ccache cmake ninja-build pkg-config
	libnl-3-dev libnl-genl-3-dev libbpf-dev libgtest-dev libgmock-dev nlohmann-json3-dev libcli11-dev libboost1.81-dev libprotobuf-dev
	protobuf-compiler libspdlog-dev libtomlplusplus-dev libsystemd-dev scdoc clang"
lab="iproute2 nftables conntrack ethtool tcpdump procps curl nginx openssh-client openssh-server
	iperf3 haproxy socat systemd dnsmasq-base dhcpcd-base wireguard-tools mptcpd mptcpd-plugins postgresql postgresql-client openssl qemu-system-x86 util-linux
	python3 python3-pytest python3-matplotlib python3-scapy python3-yaml python3-jsonschema"
check="git shellcheck flake8 sparse clang-format clang-tidy spin"

packages="$build $lab $check"
[ $# = 0 ] || packages=$build
for set in "$@"; do
	case "$set" in
	deb) packages="$packages debhelper" ;;
	kernel-deb) packages="$packages debhelper linux-config-6.12 openssl" ;;
	debug-info) packages="$packages dwarves" ;;
	guide) packages="$packages debootstrap e2fsprogs qemu-system-x86" ;;
	*)
		echo "install-deps.sh: no set $set" >&2
		exit 2
		;;
	esac
done

missing=
for p in $packages; do
	# "installed" in the third word: removed packages are known to dpkg as well.
	case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" in
	"install ok installed") ;;
	*) missing="$missing $p" ;;
	esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "install-deps.sh: run as root, or install these packages:$missing" >&2
	exit 1
fi
echo "install-deps.sh: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# The lab runs servers of its own; the packages' need not be started here, which
# Debian's policy hook decides. One that is there already is the machine's own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -q
# shellcheck disable=SC2086
apt-get install -qy --no-install-recommends $missing
