// Lists of tensors as Rust passes them.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace forebay {

inline std::vector<at::Tensor> tensors_of(void* const* tensors, size_t count) {
  std::vector<at::Tensor> all;
  all.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    all.push_back(*static_cast<at::Tensor*>(tensors[i]));
  }
  return all;
}

} // namespace forebay
