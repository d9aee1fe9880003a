# Runs servers in the foreground: `web` for HTTP, what is behind it, PostgreSQL and NTP, `git NAME ADDRESS...` for a host of git over ssh.
set -eu
case "$1" in
  web)
    fcgiwrap -s unix:/run/fcgiwrap.sock &
    python3 /srv/echo.py &
    python3 /srv/calls.py serve &
    PYTHONPATH=/srv/python python3 /srv/lfs.py &
    docker-registry serve /srv/registry.yml >/dev/null 2>&1 &
    su postgres -c 'exec /usr/lib/postgresql/*/bin/postgres -D /srv/postgres' &
    chronyd -x -d -f /srv/chrony.conf & # leaves the clock alone
    exec nginx -c /srv/nginx.conf
    ;;
  git)
    mkdir -p /run/sshd
    name=$2
    shift 2
    mv "/srv/git/$name.git" /home/git/greeting.git
    chown -R git: /home/git
    printf 'ListenAddress %s\n' "$@" >/etc/ssh/sshd_config.d/addresses.conf
    exec /usr/sbin/sshd -D -e -h "/srv/$name.key"
    ;;
esac
