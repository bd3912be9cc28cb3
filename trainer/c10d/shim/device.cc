// The parts of libtorch for GPUs, which are a library of their own.
#include <ATen/Context.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include <dlfcn.h>

#include "c10d.h"
#include "failure.h"

using forebay::guarded;

extern "C" char* forebay_c10d_load_cuda() {
  return guarded([&] {
    // Registers its kernels while it is loaded, before libtorch asks for the first time whether there are any.
    if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      throw std::runtime_error(::dlerror());
    }
  });
}

extern "C" char* forebay_c10d_deterministic() {
  return guarded([&] {
    // cuBLAS reads it when its first handle is made; a value that is there stays.
    ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(/*b=*/true, /*warn_only=*/false);
    context.setDeterministicFillUninitializedMemory(false);
    context.setBenchmarkCuDNN(false);
    context.setDeterministicCuDNN(true);
  });
}
