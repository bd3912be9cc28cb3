// c10d::Reducer: the bucketed all-reduce that overlaps with backward, summing instead of averaging.
//
// The gradient of a step is the mean over its micro-batches whatever the number of processes, so the loss is scaled
// before backward and the buckets are summed: the hook below does not divide by the world size, unlike the default.
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <chrono>
#include <mutex>

#include "c10d.h"
#include "failure.h"
#include "group.h"

namespace forebay {
namespace {

using Clock = std::chrono::steady_clock;

// When the last bucket of a step was handed over and when the last one was done.
struct Clocks {
  std::mutex mutex;
  Clock::time_point handed_over;
  Clock::time_point done;
};

struct HookState {
  c10::intrusive_ptr<AbortableGloo> backend;
  std::shared_ptr<Clocks> clocks;
};

class SumHook final : public c10d::CppCommHookInterface<HookState> {
 public:
  explicit SumHook(HookState state) : c10d::CppCommHookInterface<HookState>(std::move(state)) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    state_.backend->control->check();
    {
      std::lock_guard<std::mutex> lock(state_.clocks->mutex);
      state_.clocks->handed_over = Clock::now();
    }
    std::vector<at::Tensor> tensors{bucket.getBufferRef()};
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp::SUM;
    auto future = state_.backend->allreduce(tensors, options)->getFuture();
    // The first failure aborts the group, so that the peers that are no neighbours of the dead one learn of it.
    future->addCallback([control = state_.backend->control, clocks = state_.clocks](c10::ivalue::Future& done) {
      {
        std::lock_guard<std::mutex> lock(clocks->mutex);
        clocks->done = Clock::now();
      }
      if (done.hasError()) {
        control->abort(done.tryRetrieveErrorMessage());
      }
    });
    return future;
  }
};

struct Reduction {
  std::unique_ptr<c10d::Reducer> reducer;
  std::shared_ptr<Clocks> clocks;
  std::shared_ptr<AbortControl> control;
};

std::unique_ptr<c10d::Reducer> make_reducer(
    const Group& group, std::vector<at::Tensor> parameters, int64_t first_bucket_bytes, int64_t bucket_bytes) {
  const std::vector<bool> sparse(parameters.size(), false);
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
      parameters, {static_cast<size_t>(first_bucket_bytes), static_cast<size_t>(bucket_bytes)}, sparse));
  // Backward produces gradients from the last parameter to the first.
  std::reverse(buckets.begin(), buckets.end());
  return std::make_unique<c10d::Reducer>(
      std::move(parameters),
      std::move(buckets),
      group.front,
      sparse,
      bucket_bytes,
      /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/true,
      std::unordered_map<size_t, std::string>{},
      first_bucket_bytes,
      /*skip_all_reduce_unused_params=*/false,
      /*use_python_reducer=*/false,
      std::vector<int64_t>{});
}

} // namespace
} // namespace forebay

using forebay::guarded;
using forebay::Reduction;

extern "C" char* forebay_c10d_reducer_new(
    void* group, void* const* parameters, size_t count, int64_t first_bucket_bytes, int64_t bucket_bytes, void** reducer) {
  return guarded([&] {
    const auto& members = *static_cast<forebay::Group*>(group);
    std::vector<at::Tensor> all;
    for (size_t i = 0; i < count; ++i) {
      all.push_back(*static_cast<at::Tensor*>(parameters[i]));
    }
    auto reduction = std::make_unique<Reduction>();
    reduction->clocks = std::make_shared<forebay::Clocks>();
    reduction->control = members.backend->control;
    reduction->reducer = forebay::make_reducer(members, std::move(all), first_bucket_bytes, bucket_bytes);
    reduction->reducer->register_comm_hook(
        std::make_unique<forebay::SumHook>(forebay::HookState{members.backend, reduction->clocks}));
    *reducer = reduction.release();
  });
}

extern "C" char* forebay_c10d_reducer_prepare_for_forward(void* reducer) {
  return guarded([&] {
    auto& reduction = *static_cast<Reduction*>(reducer);
    reduction.control->check();
    try {
      // After the first step the buckets follow the order in which gradients really came; the ranks agree on rank 0's.
      if (reduction.reducer->should_rebuild_buckets()) {
        reduction.reducer->rebuild_buckets();
      }
    } catch (const std::exception& error) {
      reduction.control->abort(error.what());
      throw;
    }
    reduction.reducer->prepare_for_forward();
  });
}

extern "C" char* forebay_c10d_reducer_prepare_for_backward(void* reducer) {
  return guarded([&] { static_cast<Reduction*>(reducer)->reducer->prepare_for_backward({}); });
}

extern "C" char* forebay_c10d_reducer_finish(void* reducer, double* exposed_seconds) {
  return guarded([&] {
    auto& reduction = *static_cast<Reduction*>(reducer);
    reduction.reducer->check_finalized();
    std::lock_guard<std::mutex> lock(reduction.clocks->mutex);
    const std::chrono::duration<double> exposed = reduction.clocks->done - reduction.clocks->handed_over;
    *exposed_seconds = std::max(exposed.count(), 0.0);
  });
}

extern "C" char* forebay_c10d_reducer_free(void* reducer) {
  return guarded([&] { delete static_cast<Reduction*>(reducer); });
}

extern "C" char* forebay_c10d_clear_gradients(void* const* parameters, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) {
      // Not detach_(): a gradient that views a bucket cannot be detached.
      static_cast<at::Tensor*>(parameters[i])->mutable_grad() = at::Tensor();
    }
  });
}
