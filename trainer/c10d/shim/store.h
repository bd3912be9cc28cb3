// A c10d::Store whose keys live in Rust.
//
// Promises: an error of the Rust side is thrown here, so that a blocked rendezvous ends when the store says so.
// Deliberately absent: deletion, listing and the extended API; the Gloo rendezvous does not use them.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "c10d.h"

namespace forebay {

// Frees the Rust side once, when the last clone is gone.
class RustStoreContext {
 public:
  explicit RustStoreContext(ForebayStore calls) : calls(calls) {}
  ~RustStoreContext() { calls.drop(calls.context); }
  RustStoreContext(const RustStoreContext&) = delete;
  RustStoreContext& operator=(const RustStoreContext&) = delete;

  const ForebayStore calls;
};

class RustStore final : public c10d::Store {
 public:
  RustStore(std::shared_ptr<RustStoreContext> context, std::chrono::milliseconds timeout)
      : c10d::Store(timeout), context_(std::move(context)) {}

  c10::intrusive_ptr<c10d::Store> clone() override;
  void set(const std::string& key, const std::vector<uint8_t>& value) override;
  std::vector<uint8_t> get(const std::string& key) override;
  int64_t add(const std::string& key, int64_t amount) override;
  bool deleteKey(const std::string& key) override;
  bool check(const std::vector<std::string>& keys) override;
  int64_t getNumKeys() override;
  void wait(const std::vector<std::string>& keys) override;
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override;

 private:
  std::shared_ptr<RustStoreContext> context_;
};

} // namespace forebay
