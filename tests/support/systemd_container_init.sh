# The first process of a container (see systemd_container.py): makes the private view of the machine and becomes systemd.
# Runs in new mount, pid, ipc and uts namespaces, so that nothing here reaches the machine itself.
#
# CONTAINER_ROOT     the root file system to show, never written to
# CONTAINER_SCRATCH  a folder of its own to work in; what the machine keeps there is covered, not touched
# CONTAINER_CGROUP   a name nobody else uses: two containers in one cgroup would end each other's units
# CONTAINER_BINDS    lines of "ro or rw<TAB>what<TAB>where in the container"
set -euo pipefail

if [ "${1:-}" != booting ]; then
  mount -t tmpfs tmpfs "$CONTAINER_SCRATCH"
  cd "$CONTAINER_SCRATCH"
  mkdir up work root cgroup
  mount -t cgroup2 cgroup2 cgroup
  mkdir "cgroup/$CONTAINER_CGROUP"
  echo 0 > "cgroup/$CONTAINER_CGROUP/cgroup.procs"
  # From here the container's cgroup is the root of all that it sees.
  exec unshare --cgroup -- bash "$0" booting
fi

cd "$CONTAINER_SCRATCH"
umount cgroup
mount -t overlay overlay -o "lowerdir=$CONTAINER_ROOT,upperdir=up,workdir=work" root
mount -t proc proc root/proc
mount --rbind /sys root/sys
mount --rbind /dev root/dev
# Its own: logind removes the shared memory of a user whose last session ends, and that would be the machine's.
mount -t tmpfs -o mode=1777 tmpfs root/dev/shm
# Empty, because systemd-tmpfiles clears /tmp at boot and must never see the machine's own.
for folder in run tmp var/log; do mount -t tmpfs -o mode=0755 tmpfs "root/$folder"; done
chmod 1777 root/tmp
mkdir -p root/run/lock
umount -R root/sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
while IFS=$'\t' read -r mode what where; do
  [ -n "$what" ] || continue
  if [ -d "$what" ]; then mkdir -p "root$where"; else mkdir -p "root${where%/*}"; rm -f "root$where"; : > "root$where"; fi
  mount --bind "$what" "root$where"
  mount -o "remount,bind,$mode" "root$where"
done <<< "$CONTAINER_BINDS"

# Nothing of the machine's own services: the container starts journald and dbus, and what the test asks for.
rm -f root/etc/systemd/system/*.wants/*
# These would reach through to the machine's kernel, its devices and what is bound from it, or only take time.
mount --bind root/proc/sys root/proc/sys
mount -o remount,bind,ro root/proc/sys
# The kernel's log is the machine's: the container neither fills it nor reads what earlier containers said there.
mount --bind root/dev/null root/dev/kmsg
for unit in proc-sys-fs-binfmt_misc.automount systemd-{binfmt,modules-load,sysctl,udevd,udev-trigger,tmpfiles-setup-dev}.service \
  systemd-{journal-catalog-update,update-done,random-seed,hwdb-update,sysusers}.service ldconfig.service \
  systemd-tmpfiles-{setup,clean}.service systemd-tmpfiles-clean.timer \
  kmod-static-nodes.service dev-hugepages.mount dev-mqueue.mount sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount; do
  ln -sf /dev/null "root/etc/systemd/system/$unit"
done
printf '%s\n' '[Unit]' 'Requires=systemd-journald.service dbus.service' \
  'After=systemd-journald.service dbus.service' > root/etc/systemd/system/container.target
mkdir root/old-root
cd root
pivot_root . old-root
umount -l /old-root
# In a container systemd expects to find this done; without it no unit sees its credentials.
mount --make-rshared /
unset "${!CONTAINER_@}"
export container=systemd-container
exec /lib/systemd/systemd --system --unit=container.target --log-target=journal --show-status=no
