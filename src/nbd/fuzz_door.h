// For fuzzers of the front door: a server with one volume in the simulator, and the properties
// every conversation has, whatever the client says.
#pragma once

#include <memory>

#include "base/assert.h"
#include "base/log.h"
#include "nbd/server.h"
#include "nbd/test_client.h"
#include "nbd/test_exports.h"
#include "sim/machine.h"

namespace duplex::nbd {

class FuzzDoor {
 public:
  static constexpr uint64_t kVolumeBytes = 256 * kKiB;

  FuzzDoor() {
    set_log_level(LogLevel::kError);
    exports_.offered = {{"m1", volume::ContextId(4096)}, {"m2", volume::ContextId(65536)}};
    const auto listening =
        sim_.run(box_.control(), server_.listen(*rt::Address::parse("unix:/nbd"), false));
    ASSERT(listening && *listening);
  }
  FuzzDoor(const FuzzDoor&) = delete;
  FuzzDoor& operator=(const FuzzDoor&) = delete;
  // Whatever was said: an honest client is served, and nothing of the others is left behind.
  ~FuzzDoor() {
    serve_honest_client();
    ASSERT(sim_.run(box_.control(), all_gone(server_, box_.control().clock()), kPatience));
    ASSERT(sim_.run(box_.control(), server_.stop(), kPatience));
    ASSERT(exports_.open_now == 0);
  }

  FakeVolume& volume() { return volume_; }
  // A client that sends `bytes` and then waits for the server to close, or hangs up at once. The
  // conversation ends, in bounded time and work; only one that came to the transmission phase may
  // idle, until an operator ends it.
  Bytes talk(const Bytes& bytes, bool hang_up, size_t step) {
    said_bytes_ += bytes.size();
    const auto heard = sim_.start(client_.control(),
                                  converse(client_.control(), bytes, hang_up ? 0 : SIZE_MAX, step));
    if (!sim_.finish(*heard, kPatience)) {
      ASSERT(exports_.open_now == 1);
      ASSERT(sim_.run(box_.control(), disconnect(exports_)));
      ASSERT(sim_.finish(*heard, kPatience));
    }
    // Over all conversations: what the network still has to deliver of one is done in the next.
    ASSERT(sim_.steps() < kMaxSteps + 20 * said_bytes_);
    return std::move(*heard->value);
  }

 private:
  // Beyond the deadline of a handshake.
  static constexpr rt::Micros kPatience = 30 * rt::kSecond;
  static constexpr uint64_t kMaxSteps = 200'000;

  static rt::Task<> disconnect(FakeExports& exports) {
    exports.disconnects.back()();
    co_return;
  }
  static rt::Task<> all_gone(const Server& server, rt::Clock& clock) {
    while (server.connections() != 0) co_await rt::sleep_for(clock, rt::kMillisecond);
  }
  void serve_honest_client() {
    const Bytes heard = talk(
        join({client_flags(), option(7, go_payload("db")), request(0, 512, 512), request(2, 0, 0)}),
        false, SIZE_MAX);
    constexpr size_t kGoBytes = 18 + 20 + 12 + 20 + 14 + 20;
    ASSERT(heard.size() == kGoBytes + 16 + 512);
    ASSERT(load_be<uint32_t>(heard.data() + kGoBytes) == kSimpleReplyMagic);
    ASSERT(load_be<uint32_t>(heard.data() + kGoBytes + 4) == 0);
  }

  uint64_t said_bytes_ = 0;
  sim::Simulation sim_{7};
  sim::Machine& box_ = sim_.add_machine("server", {});
  sim::Machine& client_ = sim_.add_machine("client", {});
  FakeExports exports_;
  FakeVolume& volume_ = exports_.add("db", kVolumeBytes, box_.reactor(0));
  Server server_{box_, exports_};
};

// The input of a fuzzer, taken from its front; zeroes when nothing is left.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : rest_(data, size) {}
  bool empty() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const uint8_t value = rest_.front();
    rest_ = rest_.subspan(1);
    return value;
  }
  uint64_t number(size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value = value << 8 | byte();
    return value;
  }
  Bytes bytes(size_t most) {
    const auto taken = std::as_bytes(rest_.first(std::min(most, rest_.size())));
    rest_ = rest_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace duplex::nbd
