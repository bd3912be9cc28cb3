// See sockets.h.
#include "sockets.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace forebay {
namespace {

std::vector<std::pair<int, std::string>> sockets() {
  std::vector<std::pair<int, std::string>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const auto target = std::filesystem::read_symlink(entry.path(), error).string();
    if (!error && target.rfind("socket:", 0) == 0) {
      found.emplace_back(std::atoi(entry.path().filename().c_str()), target);
    }
  }
  return found;
}

void set(int socket, int level, int option, int value) {
  (void)setsockopt(socket, level, option, &value, sizeof(value));
}

} // namespace

std::set<std::string> open_sockets() {
  std::set<std::string> names;
  for (const auto& [number, name] : sockets()) {
    names.insert(name);
  }
  return names;
}

void watch_silence(const std::set<std::string>& before, std::chrono::milliseconds silence) {
  const int limit = static_cast<int>(std::clamp<int64_t>(silence.count(), 1, INT32_MAX));
  const int seconds = std::max(1, limit / 4000);
  for (const auto& [number, name] : sockets()) {
    if (before.count(name) != 0) {
      continue;
    }
    // An idle connection is probed, so that a receiver notices as well; the limit then counts for the probes.
    set(number, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(number, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    set(number, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
    set(number, IPPROTO_TCP, TCP_USER_TIMEOUT, limit);
  }
}

} // namespace forebay
