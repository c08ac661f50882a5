// Signals as a wait: no handler runs code (CVE-2015-0847 was a handler that did).
#pragma once

namespace duplex::os {

// Call in main() before any thread starts: SIGTERM, SIGINT and SIGHUP are blocked in all threads,
// SIGPIPE is ignored.
void block_signals();
// Waits for SIGTERM or SIGINT; returns its number.
int wait_for_stop_signal();

}  // namespace duplex::os
