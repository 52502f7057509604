# Shared by tools/demo and tools/test, which run in the root of the tree: steps of one line each,
# whose output goes to a log.

# step WHAT LOG COMMAND...: runs the command; a terminal sees how far ninja or ctest has come.
step() {
  local what=$1 log=$2 start=$SECONDS status=0 clear=""
  shift 2
  mkdir -p "$(dirname "$log")"
  if [[ -t 1 ]]; then
    clear=$'\r\e[K'
    printf '%s ...' "$what"
    "$@" 2>&1 | tee "$log" |
      sed -nu 's/^ *\[\{0,1\}\([0-9]\{1,\}\/[0-9]\{1,\}\)[] ].*/\1/p' |
      while read -r at; do printf '%s%s ... %s' "$clear" "$what" "$at"; done || status=$?
  else
    "$@" >"$log" 2>&1 || status=$?
  fi
  if ((status)); then
    printf '%s%s: failed after %d s, log: %s\n' "$clear" "$what" $((SECONDS - start)) "$log"
  else
    printf '%s%s: %d s\n' "$clear" "$what" $((SECONDS - start))
  fi
  return $status
}

# The same for what nothing can go on without: on failure it shows the first error of the log.
must() {
  step "$@" && return
  { grep -A 40 -m 1 -E '^(FAILED: |CMake Error)' "$2" || tail -n 40 "$2"; } >&2
  return 1
}

# build PRESET TARGET [-DOPTION=VALUE ...]
build() {
  local preset=$1 target=$2
  must "$preset: configure" "build/logs/$preset-configure.log" cmake --preset "$preset" "${@:3}" &&
    must "$preset: build" "build/logs/$preset-build.log" \
      cmake --build --preset "$preset" --target "$target"
}
