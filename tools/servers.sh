#!/bin/sh
# Installs the real servers that tests talk to, from Debian's packages. They are installed, not started.
set -eu

# The one list: add a package here together with the first test that names its program in `@pytest.mark.server`.
packages="chromium curl lftp nodejs openssh-server php-cli php-soap postfix rabbitmq-server vsftpd"

missing=""
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    test "$state" = installed || missing="$missing $package"
done

if test -z "$packages"; then
    echo "servers: no test needs a server yet, nothing to install"
elif test -z "$missing"; then
    echo "servers: all installed ($packages)"
elif ! command -v apt-get >/dev/null; then
    echo "servers: only Debian's packages are known here; install by hand:$missing" >&2
    exit 1
elif test "$(id -u)" -ne 0; then
    echo "servers: installing packages needs root; run: sudo make servers" >&2
    exit 1
else
    # Debian asks this file whether a freshly installed service may start.
    policy=/usr/sbin/policy-rc.d
    if ! test -e "$policy"; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $missing
    echo "servers: installed$missing"
fi
# node's SOAP client comes from npm, by the lock file beside the tests. Where it cannot be had, its tests are left out
# and named at the end of the run.
clients=tests/integration/clients
modules=.node
if ! command -v npm >/dev/null; then
    echo "servers: npm is not installed: node's SOAP client is left out" >&2
elif ! test -d "$modules/node_modules" || ! cmp -s "$clients/package-lock.json" "$modules/package-lock.json"; then
    rm -rf "$modules"
    mkdir -p "$modules"
    cp "$clients/package.json" "$clients/package-lock.json" "$modules"
    if npm --prefix "$modules" ci --ignore-scripts --no-audit --no-fund --loglevel=error; then
        chown -R --reference=. "$modules"
        echo "servers: installed node's SOAP client"
    else
        rm -rf "$modules"
        echo "servers: npm could not install node's SOAP client: it is left out" >&2
    fi
fi
