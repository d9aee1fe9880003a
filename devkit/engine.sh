# The shell of private engines (`engines.py`): functions that are run as root, with NETNS and FOLDER in the environment.
#
# What a container inherits from its engine's network namespace has to be as on an ordinary host. A new network
# namespace starts with copies of the settings below net.ipv4.conf and net.ipv6.conf. By default, the kernel copies
# those of the machine's *initial* namespace, where ordinary engines live and have turned forwarding on. A private
# engine lives in another one, so its containers would inherit what no user's containers have. With
# net.core.devconf_inherit_init_net=3 the kernel copies those of the creating process's namespace: the engine's
# (Linux, admin-guide/sysctl/net). A kernel that has no such setting gets forwarding in the initial namespace instead.
#
# Both settings are the machine's, so all private engines share them: the first one notes the former value and the
# last one puts it back.

place=/run/clawker-fw-devkit-inheritance

choose() {
  setting=/proc/sys/net/core/devconf_inherit_init_net wanted=3
  if [ ! -e $setting ]; then setting=/proc/sys/net/ipv4/ip_forward wanted=1; fi
}

# Has containers inherit from the engine of the namespace NETNS. Fails with a message of the shell.
take() (
  mkdir -p $place/users
  flock 9
  choose
  if [ ! -e $place/former ]; then cat $setting >$place/former.new && mv $place/former.new $place/former; fi &&
  : >"$place/users/$NETNS" &&
  echo $wanted >$setting
) 9>>$place.lock

# Puts the former value back, unless another private engine is there. May run more than once.
give() (
  flock 9
  choose
  rm -f "$place/users/$NETNS"
  for each in $place/users/*; do      # of those that were killed together with their keeper
    if [ -e "$each" ] && [ ! -e "/run/netns/${each##*/}" ]; then rm -f "$each"; fi
  done
  if [ -e $place/former ] && ! ls $place/users/* >/dev/null 2>&1; then
    cat $place/former >$setting
    rm -f $place/former
  fi
) 9>>$place.lock

# Removes what is left of an engine whose processes are gone. It may run more than once, and twice at a time: what
# one finds, the other may have removed.
clean() {
  give
  if [ -e "/run/netns/$NETNS" ]; then ip netns delete "$NETNS"; fi
  tries=0
  until left=$(find /sys/fs/cgroup -depth -type d -path "*/$NETNS*" -delete 2>&1); do
    tries=$((tries + 1))
    if [ $tries = 20 ]; then echo "$left" >&2; exit 1; fi
    sleep 0.05
  done
  rm -rf --one-file-system "$FOLDER"
}

keep() {
  ip netns add "$NETNS" 2>&1 && ip -n "$NETNS" link set lo up 2>&1 &&
  take 2>&1 &&
  nsenter --net="/run/netns/$NETNS" \
    unshare --mount --propagation slave --pid --uts --fork --kill-child sh -ec "$INIT" 2>&1
  clean
}

# Process 1 of the engine. A shell that waits for a child also reaps orphans; otherwise the next dockerd would
# mistake a zombie of containerd for a running one.
init() {
  read -r pid _ </proc/self/stat      # the pid as seen from outside: this is still the machine's /proc
  if [ -n "$HOSTNAME" ]; then echo "$HOSTNAME" >/proc/sys/kernel/hostname; fi
  mount -t tmpfs tmpfs /run           # containerd's shims have sockets here, whatever the exec root is
  if [ "$ROOT" = / ]; then
    if [ -d /etc/docker ]; then mount -t tmpfs tmpfs /etc/docker; fi
  else
    mkdir /run/upper /run/work /run/root
    mount -t overlay -o "lowerdir=$ROOT,upperdir=/run/upper,workdir=/run/work" overlay /run/root
    cd /run/root
    mount --rbind /dev dev
    mount --rbind /sys sys
    for shared in "$TEMPORARY" "$CHECKOUT" "$FOLDER"; do  # what tests mount into containers
      mkdir -p ".$shared"
      mount --bind "$shared" ".$shared"
    done
    pivot_root . mnt
  fi
  mount -t proc proc /proc
  if [ "$ROOT" != / ]; then umount --lazy /mnt; fi
  echo "$pid"
  cat
  :                                   # without it the shell would become its last command
}

# Sends dockerd a signal, and waits until it has ended: its pid file, and the signal's name.
signal() {
  pid=$(cat "$1" 2>/dev/null) && kill -s "$2" "$pid" 2>/dev/null || exit 0
  while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
}

# As under a service manager, the daemon has a control group next to those of its containers. Otherwise its
# programs would get as much processor time as all containers together. With version 2 of control groups, or where
# groups are not writable, it stays in the group of the process that starts it.
start() {
  group="/sys/fs/cgroup/cpu/$NETNS/daemon"
  if [ -d /sys/fs/cgroup/cpu ]; then { mkdir -p "$group" && echo $$ >"$group/cgroup.procs"; } || :; fi
  exec "$@"
}

# Installs packages. policy-rc.d prevents them from starting their own daemon (invoke-rc.d(8)).
install_packages() {
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  apt-get install --no-install-recommends --yes "$@"
}
