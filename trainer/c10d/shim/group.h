// A Gloo process group that can be aborted.
//
// ProcessGroupGloo::abort does nothing in libtorch 2.11: survivors of a frozen peer wait out the whole timeout. Here an
// abort raises an exception in every pair of the TCP transport, which wakes whatever waits on it within milliseconds
// and closes the sockets, so that the peers learn of it too.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace forebay {

// What an abort needs, shared with handles that may outlive the group.
class AbortControl {
 public:
  void arm(std::vector<gloo::transport::tcp::Pair*> pairs);
  // After this an abort touches nothing; called before the pairs are destroyed.
  void disarm();
  void abort(const std::string& reason);
  // Throws if the group was aborted, naming the reason.
  void check();
  // Waits for an operation of the group, and throws what it failed of.
  //
  // After an abort it may be left behind: Gloo tells those who wait for an operation that its connection is gone, except where
  // some of its bytes are over and others are not. That one ends at the timeout of the group, without a connection to write from.
  void wait(c10d::Work& work);

 private:
  // Shared with callbacks that may outlive the group and this.
  struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
  };

  std::mutex mutex_;
  std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
  std::vector<gloo::transport::tcp::Pair*> pairs_;
  bool aborted_ = false;
  std::string reason_;
};

class AbortableGloo final : public c10d::ProcessGroupGloo {
 public:
  AbortableGloo(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, c10::intrusive_ptr<Options> options);
  ~AbortableGloo() override;

  // The reason of an abort if there was one, else what the operation itself reported.
  std::shared_ptr<AbortControl> control;

  // Groups of one process start their operations one after the other: each is written into libtorch's flight recorder, which all
  // share and whose table of groups (FlightRecorder::all_pg_status_) it touches before it takes its lock.
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors, const c10d::AllreduceOptions& options) override;
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors, const c10d::BroadcastOptions& options) override;
  c10::intrusive_ptr<c10d::Work> alltoall_base(
      at::Tensor& output,
      at::Tensor& input,
      std::vector<int64_t>& output_counts,
      std::vector<int64_t>& input_counts,
      const c10d::AllToAllOptions& options) override;

 private:
  bool busy();
};

// What Rust holds: the backend, and the c10d front that the Reducer asks for.
struct Group {
  c10::intrusive_ptr<AbortableGloo> backend;
  c10::intrusive_ptr<c10d::ProcessGroup> front;
};

} // namespace forebay
