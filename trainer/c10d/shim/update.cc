// Kernels over lists of tensors: one pass, and on a GPU one launch, for all parameters.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>

#include "c10d.h"
#include "failure.h"
#include "tensors.h"

using forebay::guarded;
using forebay::tensors_of;

extern "C" char* forebay_c10d_norm(void* const* tensors, size_t count, double* norm) {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    const auto norms = at::_foreach_norm(tensors_of(tensors, count), 2);
    *norm = at::stack(norms).norm().item<double>();
  });
}

extern "C" char* forebay_c10d_scale(void* const* tensors, size_t count, double factor) {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    at::_foreach_mul_(tensors_of(tensors, count), factor);
  });
}

extern "C" char* forebay_c10d_adamw(
    void* const* parameters, void* const* gradients, void* const* first, void* const* second, size_t count, const ForebayAdamw* settings) {
  return guarded([&] {
    if (count == 0) {
      return;
    }
    const at::NoGradGuard no_grad;
    const auto of = tensors_of(parameters, count);
    // Read only, so one serves all.
    const auto steps = at::full({}, settings->steps, of[0].options().dtype(at::kFloat).requires_grad(false));
    at::_fused_adamw_(
        of, tensors_of(gradients, count), tensors_of(first, count), tensors_of(second, count), {},
        std::vector<at::Tensor>(count, steps), settings->learning_rate, settings->beta1, settings->beta2, settings->weight_decay,
        settings->epsilon, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/std::nullopt, /*found_inf=*/std::nullopt);
  });
}
