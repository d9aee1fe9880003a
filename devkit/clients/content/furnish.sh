# Furnishes the root of clients and servers, in a chroot: $HERE has our files, $NAMES the names of the certificate,
# $TOKEN is what some hosts demand.
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /srv/tls /srv/www/debian /srv/www/npm /srv/www/pypi/simple/greeting /srv/git/acme
cp "$HERE"/nginx.conf "$HERE"/registry.yml "$HERE"/echo.mjs "$HERE"/serve.sh "$HERE"/fetch-go /srv
install -m 755 "$HERE/events.sh" /srv
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

# What hosts that demand a credential admit.
cat >/srv/credentials.conf <<CONF
map \$http_authorization \$admitted {
  default "";
  "Bearer $TOKEN" yes;
  "Basic $(printf 'x-access-token:%s' "$TOKEN" | base64 -w 0)" yes;
}
CONF

# A repository for each host of git over ssh, and some for https.
git config --global init.defaultBranch main
mkdir -p -m 700 ~/.ssh
useradd --home-dir /home/git --create-home --shell /usr/bin/git-shell --password '*' git
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
install -D -o git -m 600 ~/.ssh/id_ed25519.pub /home/git/.ssh/authorized_keys
for name in one two www acme/site acme/widgets; do
  git init -q --bare "/srv/git/$name.git"
  git -C "/srv/git/$name.git" config http.receivepack true
  git clone -q "/srv/git/$name.git" /tmp/work
  printf 'hello from %s\n' "$name" >/tmp/work/greeting
  git -C /tmp/work add greeting
  git -C /tmp/work -c user.name=test -c user.email=test@example.com commit -qm greeting
  git -C /tmp/work push -q origin main
  rm -r /tmp/work
done
for name in one two; do
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

# What is not Debian's: Deno, .NET (for amd64), and what the server of Git LFS is made of.
mkdir /srv/python
for wheel in "$HERE"/wheels/*; do python3 -m zipfile -e "$wheel" /srv/python; done
install -m 755 /srv/python/deno-*.data/scripts/deno /usr/local/bin
if [ -d /srv/python/dnv ]; then
  mv /srv/python/dnv/net/runtime/.net /srv/dotnet
  chmod 755 /srv/dotnet/dotnet
  framework=$(echo /srv/dotnet/shared/Microsoft.NETCore.App/*)
  # Against Mono's assemblies: .NET has the same names, and refers to its own (its `mscorlib.dll` is such a facade).
  mcs -nologo -out:/srv/fetch.dll -r:System.Net.Http.dll "$HERE/Fetch.cs"
  cat >/srv/fetch.runtimeconfig.json <<JSON
{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "${framework##*/}"},
 "configProperties": {"System.Globalization.Invariant": true}}}
JSON
fi
rm -rf /srv/python/deno* /srv/python/dnv*

# What an API of a host of code answers.
mkdir -p /srv/www/api/v3/repos/acme
echo '{"full_name": "acme/widgets", "description": "hello"}' >/srv/www/api/v3/repos/acme/widgets.json
echo private >/srv/www/private

# An image of a container, in a registry.
python3 - <<'PYTHON'
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

ROOT = Path("/tmp/image")
(ROOT / "blobs/sha256").mkdir(parents=True)

def blob(content, kind):
    digest = hashlib.sha256(content).hexdigest()
    (ROOT / "blobs/sha256" / digest).write_bytes(content)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

files = io.BytesIO()
with tarfile.open(fileobj=files, mode="w") as tar:
    greeting = tarfile.TarInfo("greeting")
    greeting.size = 6
    tar.addfile(greeting, io.BytesIO(b"hello\n"))
layer = blob(gzip.compress(files.getvalue(), mtime=0), "layer.v1.tar+gzip")
difference = f"sha256:{hashlib.sha256(files.getvalue()).hexdigest()}"
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [difference]}}
manifest = {"schemaVersion": 2, "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": [layer]}
manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
(ROOT / "index.json").write_text(json.dumps(index))
(ROOT / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
PYTHON
here=127.77.0.1:5000 # an address of its own: the network is the machine's
sed "s/^  addr: .*/  addr: $here/; /^middleware:/,/baseurl/d" /srv/registry.yml >/tmp/registry.yml
docker-registry serve /tmp/registry.yml >/dev/null 2>&1 &
until curl -fsS -o /dev/null "http://$here/v2/" 2>/dev/null; do sleep 0.1; done
for name in greeting other; do
  skopeo --insecure-policy copy -q --dest-tls-verify=false oci:/tmp/image "docker://$here/acme/$name:1"
done
kill $!

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

# A service of gRPC, and its client.
cat >/srv/calls.py <<'PYTHON'
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE = "greeting.Greeter"


def serve():
    handler = grpc.unary_stream_rpc_method_handler(lambda request, _: iter((request, b"end")))
    server = grpc.server(ThreadPoolExecutor())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Greet": handler}),))
    server.add_insecure_port("127.0.0.1:50051")
    server.start()
    server.wait_for_termination()


def call(host, method):
    with grpc.secure_channel(f"{host}:443", grpc.ssl_channel_credentials()) as channel:
        for message in channel.unary_stream(f"/{SERVICE}/{method}")(b"hello", timeout=20):
            print(message.decode())


serve() if sys.argv[1] == "serve" else call(*sys.argv[1:])
PYTHON

# A server of Git LFS, behind nginx: anybody may do anything, unless a token of its own says less.
cat >/srv/lfs.py <<'PYTHON'
import logging

from giftless.app import init_app
from giftless.auth.identity import Identity


class Anybody(Identity):
    def is_authorized(self, *_, **__):
        return True


def anybody(_):
    return Anybody(id="anybody")  # of whom tokens are given: nobody's would be invalid


logging.getLogger("werkzeug").setLevel(logging.ERROR)
init_app(
    additional_config={
        "AUTH_PROVIDERS": ["__main__:anybody"],
        "LEGACY_ENDPOINTS": False,
        "MIDDLEWARE": [{"class": "werkzeug.middleware.proxy_fix:ProxyFix", "kwargs": {"x_proto": 1}}],
        "TRANSFER_ADAPTERS": {"basic": {"options": {"storage_options": {"path": "/srv/lfs"}}}},
    }
).run(port=8080)
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
