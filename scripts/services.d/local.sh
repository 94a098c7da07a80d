# The services as plain processes: Debian's redis-server and PostgreSQL, Kafka from Maven Central.
# shellcheck shell=bash

kafka_version=4.4.0

local_up() {
    install_missing
    kafka_start
    redis_start
    postgres_start
    wait_for redis 30 "$dir/redis/redis.log"
    wait_for postgres 60 "$(postgres_dir)/postgres.log"
    wait_for kafka 120 "$dir/kafka/kafka.log" "$dir/kafka/kafka.pid"
}

local_down() {
    stop_pidfile redis "$dir/redis/redis.pid"
    stop_pidfile kafka "$dir/kafka/kafka.pid"
    local data
    data="$(postgres_dir)/data"
    if [ -e "$data/postmaster.pid" ]; then
        as_postgres "$(postgres_bin)/pg_ctl" -D "$data" -m fast -w -t 60 stop >/dev/null ||
            die "postgresql did not stop; see $(postgres_dir)/postgres.log"
    fi
}

# --- packages -------------------------------------------------------------------------------

install_missing() {
    local missing=()
    command -v redis-server >/dev/null || missing+=(redis-server)
    [ -n "$(postgres_bin)" ] || missing+=(postgresql)
    if [ ! -e "$dir/kafka/libs-$kafka_version/.complete" ]; then
        command -v mvn >/dev/null || missing+=(maven)
    fi
    java_17 || missing+=(openjdk-17-jre-headless)
    [ "${#missing[@]}" -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (Debian's names). Install them, or start a container engine"
    fi
    say "installing ${missing[*]}"
    local log="$dir/apt.log"
    {
        apt-get update &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
    } >"$log" 2>&1 9>&- || { show_log "$log"; die "apt-get could not install ${missing[*]}; see $log"; }
    java_17 || die "the java on PATH is older than 17, which Kafka $kafka_version needs"
}

java_17() {
    command -v java >/dev/null || return 1
    local major
    major="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)"
    [ "${major:-0}" -ge 17 ]
}

# --- processes ------------------------------------------------------------------------------

# A pid from a file counts only while that process still is ours: numbers are used again.
owns() {
    local pidfile="$1" pid
    [ -r "$pidfile" ] || return 1
    pid="$(cat "$pidfile")"
    [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
    [ "$(readlink "/proc/$pid/cwd")" = "$(cd "$(dirname "$pidfile")" && pwd -P)" ]
}

stop_pidfile() {
    local name="$1" pidfile="$2" pid
    owns "$pidfile" || { rm -f "$pidfile"; return 0; }
    pid="$(cat "$pidfile")"
    kill "$pid" 2>/dev/null || true
    local deadline=$((SECONDS + 30))
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "$name (pid $pid) ignores TERM for 30 s; killing it"
            kill -9 "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    rm -f "$pidfile"
}

free_or_die() {
    local name="$1" port="$2" variable="$3"
    if port_open "$port"; then
        die "port $port for $name is taken by another process; choose one with $variable"
    fi
}

# --- redis ----------------------------------------------------------------------------------

redis_start() {
    local home="$dir/redis"
    mkdir -p "$home"
    if owns "$home/redis.pid"; then return 0; fi
    free_or_die redis "$redis_port" LACUNA_REDIS_PORT
    say "starting redis on $redis_port"
    (
        cd "$home"
        exec redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$home" \
            --daemonize yes --pidfile "$home/redis.pid" --logfile "$home/redis.log" \
            --appendonly yes --save '' --databases 16 </dev/null >/dev/null 2>&1 9>&-
    ) || { show_log "$home/redis.log"; die "redis-server did not start"; }
}

# --- postgresql -----------------------------------------------------------------------------

postgres_bin() {
    if command -v initdb >/dev/null && command -v postgres >/dev/null; then
        dirname "$(command -v initdb)"
        return 0
    fi
    # Debian keeps the server's programs off PATH, one folder a major version.
    local found
    found="$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -name initdb 2>/dev/null | sort -V | tail -1)"
    if [ -n "$found" ]; then dirname "$found"; fi
}

# PostgreSQL refuses to run as root; Debian's package brings the user for it.
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && exec runuser -u postgres -- "$@")
    else
        "$@"
    fi
}

# The folder of cluster and log. Run as root from a checkout that the postgres user cannot
# enter (a home folder, say), the cluster moves to /var/tmp, under a name made from the checkout.
postgres_dir() {
    local home="$dir/postgres"
    if [ "$(id -u)" -eq 0 ] && ! { mkdir -p "$home" && as_postgres test -x "$home"; } 2>/dev/null; then
        home="/var/tmp/lacuna-postgres-$(printf '%s' "$dir" | cksum | cut -d' ' -f1)"
    fi
    printf '%s\n' "$home"
}

postgres_start() {
    local home bin
    home="$(postgres_dir)"
    bin="$(postgres_bin)"
    mkdir -p "$home"
    if [ "$(id -u)" -eq 0 ]; then
        id postgres >/dev/null 2>&1 || die "PostgreSQL cannot run as root and there is no user 'postgres'"
        chown postgres "$home"
    fi
    if [ ! -e "$home/data/PG_VERSION" ]; then
        rm -rf "$home/data"
        say "creating a postgresql cluster in $home/data"
        as_postgres "$bin/initdb" -D "$home/data" -U lacuna --auth=trust -E UTF8 --locale=C.UTF-8 \
            >"$dir/initdb.log" 2>&1 9>&- || { show_log "$dir/initdb.log"; die "initdb failed; see $dir/initdb.log"; }
    fi
    if ! as_postgres "$bin/pg_ctl" -D "$home/data" status >/dev/null 2>&1; then
        free_or_die postgresql "$postgres_port" LACUNA_POSTGRES_PORT
        say "starting postgresql on $postgres_port"
        # Throwaway data: a lost second after a power cut is worth tests that do not wait for disks.
        as_postgres "$bin/pg_ctl" -D "$home/data" -l "$home/postgres.log" -w -t 60 -o \
            "-c listen_addresses=127.0.0.1 -c port=$postgres_port -c unix_socket_directories= -c synchronous_commit=off -c max_connections=200" \
            start </dev/null >/dev/null 2>&1 9>&- || { show_log "$home/postgres.log"; die "postgresql did not start; see $home/postgres.log"; }
    fi
    postgres_database "$bin"
}

# The database of the URL. Asked each time: an earlier `up` may have been cut off before it.
postgres_database() {
    local psql="$1/psql"
    [ -x "$psql" ] || psql="$(command -v psql)" || die "missing: postgresql-client"
    local query=("$psql" -h 127.0.0.1 -p "$postgres_port" -U lacuna -d postgres -qAt -c)
    {
        if [ -z "$("${query[@]}" "SELECT 1 FROM pg_database WHERE datname = 'lacuna'")" ]; then
            "${query[@]}" 'CREATE DATABASE lacuna'
        fi
    } </dev/null >"$dir/createdb.log" 2>&1 ||
        { show_log "$dir/createdb.log"; die "the database 'lacuna' could not be created"; }
}

# --- kafka ----------------------------------------------------------------------------------

# Kafka's jars by their package names, through Maven; kept, so that it happens once.
kafka_fetch() {
    local libs="$dir/kafka/libs-$kafka_version" log="$dir/kafka/fetch.log"
    [ -e "$libs/.complete" ] && return 0
    say "fetching kafka $kafka_version with maven"
    rm -rf "$libs"
    mvn -B -f "$parts/kafka-pom.xml" "-Dkafka.version=$kafka_version" dependency:copy-dependencies \
        "-DoutputDirectory=$libs" -DincludeScope=runtime </dev/null >"$log" 2>&1 9>&- ||
        { show_log "$log"; die "maven could not fetch kafka $kafka_version; see $log"; }
    touch "$libs/.complete"
}

kafka_start() {
    local home="$dir/kafka"
    mkdir -p "$home"
    if owns "$home/kafka.pid"; then return 0; fi
    kafka_fetch
    free_or_die kafka "$kafka_port" LACUNA_KAFKA_PORT
    free_or_die "kafka's controller" "$controller_port" LACUNA_KAFKA_CONTROLLER_PORT
    sed -e "s|@DATA@|$home/data|" -e "s|@PORT@|$kafka_port|" -e "s|@CONTROLLER@|$controller_port|" \
        "$parts/kafka.properties" >"$home/kafka.properties"
    local java=(java -cp "$home/libs-$kafka_version/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn)
    if [ ! -e "$home/data/meta.properties" ]; then
        local id
        id="$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')"
        "${java[@]}" -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format -t "$id" -c "$home/kafka.properties" \
            </dev/null >"$home/format.log" 2>&1 9>&- || { show_log "$home/format.log"; die "kafka's storage could not be formatted; see $home/format.log"; }
    fi
    say "starting kafka on $kafka_port"
    (
        cd "$home"
        setsid nohup "${java[@]}" -Xms128m -Xmx512m -XX:+UseSerialGC kafka.Kafka "$home/kafka.properties" \
            </dev/null >"$home/kafka.log" 2>&1 9>&- &
        echo $! >"$home/kafka.pid"
    )
}
