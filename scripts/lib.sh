# shellcheck shell=bash
# What the scripts of this directory share: finding or installing PostgreSQL's
# server programs, and what else the tests need, and plain messages. It starts
# no server; the programs do that themselves, each with a private throw-away
# cluster. Sourced, never run.

# say TEXT...: one line on standard error, so that standard output stays the program's.
say() {
    printf '%s\n' "$*" >&2
}

# die TEXT...: says why, and ends the script.
die() {
    say "error: $*"
    exit 1
}

# has_pg_programs DIR: true when DIR holds all that a private cluster takes.
has_pg_programs() {
    local program
    for program in initdb pg_ctl postgres; do
        [ -x "$1/$program" ] || return 1
    done
}

# find_pg_bin: prints the directory of the server programs, or returns 1 when
# there is none and 2 when $DISTLOCK_PG_BIN names a directory without them. The
# order is the one of tests/support/cluster.rs; change both or neither.
find_pg_bin() {
    local dir program
    if [ -n "${DISTLOCK_PG_BIN:-}" ]; then
        # A directory that the user chose is used or refused, never replaced.
        has_pg_programs "$DISTLOCK_PG_BIN" || return 2
        printf '%s\n' "$DISTLOCK_PG_BIN"
        return 0
    fi
    if dir=$(pg_config --bindir 2>/dev/null) && has_pg_programs "$dir"; then
        printf '%s\n' "$dir"
        return 0
    fi
    while IFS= read -r dir; do
        if has_pg_programs "$dir"; then
            printf '%s\n' "$dir"
            return 0
        fi
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV)
    if program=$(type -P postgres); then
        dir=$(dirname -- "$program")
        if has_pg_programs "$dir"; then
            printf '%s\n' "$dir"
            return 0
        fi
    fi
    return 1
}

# as_root COMMAND...: runs it as root; sudo may not ask, for nobody may be there to answer.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

# can_install: true when this system has apt-get and lets us use it.
can_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

# apt_install PACKAGE...: fetches the package lists and installs, without a question.
apt_install() {
    # Everything apt-get prints goes to standard error: see say.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "$@" >&2
}

# apt_install_postgresql: the package, but not the system-wide cluster that it
# would create and start by default: we need the programs only, and a server
# that nobody asked for is in the way. The setting is a file of its own, which
# is there for the time of the installation only; createcluster.conf itself is
# not touched, since the package manager would then ask which version to keep.
apt_install_postgresql() (
    dir=/etc/postgresql-common/createcluster.d
    as_root mkdir -p "$dir" || exit 1
    # A subshell, so that the trap is its own: the file goes on Ctrl-C too.
    trap 'as_root rm -f "$dir/zz-distlock.conf"' EXIT
    printf 'create_main_cluster = false\n' | as_root tee "$dir/zz-distlock.conf" >/dev/null ||
        exit 1
    apt_install postgresql
)

# ensure_pg: finds the server programs, installs them where it can, and exports
# DISTLOCK_PG_BIN for the programs that the scripts run.
ensure_pg() {
    local status=0 dir
    dir=$(find_pg_bin) || status=$?
    if [ "$status" = 2 ]; then
        die "DISTLOCK_PG_BIN is '$DISTLOCK_PG_BIN', which has no initdb, pg_ctl and postgres;" \
            "set it to the bin directory of a PostgreSQL server, or unset it."
    fi
    if [ "$status" != 0 ]; then
        can_install || die "no PostgreSQL server programs found; install the PostgreSQL server" \
            "(Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server;" \
            "macOS: brew install postgresql) or set DISTLOCK_PG_BIN to its bin directory."
        say "No PostgreSQL server programs found: installing the package postgresql."
        apt_install_postgresql || die "apt-get could not install postgresql (see above); install" \
            "the PostgreSQL server by hand, or set DISTLOCK_PG_BIN to its bin directory."
        dir=$(find_pg_bin) || die "postgresql is installed, but initdb, pg_ctl and postgres are" \
            "not in one directory below /usr/lib/postgresql; set DISTLOCK_PG_BIN to it."
    fi
    export DISTLOCK_PG_BIN=$dir
}

# ensure_rust: cargo, and the linker that it calls, which Rust does not bring along.
ensure_rust() {
    # A fresh rustup is on PATH only in the next login shell.
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
    command -v cargo >/dev/null || die "cargo not found; install Rust 1.85 or later (rustup.rs)."
    if ! command -v cc >/dev/null; then
        can_install || die "no C linker (cc) found, which Rust needs; install gcc or clang."
        say "No C linker found: installing the packages gcc and libc6-dev."
        apt_install gcc libc6-dev || die "apt-get could not install gcc (see above)."
    fi
}

# has_program NAME: true when it is on PATH, or where Debian puts servers.
has_program() {
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]
}

# apt_install_quietly PACKAGE...: installs servers without their services being started: the tests
# run their own, and a server that nobody asked for is in the way. Where nothing decides on that
# yet (policy-rc.d), we do, for the time of the installation only.
apt_install_quietly() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        # A subshell, so that the trap is its own: the file goes on Ctrl-C too.
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null || exit 1
        as_root chmod 755 "$policy" || exit 1
    fi
    apt_install "$@"
)

# has_libpq: true when the linker can find the library that tests/libpq compares with.
has_libpq() {
    PATH=$PATH:/sbin ldconfig -p 2>/dev/null | grep -q 'libpq\.so\.5'
}

# ensure_servers: the poolers of tests/servers, what runs PGlite there, and libpq.
ensure_servers() {
    local missing=()
    has_libpq || missing+=(libpq5)
    has_program pgbouncer || missing+=(pgbouncer)
    has_program pgpool || missing+=(pgpool2)
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    install_missing "${missing[@]}"
}

# install_missing PACKAGE...: installs what programs that are missing are in, if there are any.
install_missing() {
    [ $# != 0 ] || return 0
    can_install || die "programs are missing: install $*" "(these are the names of Debian's packages)."
    say "Programs are missing: installing the packages $*."
    apt_install_quietly "$@" || die "apt-get could not install $* (see above)."
}

# ensure_cxx: the C++ compiler that libFuzzer, which the fuzz targets link, is built with.
ensure_cxx() {
    if ! command -v "${CXX:-c++}" >/dev/null; then
        can_install || die "no C++ compiler (${CXX:-c++}) found, which libFuzzer is built with;" \
            "install g++ or clang, or set CXX."
        say "No C++ compiler found: installing the package g++."
        apt_install g++ || die "apt-get could not install g++ (see above)."
    fi
}

# ensure_counters: what counts instructions and system calls, for tests and benches.
ensure_counters() {
    local missing=()
    command -v valgrind >/dev/null || missing+=(valgrind)
    command -v strace >/dev/null || missing+=(strace)
    install_missing "${missing[@]}"
}

# ensure_bench_tools: the counters, pgbench, and what the other clients' native TLS is built with.
ensure_bench_tools() {
    local missing=()
    ensure_counters
    [ -x "$DISTLOCK_PG_BIN/pgbench" ] || has_program pgbench || missing+=(postgresql-contrib)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
    install_missing "${missing[@]}"
}
