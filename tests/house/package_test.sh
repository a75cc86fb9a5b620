#!/bin/sh
# Installs the build tree into a folder of its own, builds the project in package/ against it and
# runs it; the installed program must start as well.
# Usage: package_test.sh BUILD_DIR SOURCE_DIR
set -eu
build=$1
source=$2
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

cmake --install "$build" --prefix "$place/usr" >"$place/log" || { tail "$place/log"; exit 1; }
"$place/usr/bin/infini" --help | grep -q train
cmake -G Ninja -S "$source/tests/house/package" -B "$place/build" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_PREFIX_PATH="$place/usr" >"$place/log" || { tail -n 30 "$place/log"; exit 1; }
cmake --build "$place/build" >"$place/log" || { tail -n 30 "$place/log"; exit 1; }
"$place/build/uses_infini"
echo "find_package(infini) links and runs"
