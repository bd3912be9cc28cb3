// See group.h.
#include "group.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <stdexcept>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/version.h>

#include "c10d.h"
#include "failure.h"
#include "sockets.h"
#include "store.h"
#include "tensors.h"

// The declarations of Gloo below gloo/ and the layout of ProcessGroupGloo were checked against this version.
static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR == 11, "expected libtorch 2.11: run `make setup`");

namespace forebay {

namespace {
// An operation whose connections are gone fails within milliseconds, if it does.
constexpr int kSlices = 10;
constexpr std::chrono::milliseconds kSlice(50);
} // namespace

void AbortControl::arm(std::vector<gloo::transport::tcp::Pair*> pairs) {
  std::lock_guard<std::mutex> lock(mutex_);
  pairs_ = std::move(pairs);
}

void AbortControl::disarm() {
  std::lock_guard<std::mutex> lock(mutex_);
  pairs_.clear();
}

void AbortControl::abort(const std::string& reason) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (aborted_) {
      return;
    }
    aborted_ = true;
    reason_ = reason;
    for (auto* pair : pairs_) {
      pair->signalExceptionExternal(reason);
    }
  }
  std::lock_guard<std::mutex> lock(bell_->mutex);
  bell_->rung.notify_all();
}

void AbortControl::wait(c10d::Work& work) {
  const auto future = work.getFuture();
  future->addCallback([bell = bell_](c10::ivalue::Future&) {
    std::lock_guard<std::mutex> lock(bell->mutex);
    bell->rung.notify_all();
  });
  const auto aborted = [&] {
    std::lock_guard<std::mutex> lock(mutex_);
    return aborted_;
  };
  {
    std::unique_lock<std::mutex> lock(bell_->mutex);
    bell_->rung.wait(lock, [&] { return future->completed() || aborted(); });
    // In slices, so that a process that was frozen meanwhile does not take that time for the operation's.
    for (int slice = 0; slice < kSlices && !future->completed(); ++slice) {
      bell_->rung.wait_for(lock, kSlice, [&] { return future->completed(); });
    }
  }
  if (!future->completed()) {
    check();
  }
  work.wait();
}

void AbortControl::check() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (aborted_) {
    throw std::runtime_error("process group aborted: " + reason_);
  }
}

AbortableGloo::AbortableGloo(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, c10::intrusive_ptr<Options> options)
    : c10d::ProcessGroupGloo(store, rank, world, std::move(options)), control(std::make_shared<AbortControl>()) {
  // Taken now, while every pair is connected: asking for a broken pair later could try to connect it again.
  std::vector<gloo::transport::tcp::Pair*> pairs;
  for (const auto& context : contexts_) {
    for (int peer = 0; peer < world; ++peer) {
      if (peer == rank) {
        continue;
      }
      // transport::Pair is the first base of tcp::Pair, hence at the same address.
      if (auto* pair = reinterpret_cast<gloo::transport::tcp::Pair*>(context->getPair(peer).get())) {
        pairs.push_back(pair);
      }
    }
  }
  control->arm(std::move(pairs));
}

AbortableGloo::~AbortableGloo() {
  // The base waits for its queue to drain: with a frozen peer that would be the whole timeout.
  if (busy()) {
    control->abort("the process group was dropped while an operation ran");
  }
  control->disarm();
}

namespace {
std::mutex& starting() {
  static std::mutex mutex;
  return mutex;
}
} // namespace

c10::intrusive_ptr<c10d::Work> AbortableGloo::allreduce(std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions& options) {
  std::lock_guard<std::mutex> lock(starting());
  return ProcessGroupGloo::allreduce(tensors, options);
}

c10::intrusive_ptr<c10d::Work> AbortableGloo::broadcast(std::vector<at::Tensor>& tensors, const c10d::BroadcastOptions& options) {
  std::lock_guard<std::mutex> lock(starting());
  return ProcessGroupGloo::broadcast(tensors, options);
}

c10::intrusive_ptr<c10d::Work> AbortableGloo::alltoall_base(
    at::Tensor& output,
    at::Tensor& input,
    std::vector<int64_t>& output_counts,
    std::vector<int64_t>& input_counts,
    const c10d::AllToAllOptions& options) {
  std::lock_guard<std::mutex> lock(starting());
  return ProcessGroupGloo::alltoall_base(output, input, output_counts, input_counts, options);
}

bool AbortableGloo::busy() {
  std::lock_guard<std::mutex> lock(workMutex_);
  const auto running = [](const auto& work) { return static_cast<bool>(work); };
  return !workQueue_.empty() || std::any_of(workInProgress_.begin(), workInProgress_.end(), running);
}

