#!/bin/sh
# host.sh DIR: a systemd of its own over an overlay of this machine's files. It
# needs root, and:
#   apt-get install -y --no-install-recommends systemd dbus-user-session libpam-systemd
#
# Prints the process ID of its PID 1, seen from here, once that is a systemd. Ends
# with everything in it when standard input ends. Nothing that happens inside is
# seen outside: mounts, processes, network and host name are its own, and what it
# writes goes to memory.
#
# Users, who linger: alice, and bob, whose manager has no D-Bus. Users who do not:
# carol and dave.
set -eu
dir=$1

if [ "${2-}" = inside ]; then
	# Now PID 1 of the new namespaces. The mounts are private to them.
	root=$dir/root
	mount -t tmpfs -o mode=755 tmpfs "$dir/memory"
	mkdir "$dir/memory/upper" "$dir/memory/work" "$root"
	mount -t overlay -o "lowerdir=/,upperdir=$dir/memory/upper,workdir=$dir/memory/work" overlay "$root"
	for fs in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$fs"; done
	chmod 1777 "$root/tmp"
	mount -t proc proc "$root/proc"
	mount --rbind /sys "$root/sys"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
	for node in null zero full random urandom tty; do
		: >"$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	done
	mkdir "$root/dev/pts" "$root/dev/shm"
	mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
	mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
	ln -s pts/ptmx "$root/dev/ptmx"
	ln -s /proc/self/fd "$root/dev/fd"

	cd "$root"
	pivot_root . mnt
	umount -l /mnt
	# As a container's maker does: services get credentials by a mount that spreads
	# from one namespace to another.
	mount --make-rshared /

	# What this machine has enabled is not started: the target below asks for
	# what a user's manager needs, and the rest of sysinit.target is masked.
	for unit in systemd-udevd systemd-udev-trigger systemd-remount-fs systemd-networkd systemd-resolved systemd-timesyncd \
		systemd-sysctl systemd-modules-load systemd-binfmt systemd-firstboot systemd-random-seed systemd-sysusers \
		systemd-update-utmp systemd-pstore; do
		ln -sf /dev/null "/etc/systemd/system/$unit.service"
	done
	for unit in tmp.mount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
		sys-fs-fuse-connections.mount sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount; do
		ln -sf /dev/null "/etc/systemd/system/$unit"
	done
	cat >/etc/systemd/system/e2e.target <<-'UNIT'
		[Unit]
		DefaultDependencies=no
		Wants=systemd-journald.service systemd-logind.service systemd-user-sessions.service dbus.socket
		After=systemd-logind.service
	UNIT
	# Users read their own journal only if there is one that lasts.
	mkdir -p /etc/systemd/journald.conf.d /var/lib/systemd/linger
	printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n' >/etc/systemd/journald.conf.d/e2e.conf
	[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
	for user in alice bob carol dave; do
		id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh "$user"
	done
	touch /var/lib/systemd/linger/alice /var/lib/systemd/linger/bob
	mkdir -p /home/bob/.config/systemd/user
	ln -sf /dev/null /home/bob/.config/systemd/user/dbus.socket
	ln -sf /dev/null /home/bob/.config/systemd/user/dbus.service
	chown -R bob: /home/bob/.config
	exec env -i container=e2e PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		/lib/systemd/systemd --system --unit=e2e.target --log-target=journal
fi

# Another mount of the one hierarchy of cgroups, in which systemd gets a subtree.
mkdir "$dir/cgroup" "$dir/memory"
mount -t cgroup2 cgroup2 "$dir/cgroup"
group=$dir/cgroup/e2e-$$
mkdir "$group"
(
	echo 0 >"$group/cgroup.procs" # before the namespace is made: its root is here
	exec unshare --pid --fork --kill-child --mount --cgroup --ipc --uts --net sh "$0" "$dir" inside
) </dev/null >"$dir/console" 2>&1 &
unshare=$!
trap 'exit 1' INT TERM HUP QUIT
trap 'kill -KILL $unshare 2>/dev/null; wait $unshare 2>/dev/null
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
		sleep 0.1
	done' EXIT

tries=0
while kill -0 $unshare 2>/dev/null && [ $((tries += 1)) -lt 500 ]; do
	init=
	read -r init _ <"/proc/$unshare/task/$unshare/children" || : # its line has no end
	if [ -n "$init" ] && [ "$(cat "/proc/$init/comm")" = systemd ]; then
		echo "$init"
		cat >/dev/null
		exit 0
	fi
	sleep 0.02
done
cat "$dir/console" >&2
exit 1
