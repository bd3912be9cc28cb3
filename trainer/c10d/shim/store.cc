// See store.h.
#include "store.h"

#include <stdexcept>

namespace forebay {
namespace {

void require(bool done, const std::string& error) {
  if (!done) {
    throw std::runtime_error(error);
  }
}

} // namespace

c10::intrusive_ptr<c10d::Store> RustStore::clone() {
  return c10::make_intrusive<RustStore>(context_, timeout_);
}

void RustStore::set(const std::string& key, const std::vector<uint8_t>& value) {
  std::string error;
  const auto& calls = context_->calls;
  require(calls.set(calls.context, key.data(), key.size(), value.data(), value.size(), &error), error);
}

std::vector<uint8_t> RustStore::get(const std::string& key) {
  std::string value, error;
  const auto& calls = context_->calls;
  require(calls.get(calls.context, key.data(), key.size(), &value, &error), error);
  return std::vector<uint8_t>(value.begin(), value.end());
}

int64_t RustStore::add(const std::string& key, int64_t amount) {
  std::string error;
  int64_t sum = 0;
  const auto& calls = context_->calls;
  require(calls.add(calls.context, key.data(), key.size(), amount, &sum, &error), error);
  return sum;
}

bool RustStore::deleteKey(const std::string& key) {
  throw std::runtime_error("key `" + key + "`: this store does not delete keys");
}

bool RustStore::check(const std::vector<std::string>& keys) {
  const auto& calls = context_->calls;
  for (const auto& key : keys) {
    std::string error;
    bool present = false;
    require(calls.check(calls.context, key.data(), key.size(), &present, &error), error);
    if (!present) {
      return false;
    }
  }
  return true;
}

int64_t RustStore::getNumKeys() {
  throw std::runtime_error("this store does not count its keys");
}

void RustStore::wait(const std::vector<std::string>& keys) {
  wait(keys, timeout_);
}

void RustStore::wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) {
  const auto& calls = context_->calls;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (const auto& key : keys) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    std::string error;
    require(calls.wait(calls.context, key.data(), key.size(), std::max<int64_t>(left.count(), 0), &error), error);
  }
}

} // namespace forebay

extern "C" void forebay_c10d_string_assign(void* string, const uint8_t* bytes, size_t count) {
  try {
    static_cast<std::string*>(string)->assign(reinterpret_cast<const char*>(bytes), count);
  } catch (...) {
    // Out of memory while copying a short text: the string stays empty, and the caller still reports a failure.
  }
}
