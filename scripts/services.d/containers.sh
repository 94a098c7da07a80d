# The services as containers. Needs an engine that answers, and its compose command.
# shellcheck shell=bash

# Prints the compose command of the first engine that answers.
compose_command() {
    if command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; then
        if docker compose version >/dev/null 2>&1; then echo "docker compose"; return 0; fi
        if command -v docker-compose >/dev/null; then echo "docker-compose"; return 0; fi
        say "docker answers but has no compose command"
    fi
    if command -v podman >/dev/null && timeout 10 podman info >/dev/null 2>&1; then
        if command -v podman-compose >/dev/null; then echo "podman-compose"; return 0; fi
        if podman compose version >/dev/null 2>&1; then echo "podman compose"; return 0; fi
        say "podman answers but has no compose command"
    fi
    return 1
}

compose() {
    local command
    read -r -a command <<<"$(compose_command)"
    # One project per checkout, so that two of them do not share containers or volumes.
    LACUNA_REDIS_PORT="$redis_port" LACUNA_POSTGRES_PORT="$postgres_port" \
        LACUNA_KAFKA_PORT="$kafka_port" \
        "${command[@]}" -p "lacuna-$(printf '%s' "$dir" | cksum | cut -d' ' -f1)" \
        -f "$root/compose.yaml" "$@"
}

containers_up() {
    compose_command >/dev/null || die "no container engine with compose answers"
    compose up -d >&2 9>&- || die "compose could not start the containers"
    local name
    for name in redis postgres kafka; do
        say "waiting for $name"
        local deadline=$((SECONDS + 120))
        until "answers_${name}"; do
            if [ "$SECONDS" -ge "$deadline" ]; then
                compose logs --tail 30 "$name" >&2 || true
                die "$name did not answer within 120 s"
            fi
            sleep 0.5
        done
    done
}

containers_down() {
    compose_command >/dev/null || die "the container engine that ran the services does not answer"
    compose down >&2 || die "compose could not stop the containers"
}
