// Tensors as other libraries take them, and theirs as libtorch's: DLPack's DLManagedTensor (dmlc/dlpack).
#include <ATen/DLConvertor.h>

#include "c10d.h"
#include "failure.h"

using forebay::guarded;

extern "C" char* forebay_c10d_dlpack_of(void* tensor, void** managed) {
  return guarded([&] { *managed = at::toDLPack(static_cast<at::Tensor*>(tensor)->detach()); });
}

extern "C" char* forebay_c10d_dlpack_tensor(void* managed, void** tensor) {
  return guarded([&] { *tensor = new at::Tensor(at::fromDLPack(static_cast<DLManagedTensor*>(managed))); });
}

extern "C" void forebay_c10d_dlpack_free(void* managed) {
  auto* of = static_cast<DLManagedTensor*>(managed);
  if (of->deleter != nullptr) {
    of->deleter(of);
  }
}
