// The C surface between Rust and libtorch's c10d.
//
// Every function that can fail returns null, or a message that the caller gives back to forebay_c10d_text_free. No
// exception leaves a function. A `void* tensor` is an at::Tensor*, as tch hands it out.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// A key-value store implemented in Rust. `get` and `wait` block; on failure they write the message to `error` with
// forebay_c10d_string_assign and return false, which throws in C++ and so cancels a rendezvous.
struct ForebayStore {
  void* context;
  bool (*set)(void* context, const char* key, size_t key_bytes, const uint8_t* value, size_t value_bytes, void* error);
  bool (*get)(void* context, const char* key, size_t key_bytes, void* value, void* error);
  bool (*add)(void* context, const char* key, size_t key_bytes, int64_t amount, int64_t* sum, void* error);
  bool (*check)(void* context, const char* key, size_t key_bytes, bool* present, void* error);
  bool (*wait)(void* context, const char* key, size_t key_bytes, int64_t timeout_ms, void* error);
  void (*drop)(void* context);
};

void forebay_c10d_string_assign(void* string, const uint8_t* bytes, size_t count);
void forebay_c10d_text_free(char* text);

// Connects a full mesh of `world` processes; takes over `store` whatever the outcome. Blocks.
char* forebay_c10d_group_connect(
    ForebayStore store, const char* prefix, int rank, int world, const char* hostname, int64_t timeout_ms,
    int64_t silence_ms, void** group);
// Blocks until the tensors are done; the group is aborted on failure.
char* forebay_c10d_group_all_reduce_sum(void* group, void* const* tensors, size_t count);
char* forebay_c10d_group_broadcast(void* group, void* const* tensors, size_t count, int root);
// Rank `r` gets the elements of `input` that follow those of the ranks below, `input_counts[r]` of them; both are flat.
char* forebay_c10d_group_all_to_all(
    void* group, void* output, void* input, const int64_t* output_counts, const int64_t* input_counts, size_t world);
void forebay_c10d_group_free(void* group);

// A handle outlives its group, and abort may be called from any thread at any time.
void* forebay_c10d_abort_handle(void* group);
char* forebay_c10d_abort(void* handle, const char* reason);
void forebay_c10d_abort_handle_free(void* handle);

char* forebay_c10d_reducer_new(
    void* group, void* const* parameters, size_t count, int64_t first_bucket_bytes, int64_t bucket_bytes, void** reducer);
char* forebay_c10d_reducer_prepare_for_forward(void* reducer);
char* forebay_c10d_reducer_prepare_for_backward(void* reducer);
// On failure the gradients are what this process had put in.
char* forebay_c10d_reducer_finish(void* reducer, double* exposed_seconds);
// Makes them so after a success, until the next step begins.
char* forebay_c10d_reducer_restore(void* reducer);
char* forebay_c10d_reducer_free(void* reducer);

// Loads the kernels for GPUs, if they are there. Before anything else of libtorch.
char* forebay_c10d_load_cuda();
// From now on the same inputs give the same bits on the same kind of device. Before the first computation.
char* forebay_c10d_deterministic();

// Where the elements of a contiguous tensor of the host lie, and how many bytes they take.
char* forebay_c10d_bytes(void* tensor, const void** data, size_t* bytes);
// A tensor of `shape` and scalar type `kind` over memory of Rust; `drop` is called with `owner` when nothing refers to it any
// more, or on failure. The tensor is a new at::Tensor.
char* forebay_c10d_over(
    void* data, const int64_t* shape, size_t dimensions, int8_t kind, void* owner, void (*drop)(void* owner), void** tensor);
// Memory of the host that GPUs read by themselves, in a new at::Tensor of bytes.
char* forebay_c10d_pinned(size_t bytes, void** tensor, void** data);
// Begins to copy tensors of the host to GPU `device`, beside whatever it computes; `to` gets a new at::Tensor each.
char* forebay_c10d_transfer_begin(void* const* from, size_t count, int device, void** to, void** transfer);
// What this thread has the GPU compute from now on comes after the copies.
char* forebay_c10d_transfer_arrive(void* transfer);
// Blocks until the copies are done.
void forebay_c10d_transfer_free(void* transfer);

// A DLManagedTensor over the memory of a tensor, and back, which takes it over unless it fails.
char* forebay_c10d_dlpack_of(void* tensor, void** managed);
char* forebay_c10d_dlpack_tensor(void* managed, void** tensor);
void forebay_c10d_dlpack_free(void* managed);

// Of all elements of all tensors.
char* forebay_c10d_norm(void* const* tensors, size_t count, double* norm);
char* forebay_c10d_scale(void* const* tensors, size_t count, double factor);

struct ForebayAdamw {
  // With the one that is applied.
  double steps;
  double learning_rate;
  double beta1;
  double beta2;
  double weight_decay;
  double epsilon;
};
char* forebay_c10d_adamw(
    void* const* parameters, void* const* gradients, void* const* first, void* const* second, size_t count, const ForebayAdamw* settings);

char* forebay_c10d_set_gradients(void* const* parameters, void* const* gradients, size_t count);
char* forebay_c10d_clear_gradients(void* const* parameters, size_t count);

} // extern "C"