namespace {

// Starts one operation a tensor, then waits for all. The first failure aborts the group: only the neighbours of a dead
// peer see its reset, the others learn from this abort.
template <typename Start>
void run_all(Group& group, const std::vector<at::Tensor>& tensors, Start start) {
  group.backend->control->check();
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  try {
    for (const auto& tensor : tensors) {
      std::vector<at::Tensor> one{tensor};
      works.push_back(start(one));
    }
    for (const auto& work : works) {
      group.backend->control->wait(*work);
    }
  } catch (const std::exception& error) {
    group.backend->control->abort(error.what());
    // Nothing may write to the tensors after this function returned.
    for (const auto& work : works) {
      try {
        group.backend->control->wait(*work);
      } catch (const std::exception&) {
        // The first failure is the one that is reported.
      }
    }
    throw;
  }
}

} // namespace
} // namespace forebay

using forebay::Group;
using forebay::guarded;

extern "C" void forebay_c10d_text_free(char* text) {
  std::free(text);
}

extern "C" char* forebay_c10d_group_connect(
    ForebayStore store, const char* prefix, int rank, int world, const char* hostname, int64_t timeout_ms, int64_t silence_ms,
    void** group) {
  return guarded([&] {
    const std::chrono::milliseconds timeout(timeout_ms);
    auto context = std::make_shared<forebay::RustStoreContext>(store);
    auto plain = c10::make_intrusive<forebay::RustStore>(std::move(context), timeout);
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(plain));
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(hostname, /*lazyInit=*/false));
    const auto before = forebay::open_sockets();
    auto backend = c10::make_intrusive<forebay::AbortableGloo>(prefixed, rank, world, std::move(options));
    forebay::watch_silence(before, std::chrono::milliseconds(silence_ms));
    auto front = c10::make_intrusive<c10d::ProcessGroup>(prefixed, rank, world);
    front->setBackend(at::kCPU, c10d::ProcessGroup::GLOO, backend);
    // Gloo takes tensors of a GPU through pinned memory of the host.
    front->setBackend(at::kCUDA, c10d::ProcessGroup::GLOO, backend);
    front->setDefaultBackend(c10d::ProcessGroup::GLOO);
    *group = new Group{std::move(backend), std::move(front)};
  });
}

extern "C" char* forebay_c10d_group_all_reduce_sum(void* group, void* const* tensors, size_t count) {
  return guarded([&] {
    auto& members = *static_cast<Group*>(group);
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp::SUM;
    forebay::run_all(members, forebay::tensors_of(tensors, count), [&](std::vector<at::Tensor>& one) {
      return members.backend->allreduce(one, options);
    });
  });
}

extern "C" char* forebay_c10d_group_broadcast(void* group, void* const* tensors, size_t count, int root) {
  return guarded([&] {
    auto& members = *static_cast<Group*>(group);
    c10d::BroadcastOptions options;
    options.rootRank = root;
    forebay::run_all(members, forebay::tensors_of(tensors, count), [&](std::vector<at::Tensor>& one) {
      return members.backend->broadcast(one, options);
    });
  });
}

extern "C" char* forebay_c10d_group_all_to_all(
    void* group, void* output, void* input, const int64_t* output_counts, const int64_t* input_counts, size_t world) {
  return guarded([&] {
    auto& members = *static_cast<Group*>(group);
    std::vector<int64_t> receives(output_counts, output_counts + world);
    std::vector<int64_t> sends(input_counts, input_counts + world);
    auto& from = *static_cast<at::Tensor*>(input);
    forebay::run_all(members, {*static_cast<at::Tensor*>(output)}, [&](std::vector<at::Tensor>& one) {
      return members.backend->alltoall_base(one[0], from, receives, sends, c10d::AllToAllOptions());
    });
  });
}

extern "C" void forebay_c10d_group_free(void* group) {
  // A destructor that throws has nobody to tell: the group is gone either way.
  std::free(guarded([&] { delete static_cast<Group*>(group); }));
}

extern "C" void* forebay_c10d_abort_handle(void* group) {
  return new (std::nothrow) std::shared_ptr<forebay::AbortControl>(static_cast<Group*>(group)->backend->control);
}

extern "C" char* forebay_c10d_abort(void* handle, const char* reason) {
  return guarded([&] { (*static_cast<std::shared_ptr<forebay::AbortControl>*>(handle))->abort(reason); });
}

extern "C" void forebay_c10d_abort_handle_free(void* handle) {
  delete static_cast<std::shared_ptr<forebay::AbortControl>*>(handle);
}
