#!/usr/bin/env bash
# A throw-away S3 server for tests: one Ceph node on loopback (monitor, one disk in a sparse file, RADOS gateway).
# Chosen because its put-if-absent really excludes: of any number of racing writers one wins.
#
#   start.sh start    starts it unless it runs; stdout is only the export lines, so: eval "$(infra/s3/start.sh start)"
#   start.sh env      prints the export lines again
#   start.sh status   which daemons run, exit code 0 if the gateway answers
#   start.sh stop     ends them and deletes the data
#
# FOREBAY_S3_DIR   where data and logs lie (default: .s3 of this checkout); servers in different folders do not meet
set -euo pipefail
export LC_ALL=C
unset CEPH_ARGS CEPH_CONF CEPH_KEYRING

dir=${FOREBAY_S3_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/.s3}
conf=$dir/ceph.conf
bucket=forebay-test
disk_bytes=$((8 << 30)) # grows as it is written
say() { echo "s3: $*" >&2; }
die() { say "$*"; exit 1; }

require_packages() {
  local pair missing=()
  for pair in ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw ceph-authtool:ceph-common monmaptool:ceph-base curl:curl; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local install="apt-get install --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null || die "not found: ${missing[*]}, expected Debian's packages of these names"
  [ "$(id -u)" = 0 ] || die "not found: ${missing[*]}; install them as root: $install"
  say "installing ${missing[*]}"
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive $install -qq -y; } >"$dir/install.log" 2>&1 \
    || { tail -n 5 "$dir/install.log" >&2; die "could not install the packages, see $dir/install.log"; }
}

# A daemon is ours if it runs with our configuration file: a pid that was used again is never mistaken for one.
alive() { # NAME
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$conf"
}

launch() { # NAME COMMAND...
  local name=$1; shift
  setsid "$@" -c "$conf" -f </dev/null >"$dir/$name.log" 2>&1 9>&- &
  echo $! >"$dir/$name.pid"
}

until_true() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || die "$what in vain; logs lie in $dir"
    sleep 0.2
  done
}

free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port; return; }
  done
}

answers() { alive gateway && curl --silent --output /dev/null --noproxy '*' --max-time 5 "$(cat "$dir/endpoint")"; }
admin() { timeout 60 "$@" -c "$conf"; }

make_bucket() {
  local empty code
  empty=$(printf '' | sha256sum | cut -d' ' -f1)
  code=$(curl --silent --output "$dir/bucket.log" --write-out '%{http_code}' --noproxy '*' --max-time 20 --request PUT \
    --aws-sigv4 aws:amz:us-east-1:s3 --header "x-amz-content-sha256: $empty" --config - "$(cat "$dir/endpoint")/$bucket" \
    <<<"user = \"forebay:$(cat "$dir/secret")\"")
  [ "$code" = 200 ]
}

write_conf() { # GATEWAY_PORT MONITOR_PORT
  cat >"$conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon_host = [v2:127.0.0.1:$2]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = $dir/keyring
mon_data = $dir/mon
osd_data = $dir/osd
rgw_data = $dir/rgw
run_dir = $dir
crash_dir = $dir
log_to_stderr = true
log_file =
mon_cluster_log_file =
admin_socket =
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_objectstore = bluestore
osd_memory_target = 1073741824
bluestore_block_size = $disk_bytes
rgw_frontends = beast endpoint=127.0.0.1:$1 tcp_nodelay=1
rgw_enable_usage_log = false
CONF
}

make_server() {
  local port uuid
  port=$(free_port)
  write_conf "$port" "$(free_port)"
  echo "http://127.0.0.1:$port" >"$dir/endpoint"
  (umask 077; od -An -N20 -tx1 /dev/urandom | tr -d ' \n' >"$dir/secret")
  mkdir -p "$dir"/{mon,osd,rgw}
  # The monitor takes the keys of this file into its database, so nobody has to be introduced later.
  ceph-authtool --create-keyring "$dir/keyring" --gen-key --name mon. --cap mon 'allow *' >"$dir/setup.log"
  local name
  for name in client.admin client.gateway osd.0; do
    ceph-authtool "$dir/keyring" --gen-key --name "$name" --cap mon 'allow *' --cap osd 'allow *' >>"$dir/setup.log"
  done
  monmaptool --create --fsid "$(sed -n 's/^fsid = //p' "$conf")" \
    --addv a "$(sed -n 's/^mon_host = //p' "$conf")" "$dir/monmap" >>"$dir/setup.log"
  admin ceph-mon --id a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring" >>"$dir/setup.log" 2>&1
  launch monitor ceph-mon --id a
  uuid=$(cat /proc/sys/kernel/random/uuid)
  until_true 30 "waited for the monitor" admin ceph --connect-timeout 5 osd create "$uuid"
  admin ceph-osd --id 0 --mkfs --osd-uuid "$uuid" >>"$dir/setup.log" 2>&1
  launch disk ceph-osd --id 0
  admin radosgw-admin user create --uid=forebay --display-name=forebay --access-key=forebay \
    --secret-key="$(cat "$dir/secret")" >>"$dir/setup.log" 2>&1
  launch gateway radosgw --name client.gateway
  until_true 60 "waited for the gateway" answers
  until_true 20 "tried to create the bucket" make_bucket
}

exports() {
  [ -e "$dir/ready" ] || die "no server in $dir: run '$0 start'"
  cat <<EXPORTS
export AWS_ENDPOINT_URL=$(cat "$dir/endpoint")
export AWS_ACCESS_KEY_ID=forebay
export AWS_SECRET_ACCESS_KEY=$(cat "$dir/secret")
export AWS_REGION=us-east-1
export AWS_ALLOW_HTTP=true
export FOREBAY_TEST_S3=s3://$bucket/
EXPORTS
}

stop() {
  local name
  for name in gateway disk monitor; do
    if alive $name; then kill "$(cat "$dir/$name.pid")"; fi
  done
  for name in gateway disk monitor; do
    for _ in $(seq 50); do alive $name || break; sleep 0.1; done
    if alive $name; then kill -9 "$(cat "$dir/$name.pid")"; fi
  done
  if [ -e "$conf" ]; then
    rm -rf "$dir"/{mon,osd,rgw,monmap,keyring,ceph.conf,endpoint,secret,ready} "$dir"/*.log "$dir"/*.pid
  fi
}

status() {
  local name
  for name in monitor disk gateway; do
    if alive $name; then echo "$name runs, pid $(cat "$dir/$name.pid")"; else echo "$name does not run"; fi
  done
  answers
}

start() {
  if [ -e "$dir/ready" ] && answers; then say "already runs"; exports; return; fi
  stop
  require_packages
  trap 'say "failed:"; tail -qn 3 "$dir"/*.log >&2; stop' EXIT
  local began=$SECONDS
  make_server
  : >"$dir/ready"
  trap - EXIT
  say "up in $((SECONDS - began)) s, data in $dir"
  exports
}

case ${1:-} in
  start) mkdir -p "$dir"; exec 9>"$dir/lock"; flock 9; start ;;
  stop) if [ -d "$dir" ]; then exec 9>"$dir/lock"; flock 9; stop; fi ;;
  env) exports ;;
  status) status ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
