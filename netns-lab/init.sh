#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# PID 1 of a lab kernel: lays a writable memory file system over the machine's
# own root, so that nothing on the machine is ever touched, mounts what the
# programs need, runs $LAB_OUT/cmd inside, and powers off.
#
# Environment (on the kernel's command line):
#   LAB_OUT      directory on the machine for everything that comes out; it is
#                /lab inside. Read: cmd. Written: output, status, dmesg, kmemleak.
#   LAB_BACKEND  uml, qemu or native: how LAB_OUT is reached, how to power off.

# The migrate-ctl of this tree, or the one that was named, is found first.
ctl=${LAB_MIGRATE_CTL:-$LAB_CWD/build/bin/migrate-ctl}
export PATH="${ctl%/*}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export HOME=/root LANG=C.UTF-8 TERM="${TERM:-linux}" PYTHONDONTWRITEBYTECODE=1
root=/mnt/root

halt_now() {
	[ "$LAB_BACKEND" = native ] && exit 0
	# UML powers off; QEMU has no ACPI here, and ends when the machine resets.
	how=0x4321fedc
	[ "$LAB_BACKEND" = qemu ] && how=0x01234567
	/usr/bin/python3 -c "import ctypes; ctypes.CDLL(None).reboot($how)"
}

lay_root() {
	mount -t tmpfs -o size=90% tmpfs /mnt &&
		mkdir /mnt/upper /mnt/work $root &&
		mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay $root &&
		mkdir -p $root/lab
}

mount_out() {
	case "$LAB_BACKEND" in
	uml) mount -t hostfs -o "$LAB_OUT" none $root/lab ;;
	qemu) mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 labout $root/lab ;;
	native) mount --bind "$LAB_OUT" $root/lab ;;
	esac
}

mount_system() {
	mount -t proc proc $root/proc
	mount -t sysfs sysfs $root/sys
	if [ "$LAB_BACKEND" = native ]; then
		mount --rbind /dev $root/dev
	else
		mount -t devtmpfs devtmpfs $root/dev
		mkdir -p $root/dev/pts $root/dev/shm
		mount -t devpts devpts $root/dev/pts
		ln -sf pts/ptmx $root/dev/ptmx
		ln -sf /proc/self/fd $root/dev/fd
		mount -t tmpfs tmpfs $root/dev/shm
	fi
	for d in run var/log; do
		mount -t tmpfs -o mode=755 tmpfs $root/$d
	done
	mkdir -p $root/run/netns $root/run/lock
	mount -t debugfs debugfs $root/sys/kernel/debug 2>/dev/null
	mount -t tracefs tracefs $root/sys/kernel/tracing 2>/dev/null
	mount -t bpf bpf $root/sys/fs/bpf 2>/dev/null
	mount -t cgroup2 cgroup2 $root/sys/fs/cgroup 2>/dev/null
	ip link set lo up
}

# Runs in the new root. Namespaces go before the leak scan, so that what
# only dies with its namespace is not taken for a leak, and a namespace that
# cannot die shows in the log. kmemleak looks only at what is older than 5 s.
work() {
	cd "${LAB_CWD:-/}" || exit 1
	sh /lab/cmd >/lab/output 2>&1 </dev/null
	echo $? >/lab/status.tmp
	ip -all netns delete 2>/dev/null
	if [ -e /sys/kernel/debug/kmemleak ]; then
		for _ in 1 2; do
			sleep 6
			echo scan >/sys/kernel/debug/kmemleak
		done
		cat /sys/kernel/debug/kmemleak >/lab/kmemleak
	fi
	[ "$LAB_BACKEND" = native ] || dmesg >/lab/dmesg
	mv /lab/status.tmp /lab/status
}

if [ "$1" = inside ]; then
	work
	exit 0
fi

mount -t proc proc /proc 2>/dev/null
if lay_root && mount_out; then
	mount_system
	LAB_CWD="${LAB_CWD:-/}" chroot $root /bin/sh "$LAB_INIT" inside
else
	echo "lab: cannot lay the memory file system over the root" >&2
	dmesg 2>/dev/null | tail -n 5 >&2
fi
halt_now
