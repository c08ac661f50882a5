// What a host may do with a member of a mirror, from the mirror's word to the bytes on the wire:
// a whole array with its front door, and a client that speaks NBD byte by byte.
#include <gtest/gtest.h>

#include "control/test_array.h"
#include "nbd/handshake.h"
#include "nbd/server.h"
#include "nbd/test_client.h"

namespace duplex::simtest {
namespace {

using nbd::Bytes;

constexpr uint16_t kWrite = 1;
constexpr uint16_t kDisconnect = 2;

class AccessScenarios : public testing::Test {
 protected:
  AccessScenarios() {
    world.start();
    world.add_device();
    world.add_volume("db", kMiB);
    server = std::make_unique<nbd::Server>(world.box, world.array->volumes(), nbd::ServerOptions{});
    const auto listening = world.run(server->listen(*rt::Address::parse("unix:/nbd"), false));
    EXPECT_TRUE(listening);
    member = *world.run(world.array->volumes().join(VolumeNumber(1), "m1"));
  }
  ~AccessScenarios() override {
    world.sim.run(world.box.control(), server->stop());
    if (member != nullptr) leave();
    world.stop();
    server.reset();
  }
  void leave() {
    world.sim.run(world.box.control(), world.array->volumes().leave(*member, "m1"));
    member = nullptr;
  }
  Bytes talk(const Bytes& bytes) {
    auto heard =
        world.sim.run(client.control(), nbd::converse(client.control(), bytes, SIZE_MAX, 1 << 20),
                      60 * rt::kSecond);
    EXPECT_TRUE(heard) << "the conversation never ended";
    return heard.value_or(Bytes{});
  }
  // GO, one write of 4 KiB, DISC. What follows the greeting.
  Bytes write_as_host() {
    Bytes heard = talk(nbd::join({nbd::client_flags(), nbd::option(7, nbd::go_payload("db")),
                                  nbd::request(kWrite, 0, 4096, 0, 7, Bytes(4096)),
                                  nbd::request(kDisconnect, 0, 0)}));
    EXPECT_GE(heard.size(), 38u);
    heard.resize(std::max<size_t>(heard.size(), 38));
    return Bytes(heard.begin() + 18, heard.end());
  }
  // Of the two infos, the ACK and the simple reply to the write.
  static constexpr size_t kReply = 20 + 12 + 20 + 14 + 20;
  static uint16_t flags_of(const Bytes& heard) { return load_be<uint16_t>(heard.data() + 20 + 10); }
  static uint32_t error_of(const Bytes& heard) {
    return heard.size() == kReply + 16 ? load_be<uint32_t>(heard.data() + kReply + 4) : UINT32_MAX;
  }
  uint64_t written() { return world.array->volumes().info("db")->stats.written_bytes; }

  control::test::TestArray world;
  sim::Machine& client = world.sim.add_machine("client", {});
  std::unique_ptr<nbd::Server> server;
  volume::Member* member = nullptr;
};

// Mutation: Opened::read_only() is false whatever the access.
TEST_F(AccessScenarios, AReadOnlyMemberIsAdvertisedSoAndAWriteIsAnsweredWithEperm) {
  member->set_access(volume::Access::read_only());
  const Bytes heard = write_as_host();
  ASSERT_GE(heard.size(), kReply);
  EXPECT_EQ(flags_of(heard), nbd::transmission_flags(true, false));
  EXPECT_EQ(error_of(heard), 1u);
  EXPECT_EQ(written(), 0u);
  member->set_access(volume::Access::read_write());
  const Bytes again = write_as_host();
  ASSERT_GE(again.size(), kReply);
  EXPECT_EQ(flags_of(again), nbd::transmission_flags(false, false));
  EXPECT_EQ(error_of(again), 0u);
  EXPECT_EQ(written(), 4096u);
}

TEST_F(AccessScenarios, AHostHearsOfARefusalInTheWordsOfTheMirrorAndWhatToDo) {
  member->set_access(volume::Access::refused(
      Error(Code::kWriteProtected, "db is a mirror of log", "duplex split m1")));
  const Bytes heard = write_as_host();
  EXPECT_EQ(load_be<uint32_t>(heard.data() + 12), 0x80000002u) << "ERR_POLICY";
  const std::string text(reinterpret_cast<const char*>(heard.data()), heard.size());
  EXPECT_NE(text.find("db is a mirror of log (next: duplex split m1)"), std::string::npos) << text;
}

// Trace F37. Mutation: may_open() does not look at the flag.
TEST_F(AccessScenarios, F37AVolumeThatAMirrorLeftInconsistentIsServedToNobody) {
  member->committed(member->row().content_id, false);
  leave();
  const Bytes heard = write_as_host();
  EXPECT_EQ(load_be<uint32_t>(heard.data() + 12), 0x80000002u) << "ERR_POLICY";
  const std::string text(reinterpret_cast<const char*>(heard.data()), heard.size());
  EXPECT_NE(text.find("duplex volume delete db"), std::string::npos) << text;
}

TEST_F(AccessScenarios, DisconnectEndsTheConnectionOfAHost) {
  auto host = world.sim.run(client.control(),
                            client.control().net().connect(*rt::Address::parse("unix:/nbd")));
  ASSERT_TRUE(host && *host);
  rt::Stream& stream = ***host;
  Bytes hello = nbd::join({nbd::client_flags(), nbd::option(7, nbd::go_payload("db"))});
  iovec part{hello.data(), hello.size()};
  struct Local {
    static rt::Task<int> send(rt::Stream& to, iovec what) {
      co_return co_await to.send(std::span(&what, 1));
    }
  };
  EXPECT_EQ(world.sim.run(client.control(), Local::send(stream, part)), 0);
  world.pass(rt::kSecond);
  ASSERT_EQ(member->clients().size(), 1u);
  member->set_access(volume::Access::refused(Error(Code::kWriteProtected)));
  EXPECT_TRUE(world.run(member->disconnect()));
  EXPECT_TRUE(member->clients().empty());
  world.sim.run(client.control(), [](std::unique_ptr<rt::Stream> s) -> rt::Task<> {
    s.reset();
    co_return;
  }(std::move(**host)));
}

}  // namespace
}  // namespace duplex::simtest
