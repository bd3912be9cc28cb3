// How a C++ exception becomes a message for Rust.
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include <c10/util/Exception.h>

namespace forebay {

inline char* text(const std::string& message) {
  // One line: what() of c10 carries a stack trace after the first.
  return ::strdup(message.substr(0, message.find('\n')).c_str());
}

// Runs `body`; null if it returned, else the message of what it threw.
template <typename Body>
char* guarded(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return text(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return text(error.what());
  } catch (...) {
    return text("an exception of unknown type");
  }
}

} // namespace forebay
