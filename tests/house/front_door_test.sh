#!/bin/sh
# The front door against stand-ins for cmake, apt-get and the rest, which write down how they were
# called. Usage: front_door_test.sh SOURCE_DIR
set -eu
source=$1
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset OMPI_COMM_WORLD_RANK PMIX_RANK PMI_RANK SLURM_PROCID INFINI_INSTALL 2>/dev/null || true

repo=$place/repo
calls=$place/calls
mkdir -p "$repo" "$place/bin"
cp "$source/infini" "$repo/"
cd "$repo"
mkdir tensor model data optim distributed trainer tests
touch CMakeLists.txt CMakePresets.json tensor/a.cpp tests/a.cpp

stub() {
  printf '#!/bin/sh\necho "%s $*" >>"%s"\n%s\n' "$1" "$calls" "$2" >"$place/bin/$1"
  chmod +x "$place/bin/$1"
}
stub cmake "case \$* in
  --build*) [ ! -e '$place/broken' ] || { echo 'a.cpp:1: error: oops'; exit 1; }
    mkdir -p '$repo/build/release/trainer'
    printf '#!/bin/sh\necho ran \"\$@\"; exit 75\n' >'$repo/build/release/trainer/infini'
    chmod +x '$repo/build/release/trainer/infini' ;;
  *) touch '$repo/build/release/build.ninja' ;;
esac"
stub ctest ""
stub apt-get ""
stub apt-cache "exit 1"
stub dpkg-query "for name do :; done
case \$(cat '$place/missing') in *\"[\$name]\"*) exit 1 ;; esac; printf 'ii '"
stub id "cat '$place/uid'"
echo 0 >"$place/uid"
: >"$place/missing"
PATH=$place/bin:$PATH

# start ARGUMENTS...: runs the front door; $status, $said and $calls tell what happened.
start() {
  : >"$calls"
  status=0
  ./infini "$@" >"$place/said" 2>&1 || status=$?
}
expect() {
  what=$1
  shift
  if "$@" >/dev/null; then return; fi
  echo "FAILED: $what"
  echo "exit $status; said:"
  cat "$place/said"
  echo "calls:"
  cat "$calls"
  exit 1
}
called() { grep -q -e "^$1" "$calls"; }
not_called() { ! called "$1"; }
said() { grep -q -F -e "$1" "$place/said"; }

OMPI_COMM_WORLD_RANK=0 start train
expect "under mpirun nothing is built" not_called cmake
expect "... and a missing program is explained" said "run ./infini once without mpirun"
expect "... with exit code 2" [ "$status" = 2 ]

touch "$place/broken"
start train
expect "a failing build shows the end of its log" said "error: oops"
expect "... with exit code 1" [ "$status" = 1 ]
rm "$place/broken"

start train a.yaml "x=a b"
expect "the first start builds" called "cmake --build"
expect "... without looking for packages that are there" not_called apt-get
expect "... and runs the program" said "ran train a.yaml x=a b"
expect "... whose exit code is passed on" [ "$status" = 75 ]

start train
expect "the second start does not call cmake" not_called cmake
expect "... nor looks for packages" not_called dpkg-query

sleep 0.02
touch tests/a.cpp
start train
expect "tests are no reason to rebuild the program" not_called cmake
touch tensor/a.cpp
start train
expect "a newer source is" called "cmake --build"
expect "... without configuring again" not_called "cmake --preset"
sleep 0.02
rm tensor/a.cpp
start train
expect "a removed source is" called "cmake --build"

SLURM_PROCID=1 start train
expect "under srun the program runs" said "ran train"

start test -R House
expect "tests are built as a whole" called "cmake --build .*--target all"
expect "... and run with the given options" called "ctest .*-R House"
start test
expect "an up-to-date test build is not rebuilt" not_called cmake

echo "[libhdf5-dev] [g++]" >"$place/missing"
touch tensor/b.cpp
start train
expect "root installs what is missing" called "apt-get install -y .*g++ libhdf5-dev$"
expect "... after an update" called "apt-get update"

echo "[libdnnl-dev]" >"$place/missing"
touch tensor/c.cpp
start train
expect "oneDNN is not needed where there is none" not_called apt-get
expect "... and the program runs" said "ran train"

echo "[libhdf5-dev]" >"$place/missing"
touch tensor/d.cpp
INFINI_INSTALL=0 start train
expect "without permission it says what to install" said "apt-get install libhdf5-dev"
expect "... with exit code 4" [ "$status" = 4 ]
expect "... and installs nothing" not_called apt-get

stub sudo ""
echo 1000 >"$place/uid"
start train
expect "a user installs with sudo" called "sudo env DEBIAN_FRONTEND=noninteractive apt-get install"

echo "the front door opens"
