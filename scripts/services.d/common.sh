# Ports, remembered state and readiness checks, shared by both ways of running the services.
# shellcheck shell=bash

# What `up` used last holds until it is overridden from the environment; before the first `up`
# a default that somebody else listens on (another checkout, say) gives way to the next free one.
recall_ports() {
    local saved_redis='' saved_postgres='' saved_kafka='' saved_controller=''
    if [ -r "$dir/state" ]; then
        # shellcheck disable=SC1091
        source "$dir/state"
    fi
    redis_port="$(pick_port LACUNA_REDIS_PORT "$saved_redis" 16379)"
    postgres_port="$(pick_port LACUNA_POSTGRES_PORT "$saved_postgres" 15432)"
    kafka_port="$(pick_port LACUNA_KAFKA_PORT "$saved_kafka" 19092)"
    controller_port="$(pick_port LACUNA_KAFKA_CONTROLLER_PORT "$saved_controller" $((kafka_port + 1)))"
}

# pick_port VARIABLE SAVED DEFAULT
pick_port() {
    local variable="$1" saved="$2" port="$3"
    local wanted="${!variable:-}"
    if [ -n "$wanted" ]; then
        [[ "$wanted" =~ ^[0-9]+$ ]] && [ "$wanted" -ge 1 ] && [ "$wanted" -le 65535 ] ||
            die "$variable: '$wanted' is not a port number"
        if [ -n "$saved" ] && [ "$saved" != "$wanted" ]; then
            die "$variable is $wanted, but the services of $dir run on $saved: 'scripts/services down' first"
        fi
        echo "$wanted"
    elif [ -n "$saved" ]; then
        echo "$saved"
    else
        while port_open "$port"; do port=$((port + 10)); done
        echo "$port"
    fi
}

remember() {
    cat >"$dir/state" <<STATE
saved_mode=$1
saved_redis=$redis_port
saved_postgres=$postgres_port
saved_kafka=$kafka_port
saved_controller=$controller_port
STATE
}

remembered_mode() {
    sed -n 's/^saved_mode=//p' "$dir/state"
}

# Containers only where an engine really answers: a client without its engine is common in CI.
choose_mode() {
    case "${LACUNA_SERVICES:-auto}" in
        local) echo local ;;
        containers)
            compose_command >/dev/null ||
                die "LACUNA_SERVICES=containers, but no container engine with compose answers"
            echo containers
            ;;
        auto)
            if [ -e "$dir/state" ]; then
                remembered_mode
            elif compose_command >/dev/null; then
                echo containers
            else
                echo local
            fi
            ;;
        *) die "LACUNA_SERVICES must be auto, containers or local, not '${LACUNA_SERVICES}'" ;;
    esac
}

port_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Each check opens a connection of its own, in a subshell that closes it by ending.

# An inline command, answered by +PONG.
answers_redis() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$redis_port" || exit 1
    printf 'PING\r\n' >&3
    IFS= read -r -t 2 line <&3
    [ "${line%$'\r'}" = "+PONG" ]
)

# A StartupMessage (protocol 3.0) for the user and database of the URL. A server that is ready
# asks for or waves through authentication ('R'); one that is starting up reports an error ('E').
answers_postgres() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$postgres_port" || exit 1
    printf '\x00\x00\x00\x25\x00\x03\x00\x00user\x00lacuna\x00database\x00lacuna\x00\x00' >&3
    IFS= read -r -t 2 -N 1 kind <&3
    [ "$kind" = "R" ]
)

# An ApiVersions request (key 18, version 0), whose answer repeats the correlation id 7 after
# four bytes of length. A broker takes requests only once it has left the fenced state, so an
# answer means that it can serve clients.
answers_kafka() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$kafka_port" || exit 1
    printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff' >&3
    answer="$(timeout 2 head -c 8 <&3 | od -An -tx1 | tr -d ' \n')"
    [ "${answer:8:8}" = "00000007" ]
)

# wait_for NAME SECONDS [LOG] [PIDFILE]: polls until the service answers; a process that died
# meanwhile, or a deadline that passed, prints the end of its log.
wait_for() {
    local name="$1" seconds="$2" log="${3:-}" pidfile="${4:-}"
    local deadline=$((SECONDS + seconds))
    until "answers_${name}"; do
        if [ -n "$pidfile" ] && [ -e "$pidfile" ] && ! kill -0 "$(cat "$pidfile")" 2>/dev/null; then
            show_log "$log"
            die "$name stopped while starting; its log is above${log:+ and in $log}"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            show_log "$log"
            die "$name did not answer within ${seconds} s${log:+; see $log}"
        fi
        sleep 0.2
    done
}

show_log() {
    if [ -n "$1" ] && [ -r "$1" ]; then
        tail -n 30 "$1" >&2
    fi
}
