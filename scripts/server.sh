# Sourced: a server for a measurement.
export FANFARE_AUTH_HMAC_SECRET=a-secret-for-benchmarks-of-32-bytes FANFARE_API_KEY=a-key-for-benchmarks

# serve SHARDS CPUS: a fresh server; sets `server`, its process, and `url`.
serve() {
  stop
  log=$(mktemp)
  taskset -c "$2" target/release/fanfare serve --shards "$1" --bind 127.0.0.1:0 2>"$log" &
  server=$!
  until url=$(grep -m1 -o 'address=[^ ]*' "$log"); do
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2 && return 1; }
    sleep 0.1
  done
  url=http://${url#address=}
}

stop() {
  [[ -z ${server:-} ]] || { kill "$server" && wait "$server" || true; }
  [[ -z ${log:-} ]] || rm -f "$log"
  server= log=
}

trap stop EXIT
