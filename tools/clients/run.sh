#!/usr/bin/env bash
# Runs published clients, unmodified, and requests by the schema against a service with the pocket model: tools/clients/run.sh CALOTYPE [NAME…]
# NAME is one of the scripts beside this one, without its ending; all of them by default. Needs pip and npm; a client whose package cannot
# be had is left out. `page` drives the service's own page in Chromium, where that is installed; with SHOTS=DIR it leaves pictures of the screen.
set -euo pipefail
[[ -z ${SHOTS:-} ]] || SHOTS=$(realpath "$SHOTS")
calotype=$(realpath "$1")
shift
cd "$(dirname "$0")"
names=("$@")
[[ ${#names[@]} -gt 0 ]] || names=(replicate_1 replicate_2 replicate openai_images a1111_images page schema_fuzz)

work=$(mktemp -d)
services=()
trap '[[ ${#services[@]} -eq 0 ]] || kill "${services[@]}"; wait; rm -rf "$work"' EXIT

# serve NAME RIGHTS OPTION…: starts a service with a token, so that clients are seen to send theirs. Sets url.
token=tools-clients
serve() {
    local name=$1 rights=$2
    shift 2
    printf 'tester %s %s\n' "$rights" "$(printf %s "$token" | sha256sum | cut -d" " -f1)" >"$work/$name.tokens"
    "$calotype" serve --port 0 --data "$work/$name.data" --token-file "$work/$name.tokens" "$@" 2>"$work/$name.log" &
    services+=($!)
    until url=$(grep -o 'http://127[.:0-9]*' "$work/$name.log"); do
        kill -0 "$!" 2>/dev/null || { cat "$work/$name.log"; exit 1; }
        sleep 0.1
    done
}
serve clients admin --allow-private-networks --price-per-second 0.001
clients=$url
export REPLICATE_BASE_URL=$clients REPLICATE_API_TOKEN=$token

for name in "${names[@]}"; do
    url=$clients
    case $name in
        replicate_1) packages=('replicate>=1,<2') ;;
        replicate_2) packages=(replicate==2.0.0b4) ;;
        replicate) packages=(replicate@1.4.0) ;;
        openai_images) packages=(openai pillow) ;;
        a1111_images) packages=(webuiapi) ;;
        page)
            packages=(playwright-core@1.65.1)
            CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || { echo "page: not run, Chromium is not installed"; continue; }
            export CHROMIUM
            ;;
        schema_fuzz)
            packages=('schemathesis>=4,<5')
            serve fuzz write --workers 0
            ;;
        *)
            echo "unknown client: $name"
            exit 2
            ;;
    esac
    if [[ -e $name.mjs ]]; then
        npm install --prefix "$work/$name" --silent --no-fund --no-audit "${packages[@]}" >/dev/null || { echo "$name: not run, no package"; continue; }
        node "$name.mjs" "$work/$name" ${SHOTS:+"$SHOTS"}
    else
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$work/$name" "${packages[@]}" 2>"$work/pip" || { echo "$name: not run, no package"; continue; }
        PYTHONPATH=$work/$name python3 "$name.py" "$url" "$token"
    fi
done
