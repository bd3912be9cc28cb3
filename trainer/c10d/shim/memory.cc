// Memory of the host: tensors over what Rust holds, memory that GPUs read by themselves, and the way from there to a GPU.
//
// Nothing of this is linked to CUDA: streams and events are those of whatever device has registered itself.
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "c10d.h"
#include "failure.h"
#include "tensors.h"

using forebay::guarded;
using forebay::tensors_of;

namespace {

// The stream of the copies to a GPU, one a thread and device.
c10::Stream copies_to(const c10::impl::VirtualGuardImpl& devices, c10::Device device) {
  thread_local std::map<c10::DeviceIndex, c10::Stream> streams;
  const auto found = streams.find(device.index());
  return found != streams.end() ? found->second
                                : streams.emplace(device.index(), devices.getStreamFromGlobalPool(device)).first->second;
}

struct Transfer {
  c10::impl::VirtualGuardImpl devices;
  c10::Device device;
  c10::Stream copies;
  // Copied from, so they stay until the copies are done.
  std::vector<at::Tensor> from;
  c10::Event done;

  explicit Transfer(c10::Device device)
      : devices(device.type()), device(device), copies(copies_to(devices, device)), done(device.type()) {}

  std::vector<at::Tensor> begin(std::vector<at::Tensor> tensors) {
    const auto computes = devices.getStream(device);
    const c10::StreamGuard beside(copies);
    std::vector<at::Tensor> to;
    for (auto& tensor : tensors) {
      from.push_back(tensor.is_pinned() ? tensor : tensor.pin_memory());
      to.push_back(at::empty(tensor.sizes(), tensor.options().device(device)));
      to.back().copy_(from.back(), /*non_blocking=*/true);
      // Its memory is not given to another copy before what it is computed with is done.
      to.back().record_stream(computes);
    }
    done.record(copies);
    return to;
  }

  ~Transfer() {
    try {
      // Not marked: it failed while it was begun.
      done.was_marked_for_recording() ? done.synchronize() : devices.synchronizeStream(copies);
    } catch (const std::exception&) {
      // The device has failed, and whatever is asked of it next says so.
    }
  }
};

} // namespace

extern "C" char* forebay_c10d_bytes(void* tensor, const void** data, size_t* bytes) {
  return guarded([&] {
    const auto& of = *static_cast<at::Tensor*>(tensor);
    TORCH_CHECK(of.is_cpu() && of.is_contiguous(), "expected a contiguous tensor of the host");
    *data = of.const_data_ptr();
    *bytes = of.nbytes();
  });
}

extern "C" char* forebay_c10d_over(
    void* data, const int64_t* shape, size_t dimensions, int8_t kind, void* owner, void (*drop)(void* owner), void** tensor) {
  return guarded([&] {
    // Dropped on failure too.
    const std::shared_ptr<void> held(owner, drop);
    const auto options = at::TensorOptions().dtype(static_cast<c10::ScalarType>(kind));
    *tensor = new at::Tensor(at::from_blob(data, at::IntArrayRef(shape, dimensions), [held](void*) {}, options));
  });
}

extern "C" char* forebay_c10d_pinned(size_t bytes, void** tensor, void** data) {
  return guarded([&] {
    auto made = at::empty({static_cast<int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    *data = made.data_ptr();
    *tensor = new at::Tensor(std::move(made));
  });
}

extern "C" char* forebay_c10d_transfer_begin(void* const* from, size_t count, int device, void** to, void** transfer) {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    auto made = std::make_unique<Transfer>(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device)));
    auto copies = made->begin(tensors_of(from, count));
    for (size_t i = 0; i < count; ++i) {
      to[i] = new at::Tensor(std::move(copies[i]));
    }
    *transfer = made.release();
  });
}

extern "C" char* forebay_c10d_transfer_arrive(void* transfer) {
  return guarded([&] {
    const auto* of = static_cast<Transfer*>(transfer);
    of->done.block(of->devices.getStream(of->device));
  });
}

extern "C" void forebay_c10d_transfer_free(void* transfer) {
  delete static_cast<Transfer*>(transfer);
}
