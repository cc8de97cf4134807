#!/usr/bin/env bash
# Fetches one model from Hugging Face into a folder that tg-llava-cli loads. Run it again to resume.
set -euo pipefail

usage() {
    cat <<'END'
usage: weights/fetch.sh NAME [FOLDER]

NAME    clip-l-336 | siglip-so400m-384            towers
        vicuna-7b | vicuna-13b | llama3-8b | qwen2-7b | qwen2-0.5b | smollm2-135m   decoders
        OWNER/REPOSITORY                          any other model of the same kinds
FOLDER  where it goes; by default weights/REPOSITORY

HF_TOKEN     access token, needed for models behind a licence form (llama3-8b)
HF_REVISION  branch, tag or commit (main)
HF_ENDPOINT  mirror (https://huggingface.co)

Needs bash, curl, awk, and sha256sum or shasum.
END
}

die() {
    printf 'fetch.sh: %s\n' "$*" >&2
    exit 1
}

# curl with the access token, which stays out of the process list. curl drops it where it is redirected to
# another host, as the storage behind the hub wants.
hub() {
    if [[ -n ${HF_TOKEN:-} ]]; then
        curl --retry 3 --config <(printf 'header = "Authorization: Bearer %s"\n' "$HF_TOKEN") "$@"
    else
        curl --retry 3 "$@"
    fi
}

explain() { # status, what was asked for
    case $1 in
        401 | 403) die "$2: refused ($1). Accept the model's licence at $endpoint/$repo, then set HF_TOKEN." ;;
        404) die "$2: not found ($1)" ;;
        *) die "$2: the server answered $1; run the same command again to resume" ;;
    esac
}

# Names of the repository's files, one a line.
list_files() {
    local answer status
    answer=$(mktemp)
    status=$(hub --silent --show-error --location --output "$answer" --write-out '%{http_code}' \
        "$endpoint/api/models/$repo/revision/$revision") || die "cannot reach $endpoint"
    [[ $status == 200 ]] || { rm -f "$answer"; explain "$status" "$repo"; }
    grep -o '"rfilename" *: *"[^"]*"' "$answer" | sed 's/.*"\([^"]*\)"$/\1/' || true
    rm -f "$answer"
}

# The files that loading needs: small ones, and the weights in one format, safetensors where there are any.
choose() {
    local weights='pytorch_model' name
    for name in "$@"; do
        [[ $name == */* ]] || [[ $name != model*.safetensors ]] || weights='model'
    done
    for name in "$@"; do
        case $name in
            */*) ;;
            model*.safetensors | model.safetensors.index.json) [[ $weights != model ]] || echo "$name" ;;
            pytorch_model*.bin | pytorch_model.bin.index.json) [[ $weights == model ]] || echo "$name" ;;
            mm_*.bin | mm_*.safetensors) echo "$name" ;;
            *.json | merges.txt | tokenizer.model | spiece.model | LICENSE* | NOTICE* | USE_POLICY*) echo "$name" ;;
        esac
    done
}

sha256() {
    if command -v sha256sum > /dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

download() {
    local name=$1 url="$endpoint/$repo/resolve/$revision/$1" target="$folder/$1"
    local headers status expected resume=() failed=0
    if [[ -e $target ]]; then
        printf '%s: there already\n' "$name"
        return
    fi
    printf '%s\n' "$name"
    headers=$(hub --silent --show-error --head "$url" | tr -d '\r"') || die "cannot reach $endpoint"
    status=$(awk '/^HTTP\// { status = $2 } END { print status }' <<< "$headers")
    case $status in 200 | 30?) ;; *) explain "$status" "$name" ;; esac
    # The hub names the SHA-256 of a large file before it redirects to the storage.
    expected=$(awk 'tolower($1) == "x-linked-etag:" { print $2 }' <<< "$headers")
    [[ ! -s $target.part ]] || resume=(--continue-at -)
    status=$(hub --progress-bar --fail --location ${resume[@]+"${resume[@]}"} \
        --output "$target.part" --write-out '%{http_code}' "$url") || failed=$?
    case $failed:$status in
        0:* | *:416) ;; # 416: the part holds everything already
        33:*) rm -f "$target.part"; die "$name: the server cannot resume; run the same command again" ;;
        *) explain "$status" "$name" ;;
    esac
    if [[ ${#expected} == 64 && $(sha256 "$target.part") != "$expected" ]]; then
        rm -f "$target.part"
        die "$name: the checksum is wrong, the part was removed; run the same command again"
    fi
    mv "$target.part" "$target"
}

case ${1:-} in
    clip-l-336) repo=openai/clip-vit-large-patch14-336 ;;
    siglip-so400m-384) repo=google/siglip-so400m-patch14-384 ;;
    vicuna-7b) repo=lmsys/vicuna-7b-v1.5 ;;
    vicuna-13b) repo=lmsys/vicuna-13b-v1.5 ;;
    llama3-8b) repo=meta-llama/Meta-Llama-3-8B-Instruct ;;
    qwen2-7b) repo=Qwen/Qwen2-7B-Instruct ;;
    qwen2-0.5b) repo=Qwen/Qwen2-0.5B-Instruct ;;
    smollm2-135m) repo=HuggingFaceTB/SmolLM2-135M-Instruct ;;
    -h | --help) usage; exit 0 ;;
    */*) repo=$1 ;;
    *) usage >&2; exit 2 ;;
esac
endpoint=${HF_ENDPOINT:-https://huggingface.co}
revision=${HF_REVISION:-main}
folder=${2:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/${repo##*/}}

listing=$(list_files)
names=()
while IFS= read -r name; do names+=("$name"); done <<< "$listing"
chosen=$(choose "${names[@]}")
[[ $chosen == *.safetensors* || $chosen == *.bin* ]] || die "$repo holds no weights that can be loaded"

mkdir -p "$folder"
while IFS= read -r name; do download "$name"; done <<< "$chosen"
printf 'done: %s\n' "$folder"
