// c10d::Reducer: the bucketed all-reduce that overlaps with backward, summing instead of averaging.
//
// The gradient of a step is the mean over its micro-batches whatever the number of processes, so the loss is scaled
// before backward and the buckets are summed: the hook below does not divide by the world size, unlike the default.
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "c10d.h"
#include "failure.h"
#include "group.h"
#include "tensors.h"

namespace forebay {
namespace {

using Clock = std::chrono::steady_clock;

// A bucket of a step: its buffer, what this process had put in, and the sum over the processes on its way.
struct Bucket {
  at::Tensor buffer;
  at::Tensor own;
  c10::intrusive_ptr<c10d::Work> work;
};

// What a step has handed over so far; shared with the callbacks of its operations.
struct Step {
  std::mutex mutex;
  Clock::time_point handed_over;
  Clock::time_point done;
};

struct HookState {
  c10::intrusive_ptr<AbortableGloo> backend;
  std::shared_ptr<Step> step;
  std::shared_ptr<std::vector<Bucket>> buckets;
  // By bucket, kept from step to step.
  std::shared_ptr<std::vector<at::Tensor>> copies;
};

// Starts the sum of a bucket and does not wait for it: backward must end with every gradient complete even where a peer is
// lost, because this process's own part is kept for another try. Hence the copy, and hence no exception.
class SumHook final : public c10d::CppCommHookInterface<HookState> {
 public:
  explicit SumHook(HookState state) : c10d::CppCommHookInterface<HookState>(std::move(state)) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    const at::NoGradGuard no_grad;
    auto buffer = bucket.getBufferRef();
    auto& copies = *state_.copies;
    copies.resize(std::max(copies.size(), bucket.getIndex() + 1));
    auto& own = copies[bucket.getIndex()];
    if (!own.defined() || own.sizes() != buffer.sizes()) {
      own = at::empty_like(buffer);
    }
    own.copy_(buffer);
    {
      std::lock_guard<std::mutex> lock(state_.step->mutex);
      state_.step->handed_over = Clock::now();
    }
    state_.buckets->push_back(Bucket{buffer, own, start(buffer)});
    // The reducer has nothing to wait for: the buffer is where the sum will be.
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::TensorType::get());
    future->markCompleted(c10::IValue(buffer));
    return future;
  }

 private:
  c10::intrusive_ptr<c10d::Work> start(at::Tensor& buffer) {
    try {
      state_.backend->control->check();
      std::vector<at::Tensor> tensors{buffer};
      c10d::AllreduceOptions options;
      options.reduceOp = c10d::ReduceOp::SUM;
      auto work = state_.backend->allreduce(tensors, options);
      // The first failure aborts the group, so that the peers that are no neighbours of the dead one learn of it.
      work->getFuture()->addCallback([control = state_.backend->control, step = state_.step](c10::ivalue::Future& done) {
        {
          std::lock_guard<std::mutex> lock(step->mutex);
          step->done = Clock::now();
        }
        if (done.hasError()) {
          control->abort(done.tryRetrieveErrorMessage());
        }
      });
      return work;
    } catch (const std::exception& error) {
      state_.backend->control->abort(error.what());
      return {};
    }
  }
};

struct Reduction {
  std::unique_ptr<c10d::Reducer> reducer;
  std::shared_ptr<Step> step;
  std::shared_ptr<std::vector<Bucket>> buckets;
  std::shared_ptr<AbortControl> control;

  // Gives every gradient back what this process had put in.
  void restore() {
    const at::NoGradGuard no_grad;
    for (auto& bucket : *buckets) {
      bucket.buffer.copy_(bucket.own);
    }
    buckets->clear();
  }

  // Waits for all sums, of which nothing is left if one failed.
  void wait() {
    std::string failure;
    for (const auto& bucket : *buckets) {
      try {
        if (!bucket.work) {
          control->check();
        } else {
          control->wait(*bucket.work);
        }
      } catch (const std::exception& error) {
        if (failure.empty()) {
          failure = error.what();
          control->abort(failure);
        }
      }
    }
    if (!failure.empty()) {
      restore();
      throw std::runtime_error(failure);
    }
  }
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
    auto reduction = std::make_unique<Reduction>();
    reduction->step = std::make_shared<forebay::Step>();
    reduction->buckets = std::make_shared<std::vector<forebay::Bucket>>();
    reduction->control = members.backend->control;
    reduction->reducer = forebay::make_reducer(members, forebay::tensors_of(parameters, count), first_bucket_bytes, bucket_bytes);
    reduction->reducer->register_comm_hook(
        std::make_unique<forebay::SumHook>(forebay::HookState{
            members.backend, reduction->step, reduction->buckets, std::make_shared<std::vector<at::Tensor>>()}));
    *reducer = reduction.release();
  });
}

extern "C" char* forebay_c10d_reducer_prepare_for_forward(void* reducer) {
  return guarded([&] {
    auto& reduction = *static_cast<Reduction*>(reducer);
    reduction.buckets->clear();
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
    reduction.wait();
    reduction.reducer->check_finalized();
    std::lock_guard<std::mutex> lock(reduction.step->mutex);
    const std::chrono::duration<double> exposed = reduction.step->done - reduction.step->handed_over;
    *exposed_seconds = std::max(exposed.count(), 0.0);
  });
}

extern "C" char* forebay_c10d_reducer_restore(void* reducer) {
  return guarded([&] { static_cast<Reduction*>(reducer)->restore(); });
}

extern "C" char* forebay_c10d_reducer_free(void* reducer) {
  return guarded([&] { delete static_cast<Reduction*>(reducer); });
}

extern "C" char* forebay_c10d_set_gradients(void* const* parameters, void* const* gradients, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) {
      static_cast<at::Tensor*>(parameters[i])->mutable_grad() = *static_cast<at::Tensor*>(gradients[i]);
    }
  });
}

extern "C" char* forebay_c10d_clear_gradients(void* const* parameters, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) {
      // Not detach_(): a gradient that views a bucket cannot be detached.
      static_cast<at::Tensor*>(parameters[i])->mutable_grad() = at::Tensor();
    }
  });
}
