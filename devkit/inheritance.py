"""What a container inherits from its engine's network namespace, as on an ordinary host.

A new network namespace starts with copies of the settings below ``net.ipv4.conf`` and ``net.ipv6.conf``. By
default, the kernel copies those of the machine's *initial* namespace, where ordinary engines live and have turned
forwarding on. A private engine lives in another one, so its containers would inherit what no user's containers
have. With ``net.core.devconf_inherit_init_net=3`` the kernel copies those of the creating process's namespace:
the engine's (Linux, admin-guide/sysctl/net). A kernel that has no such setting gets forwarding in the initial
namespace instead.

Both settings are the machine's, so all private engines share them: the first one notes the former value and the
last one puts it back. The scripts need util-linux, and NETNS in their environment.
"""

import subprocess

PLACE = "/run/clawker-fw-devkit-inheritance"
"""Where private engines note the former value, and who of them is there."""

_CHOOSE = f"""
  setting=/proc/sys/net/core/devconf_inherit_init_net wanted=3
  if [ ! -e $setting ]; then setting=/proc/sys/net/ipv4/ip_forward wanted=1; fi
  place={PLACE}
"""

TAKE = f"""(
  mkdir -p {PLACE}/users
  flock 9
  {_CHOOSE}
  if [ ! -e $place/former ]; then cat $setting >$place/former.new && mv $place/former.new $place/former; fi &&
  : >"$place/users/$NETNS" &&
  echo $wanted >$setting
) 9>>{PLACE}.lock"""
"""Has containers inherit from the engine of the namespace NETNS. Fails with a message of the shell."""

GIVE = f"""(
  flock 9
  {_CHOOSE}
  rm -f "$place/users/$NETNS"
  for each in $place/users/*; do      # of those that were killed together with their keeper
    if [ -e "$each" ] && [ ! -e "/run/netns/${{each##*/}}" ]; then rm -f "$each"; fi
  done
  if [ -e $place/former ] && ! ls $place/users/* >/dev/null 2>&1; then
    cat $place/former >$setting
    rm -f $place/former
  fi
) 9>>{PLACE}.lock"""
"""Puts the former value back, unless another private engine is there. May run more than once."""


def inherited(command: list[str], setting: str) -> str:
    """Return a sysctl below ``net`` of a new network namespace. `command` runs a program in the engine's."""
    read = [*command, "unshare", "--net", "cat", f"/proc/sys/{setting.replace('.', '/')}"]
    return subprocess.run(read, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
