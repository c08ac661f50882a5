// The two small protocols of systemd that a daemon needs: readiness (sd_notify(3)) and passed
// sockets (sd_listen_fds(3)).
#pragma once

#include <string_view>
#include <vector>

namespace duplex::os {

// "READY=1", "STOPPING=1", "WATCHDOG=1". Without NOTIFY_SOCKET nothing happens.
void notify_systemd(std::string_view state);
// Descriptors handed over by LISTEN_FDS, for this process only; the variables are removed.
std::vector<int> take_listen_fds();

}  // namespace duplex::os
