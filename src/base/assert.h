// Always-on assertions: for what only our own code can do wrong.
//
// Bytes from a wire, a disk or a person never reach an ASSERT; they are checked and become an
// Error. An assertion stays on in release builds, because a wrong copy is worse than a halt.
#pragma once

namespace duplex {

// Prints file, line and text to stderr and aborts.
[[noreturn]] void assert_failed(const char* condition, const char* file, int line);

}  // namespace duplex

#define ASSERT(condition)                       \
  (__builtin_expect(!!(condition), 1) ? void(0) \
                                      : ::duplex::assert_failed(#condition, __FILE__, __LINE__))
