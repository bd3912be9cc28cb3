// The few declarations of Gloo that libtorch's ProcessGroupGloo.hpp names. The libtorch wheel exports Gloo's symbols
// but ships none of its headers. Only what is called by name is declared, nothing is ever constructed from here, and
// the build is pinned to libtorch 2.11 (see build.rs); the start-up self-test exercises every symbol below.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace gloo {
namespace transport {

class Device;
class Pair;

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = 0;
};

namespace tcp {

// The concrete pair of the TCP transport; its first base is transport::Pair.
class Pair {
 public:
  std::exception_ptr signalExceptionExternal(const std::string& message);
};

} // namespace tcp
} // namespace transport

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
  std::unique_ptr<transport::Pair>& getPair(int rank);
};

namespace rendezvous {

class Store {
 public:
  virtual ~Store();
  virtual void set(const std::string& key, const std::vector<char>& value) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) = 0;
};

} // namespace rendezvous
} // namespace gloo
