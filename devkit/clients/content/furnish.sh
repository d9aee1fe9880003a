# Furnishes the root of clients and servers, in a chroot: $HERE has our files, $NAMES the names of the certificate.
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /srv/tls /srv/www/debian /srv/www/npm /srv/www/pypi/simple/greeting /srv/git
cp "$HERE"/nginx.conf "$HERE"/echo.mjs "$HERE"/serve.sh "$HERE"/fetch-go /srv
printf 'hello\n' >/srv/www/hello
printf '%s\n' 'local stratum 3' 'allow all' 'cmdport 0' >/srv/chrony.conf

# A certificate authority that everything in the image trusts, as it does the real ones.
cd /srv/tls
printf '[req]\ndistinguished_name = name\n[name]\n' >openssl.cnf
certify() {
  openssl req -x509 -config openssl.cnf -nodes -days 3650 "$@" \
    -addext subjectKeyIdentifier=hash -addext authorityKeyIdentifier=keyid
}
certify -newkey rsa:2048 -subj '/CN=test authority' -keyout authority.key -out /usr/local/share/ca-certificates/test.crt \
  -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign
certify -newkey rsa:2048 -subj '/CN=test' -keyout key.pem -out cert.pem \
  -CA /usr/local/share/ca-certificates/test.crt -CAkey authority.key \
  -addext basicConstraints=critical,CA:false -addext extendedKeyUsage=serverAuth -addext "subjectAltName=$NAMES"
rm authority.key
update-ca-certificates

# A repository for each host of git over ssh, and one for https.
git config --global init.defaultBranch main
mkdir -p -m 700 ~/.ssh
useradd --home-dir /home/git --create-home --shell /usr/bin/git-shell --password '*' git
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
install -D -o git -m 600 ~/.ssh/id_ed25519.pub /home/git/.ssh/authorized_keys
for name in one two www; do
  git init -q --bare "/srv/git/$name.git"
  git clone -q "/srv/git/$name.git" /tmp/work
  printf 'hello from %s\n' "$name" >/tmp/work/greeting
  git -C /tmp/work add greeting
  git -C /tmp/work -c user.name=test -c user.email=test@example.com commit -qm greeting
  git -C /tmp/work push -q origin main
  rm -r /tmp/work
  ssh-keygen -q -t ed25519 -N '' -f "/srv/$name.key"
  echo "$name.works.test $(cut -d' ' -f1-2 "/srv/$name.key.pub")" >>~/.ssh/known_hosts
done
echo "git.example.com $(cut -d' ' -f1-2 /srv/one.key.pub)" >>~/.ssh/known_hosts # in the documentation's recipes
chown -R git: /home/git

# A package of each kind, called greeting: installed, it says hello.
mkdir -p /tmp/deb/DEBIAN /tmp/deb/usr/bin
printf '#!/bin/sh\necho hello\n' >/tmp/deb/usr/bin/greeting
chmod 755 /tmp/deb/usr/bin/greeting
cat >/tmp/deb/DEBIAN/control <<'CONTROL'
Package: greeting
Version: 1.0
Architecture: all
Maintainer: test <test@example.com>
Description: says hello
CONTROL
cd /srv/www/debian
dpkg-deb --build --root-owner-group /tmp/deb greeting.deb
{
  cat /tmp/deb/DEBIAN/control
  printf 'Filename: ./greeting.deb\nSize: %s\nSHA256: %s\n' \
    "$(stat -c %s greeting.deb)" "$(sha256sum greeting.deb | cut -d' ' -f1)"
} >Packages
printf 'SHA256:\n %s %s Packages\n' "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)" >Release

mkdir /tmp/package
cat >/tmp/package/package.json <<'JSON'
{"name": "greeting", "version": "1.0.0", "main": "index.js"}
JSON
echo 'console.log("hello")' >/tmp/package/index.js
tar -C /tmp -czf /srv/www/npm/greeting-1.0.0.tgz package
integrity=$(openssl dgst -sha512 -binary /srv/www/npm/greeting-1.0.0.tgz | base64 -w 0)
cat >/srv/www/npm/greeting.json <<JSON
{"name": "greeting", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "greeting", "version": "1.0.0",
 "dist": {"tarball": "PLACE/greeting-1.0.0.tgz", "integrity": "sha512-$integrity"}}}}
JSON

cd /srv/www/pypi/simple/greeting
python3 - <<'PYTHON'
import zipfile

INFO = "greeting-1.0.dist-info"
CONTENT = {
    "greeting.py": "print('hello')\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/RECORD": f"greeting.py,,\n{INFO}/METADATA,,\n{INFO}/WHEEL,,\n{INFO}/RECORD,,\n",
}
with zipfile.ZipFile("greeting-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in CONTENT.items():
        wheel.writestr(name, text)
PYTHON
echo '<a href="greeting-1.0-py3-none-any.whl">greeting-1.0-py3-none-any.whl</a>' >index.html

# A WebSocket server that sends back what it receives; nginx is in front of it.
cat >/srv/echo.py <<'PYTHON'
import asyncio
from websockets.asyncio.server import serve

async def echo(connection):
    async for message in connection:
        await connection.send(message)

async def main():
    async with serve(echo, "127.0.0.1", 8765) as server:
        await server.serve_forever()

asyncio.run(main())
PYTHON

# A database.
install -d -o postgres /srv/postgres
install -o postgres -m 600 /srv/tls/key.pem /srv/postgres.key
su postgres -c '/usr/lib/postgresql/*/bin/initdb --pgdata /srv/postgres --auth trust --no-sync' >/dev/null
cat >>/srv/postgres/postgresql.conf <<'CONF'
listen_addresses = '*'
ssl = on
ssl_cert_file = '/srv/tls/cert.pem'
ssl_key_file = '/srv/postgres.key'
unix_socket_directories = '/tmp'
fsync = off
log_connections = on
CONF
echo 'host all all 0.0.0.0/0 trust' >>/srv/postgres/pg_hba.conf

javac -d /srv "$HERE/Fetch.java"
rm -rf /tmp/*
