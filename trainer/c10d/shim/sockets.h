// Connections that notice that they are cut.
//
// Gloo sets no limit on how long what it sent may stay unacknowledged, and gives nobody its sockets, so a link that is cut
// between two replicas would be noticed by a timeout that is meant for whole operations only. The sockets that a group has
// opened are therefore looked up among those of this process.
#pragma once

#include <chrono>
#include <set>
#include <string>

namespace forebay {

// The sockets of this process, by the names that Linux gives them ("socket:[inode]"), which are not used again soon.
std::set<std::string> open_sockets();

// From now on a TCP connection that is not among `before` breaks when nothing that it sent was acknowledged for `silence`,
// probes of an idle one included. Connections of other parts of this process that were opened meanwhile are so, too, which is
// no harm to them. A socket that does not take the option stays as it was.
void watch_silence(const std::set<std::string>& before, std::chrono::milliseconds silence);

} // namespace forebay
