#!/usr/bin/env bash
# Starts a real Slurm of several nodes on one machine, to try a job script before using a cluster.
#
#   local_slurm.sh up DIR [--nodes 3] [--cpus 2] [--memory 4000]     memory in MB; CPUs and memory are of each node
#   local_slurm.sh status DIR                                        exit status 0 when every node answers, else 3
#   local_slurm.sh env DIR                                           prints what to eval so that sbatch and squeue find it
#   local_slurm.sh down DIR                                          cancels the jobs, stops the daemons; DIR is kept
#
# Needs Debian's or Ubuntu's packages:  apt-get install -y --no-install-recommends slurm-wlm
# Every daemon listens on 127.0.0.1 only. A munge daemon with its own key, readable only by you, authenticates users, so
# that other users of the machine have no access. It needs no systemd and no root, and writes nothing outside DIR.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

say() { echo "local_slurm: $*" >&2; }
fail() { say "$*"; exit 2; }
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[ $# -ge 2 ] || usage
action=$1
dir=$(realpath -m -- "$2")
shift 2
export SLURM_CONF=$dir/slurm.conf
# A socket's path may have 107 characters at most.
[[ $dir != *[[:space:]]* ]] || fail "the path $dir has a space, which slurm.conf cannot hold; take another one"
[ ${#dir} -le 75 ] || fail "the path $dir is too long for a socket; take a shorter one"

daemon_files() { ls "$dir"/run/*.pid 2>/dev/null || true; }

# The process of a pid file, if it runs and is one of ours: the number may belong to another process by now.
daemon_of() {
  local pid
  pid=$(cat -- "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "$dir/" || return 1
  echo "$pid"
}

living() { local f; for f in $(daemon_files); do daemon_of "$f" || true; done; }

# Processes of jobs: they carry both this configuration and a job's number in their environment.
job_processes() {
  local p
  for p in /proc/[0-9]*; do
    [ -r "$p/environ" ] || continue
    { tr '\0' '\n' <"$p/environ"; } 2>/dev/null | awk -v conf="SLURM_CONF=$SLURM_CONF" \
      '$0 == conf { c = 1 } /^SLURM_JOB_ID=/ { j = 1 } END { exit !(c && j) }' && echo "${p#/proc/}" || true
  done
}

# All ports are opened together, so that none is returned twice.
free_ports() {
  "${PYTHON:-python3}" - "$1" <<'PY'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))
PY
}

write_conf() {
  local nodes=$1 cpus=$2 memory=$3 user ports i
  user=$(id -un)
  read -r -a ports <<<"$(free_ports $((nodes + 1)))"
  {
    cat <<CONF
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${ports[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.socket
CredType=cred/munge
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
# No cgroups, so that it runs in a container: memory is counted, but limits are not enforced.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# The nodes claim the CPUs and the memory given here, whatever the machine has.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=3
PropagateResourceLimits=NONE
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
CONF
    for ((i = 1; i <= nodes; i++)); do
      echo "NodeName=n$i NodeHostname=localhost NodeAddr=127.0.0.1 Port=${ports[$i]}" \
        "CPUs=$cpus RealMemory=$memory State=UNKNOWN"
    done
    # LLN spreads the jobs over the nodes, so that losing one node loses one job.
    echo "PartitionName=debug Nodes=n[1-$nodes] Default=YES MaxTime=1-0 State=UP LLN=YES"
  } >"$SLURM_CONF"
}

start_daemons() {
  local nodes=$1 i
  rm -f "$dir/key/munge.key"
  dd if=/dev/urandom of="$dir/key/munge.key" bs=128 count=1 status=none
  chmod 0400 "$dir/key/munge.key"
  # --force: munged refuses sockets in folders that other users cannot enter, which is intended here.
  munged --force --key-file="$dir/key/munge.key" --socket="$dir/run/munge.socket" --pid-file="$dir/run/munged.pid" \
    --seed-file="$dir/key/munged.seed" --log-file="$dir/log/munged.log" --num-threads=2 2>>"$dir/log/munged.err"
  slurmctld -c -f "$SLURM_CONF"
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$dir/spool.n$i"
    slurmd -N "n$i" -f "$SLURM_CONF"
  done
}

ready() { [ "$(sinfo -h -N -o %t 2>/dev/null | grep -cE '^(idle|mix|alloc)$')" = "$1" ]; }

stop() {
  local pid _
  # Only while the controller runs, because Slurm's commands retry for ten seconds without one.
  if daemon_of "$dir/run/slurmctld.pid" >/dev/null; then
    scancel --signal=KILL --full --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 50); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
    scontrol shutdown 2>/dev/null || true
  fi
  for pid in $(living); do kill "$pid" 2>/dev/null || true; done
  for _ in $(seq 50); do [ -z "$(living)" ] && break; sleep 0.1; done
  for pid in $(living) $(job_processes); do kill -9 "$pid" 2>/dev/null || true; done
  rm -f "$dir"/run/*
}

case $action in
up)
  nodes=3 cpus=2 memory=4000
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 wants a positive whole number"
    case $1 in
    --nodes) nodes=$2 ;; --cpus) cpus=$2 ;; --memory) memory=$2 ;;
    *) fail "unknown option $1; known: --nodes --cpus --memory" ;;
    esac
    shift 2
  done
  command -v "${PYTHON:-python3}" >/dev/null || fail "no ${PYTHON:-python3} here; type PYTHON=/path/to/python3 $0 up $dir"
  for tool in munged slurmctld slurmd sinfo; do
    command -v "$tool" >/dev/null || fail "$tool is missing; type apt-get install -y --no-install-recommends slurm-wlm"
  done
  [ -z "$(living)" ] || fail "a Slurm is up in $dir already; type $0 down $dir"
  umask 022
  mkdir -p "$dir/state" "$dir/log" "$dir/run" "$dir/key"
  chmod 0700 "$dir/key" "$dir/state"
  write_conf "$nodes" "$cpus" "$memory"
  trap 'say "it did not come up; the logs are in $dir/log, the last lines:"; tail -n 5 "$dir"/log/*.log >&2 || true; stop' ERR INT TERM
  start_daemons "$nodes"
  for _ in $(seq 150); do ready "$nodes" && break; sleep 0.1; done
  ready "$nodes"
  trap - ERR INT TERM
  say "$nodes nodes are up in $dir"
  echo "export SLURM_CONF=$SLURM_CONF"
  ;;
status)
  [ -f "$SLURM_CONF" ] || fail "there is no Slurm in $dir; type $0 up $dir"
  daemon_of "$dir/run/slurmctld.pid" >/dev/null || { say "down"; exit 3; }
  sinfo -N -o '%.10N %.10T %.6c %.10m'
  squeue -o '%.8i %.20j %.10T %.10M %.10N'
  ready "$(grep -c ^NodeName= "$SLURM_CONF")" || exit 3
  ;;
env)
  [ -f "$SLURM_CONF" ] || fail "there is no Slurm in $dir; type $0 up $dir"
  echo "export SLURM_CONF=$SLURM_CONF"
  ;;
down)
  stop
  say "down"
  ;;
*) usage ;;
esac
