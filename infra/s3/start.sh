#!/usr/bin/env bash
# A throw-away S3 server for tests: one Ceph node on loopback (monitor, one disk in a sparse file, RADOS gateway).
# Chosen because its put-if-absent really excludes: of any number of racing writers one wins.
#
#   start.sh start    starts it unless it runs; stdout is only the export lines, so: eval "$(infra/s3/start.sh start)"
#   start.sh env      prints the export lines again
#   start.sh status   says which daemons run; exit code 0 if the gateway answers
#   start.sh stop     ends them and deletes the data
#
# FOREBAY_S3_DIR   where data and logs lie (default: .s3 of this checkout); servers in different folders do not meet
set -euo pipefail
export LC_ALL=C
unset CEPH_ARGS CEPH_CONF CEPH_KEYRING

dir=${FOREBAY_S3_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/.s3}
dir=$(realpath -m "$dir") conf=$dir/ceph.conf bucket=forebay-test daemons="gateway disk monitor"
say() { echo "s3: $*" >&2; }
die() { say "$*"; exit 1; }
saved() { cat "$dir/$1" 2>/dev/null; }

require_packages() {
  local packages="ceph-mon ceph-osd radosgw ceph-common ceph-base curl"
  local install="apt-get install -y --no-install-recommends $packages"
  if command -v ceph-mon ceph-osd radosgw ceph monmaptool curl | [ "$(wc -l)" = 6 ]; then return; fi
  command -v apt-get >/dev/null || die "needs Ceph, expected Debian's packages $packages"
  [ "$(id -u)" = 0 ] || die "needs Ceph; as root: $install"
  say "installing $packages"
  { apt-get update && DEBIAN_FRONTEND=noninteractive $install; } >"$dir/install.log" 2>&1 \
    || { tail -n 3 "$dir/install.log" >&2; die "could not install the packages"; }
}

# A daemon is ours if it runs with our configuration file: a pid that was used again is never mistaken for one.
alive() { # NAME
  local pid
  pid=$(saved "$1.pid") && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$conf"
}

answers() { alive gateway && curl -s -o /dev/null --noproxy '*' --max-time 5 "$(saved endpoint)"; }

launch() { # NAME COMMAND...
  setsid "${@:2}" -c "$conf" -f </dev/null >"$dir/$1.log" 2>&1 &
  echo $! >"$dir/$1.pid"
}

await() { # SECONDS WHAT COMMAND...
  local end=$((SECONDS + $1))
  until "${@:3}"; do
    [ $SECONDS -lt $end ] || die "waited in vain for $2"
    sleep 0.1
  done
}

free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port; return; }
  done
}

make_bucket() {
  local code empty
  empty=$(printf '' | sha256sum | cut -d' ' -f1)
  code=$(curl -s -o "$dir/bucket.log" -w '%{http_code}' --noproxy '*' --max-time 20 -X PUT --aws-sigv4 aws:amz:us-east-1:s3 \
    -H "x-amz-content-sha256: $empty" -K - "$(saved endpoint)/$bucket" <<<"user = \"forebay:$(saved secret)\"")
  [ "$code" = 200 ]
}

write_conf() { # GATEWAY_PORT MONITOR_PORT FSID
  cat >"$conf" <<CONF
[global]
fsid = $3
mon_host = [v2:127.0.0.1:$2]
public_addr = 127.0.0.1
keyring = $dir/keyring
mon_data = $dir/mon
osd_data = $dir/osd
rgw_data = $dir/rgw
run_dir = $dir
log_to_stderr = true
log_file =
mon_cluster_log_file =
admin_socket =
paxos_propose_interval = 0.05
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_memory_target = 1073741824
# a sparse file: it takes room as it is written
bluestore_block_size = $((8 << 30))
rgw_frontends = beast endpoint=127.0.0.1:$1 tcp_nodelay=1
CONF
}

make_server() {
  local name port uuid
  port=$(free_port) uuid=$(cat /proc/sys/kernel/random/uuid)
  write_conf "$port" "$(free_port)" "$uuid"
  echo "http://127.0.0.1:$port" >"$dir/endpoint"
  mkdir -p "$dir"/{mon,osd,rgw}
  umask 077
  od -An -N20 -tx1 /dev/urandom | tr -d ' \n' >"$dir/secret"
  # The monitor takes the keys of this file into its database, so nobody has to be introduced later.
  ceph-authtool --create-keyring "$dir/keyring" --gen-key --name mon. --cap mon 'allow *'
  for name in client.admin client.gateway osd.0; do
    ceph-authtool "$dir/keyring" --gen-key --name $name --cap mon 'allow *' --cap osd 'allow *'
  done
  monmaptool --create --fsid "$uuid" --addv a "$(sed -n 's/^mon_host = //p' "$conf")" "$dir/monmap"
  ceph-mon -c "$conf" --id a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring"
  launch monitor ceph-mon --id a
  await 60 "the monitor" timeout 20 ceph -c "$conf" osd create "$uuid"
  ceph-osd -c "$conf" --id 0 --mkfs --osd-uuid "$uuid"
  launch disk ceph-osd --id 0
  timeout 120 radosgw-admin -c "$conf" user create --uid=forebay --display-name=forebay --access-key=forebay --secret-key="$(saved secret)"
  launch gateway radosgw --name client.gateway
  await 60 "the gateway" answers
  await 30 "the bucket" make_bucket
}

exports() {
  [ -e "$dir/ready" ] || die "no server in $dir: run $0 start"
  echo "export AWS_ENDPOINT_URL=$(saved endpoint) AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true"
  echo "export AWS_ACCESS_KEY_ID=forebay AWS_SECRET_ACCESS_KEY=$(saved secret)"
  echo "export FOREBAY_TEST_S3=s3://$bucket/"
}

stop() {
  for name in $daemons; do if alive $name; then kill -9 "$(saved $name.pid)"; fi; done
  if [ -e "$conf" ]; then rm -rf "$dir"/{mon,osd,rgw,monmap,keyring,ceph.conf,endpoint,secret,ready} "$dir"/*.pid; fi
}

start() {
  if [ -e "$dir/ready" ] && answers; then say "already runs"; exports; return; fi
  stop
  require_packages
  # A process of its own, so that the daemons keep neither our caller's pipes nor our lock.
  FOREBAY_S3_DIR=$dir bash "$0" make </dev/null >"$dir/setup.log" 2>&1 9>&- || { tail -n 3 "$dir/setup.log" >&2; stop; die "logs lie in $dir"; }
  : >"$dir/ready"
  say "up after $SECONDS s, data in $dir"
  exports
}

status() {
  for name in $daemons; do if alive $name; then echo "$name runs, pid $(saved $name.pid)"; else echo "$name does not run"; fi; done
  answers
}

case ${1:-} in
  start | stop) mkdir -p "$dir"; exec 9>"$dir/lock"; flock 9; "$1" ;;
  make) make_server ;;
  env) exports ;;
  status) status ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
