// The front door, byte by byte, in the simulator: a scripted client that may say anything.
#include <gtest/gtest.h>

#include "nbd/server.h"
#include "nbd/test_client.h"
#include "nbd/test_exports.h"
#include "sim/machine.h"

namespace duplex::nbd {
namespace {

class FrontDoor : public testing::Test {
 protected:
  FrontDoor() { start({}); }
  ~FrontDoor() override {
    sim.run(box.control(), server->stop());
    EXPECT_EQ(exports.open_now, 0u) << "every open was closed";
  }
  void start(ServerOptions options) {
    if (server) sim.run(box.control(), server->stop());
    server = std::make_unique<Server>(box, exports, options);
    auto listening =
        sim.run(box.control(), server->listen(*rt::Address::parse("unix:/nbd"), false));
    ASSERT_TRUE(listening && *listening);
  }
  Bytes talk(const Bytes& bytes, size_t until = SIZE_MAX, size_t step = 1 << 20) {
    auto heard =
        sim.run(client.control(), converse(client.control(), bytes, until, step), 60 * rt::kSecond);
    EXPECT_TRUE(heard) << "the conversation never ended";
    return heard.value_or(Bytes{});
  }
  // Replies after the 18 bytes of the greeting, as (option, type, payload).
  struct OptionAnswer {
    uint32_t option;
    uint32_t type;
    Bytes payload;
  };
  static std::vector<OptionAnswer> answers(const Bytes& heard) {
    std::vector<OptionAnswer> all;
    ByteReader reader(std::span(heard).subspan(std::min<size_t>(18, heard.size())),
                      std::endian::big);
    while (reader.remaining() >= 20) {
      if (reader.take<uint64_t>() != kOptionReplyMagic) break;
      OptionAnswer answer;
      answer.option = reader.take<uint32_t>();
      answer.type = reader.take<uint32_t>();
      const auto payload = reader.take_bytes(reader.take<uint32_t>());
      answer.payload.assign(payload.begin(), payload.end());
      all.push_back(std::move(answer));
    }
    return all;
  }
  static constexpr uint32_t kDisc = 2;
  // Bytes a GO for "db" is answered with: greeting, two infos, ACK.
  static constexpr size_t kGoBytes = 18 + 20 + 12 + 20 + 14 + 20;
  Bytes enter() const { return join({client_flags(), option(7, go_payload("db"))}); }
  // Error number of the simple reply that follows the handshake.
  uint32_t error_of(const Bytes& one_request) {
    const Bytes heard = talk(join({enter(), one_request, request(kDisc, 0, 0)}));
    if (heard.size() < kGoBytes + 16) return UINT32_MAX;
    EXPECT_EQ(load_be<uint32_t>(heard.data() + kGoBytes), kSimpleReplyMagic);
    return load_be<uint32_t>(heard.data() + kGoBytes + 4);
  }

  sim::Simulation sim{11};
  sim::Machine& box = sim.add_machine("server", {});
  sim::Machine& client = sim.add_machine("client", {});
  FakeExports exports;
  FakeVolume& db = exports.add("db", 64 << 20, box.reactor(0));
  std::unique_ptr<Server> server;
};

TEST_F(FrontDoor, GoDescribesTheVolumeAndStartsTransmission) {
  const Bytes heard = talk(join({enter(), request(kDisc, 0, 0)}));
  const auto all = answers(heard);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].type, 3u);
  EXPECT_EQ(load_be<uint64_t>(all[0].payload.data() + 2), uint64_t{64} << 20);
  EXPECT_EQ(load_be<uint16_t>(all[0].payload.data() + 10), transmission_flags(false, false));
  EXPECT_EQ(load_be<uint32_t>(all[1].payload.data() + 10), kMaxRequestBytes);
  EXPECT_EQ(all[2].type, 1u);
  EXPECT_EQ(exports.opens, 1u);
}

TEST_F(FrontDoor, InfoOpensNothing) {
  talk(join({client_flags(), option(6, go_payload("db", {1, 2, 3})), option(2, {})}));
  EXPECT_EQ(exports.opens, 0u);
}

TEST_F(FrontDoor, ExportNameAnswersWithAndWithoutZeroes) {
  const Bytes name = {std::byte{'d'}, std::byte{'b'}};
  EXPECT_EQ(talk(join({client_flags(3), option(1, name), request(kDisc, 0, 0)})).size(), 18u + 10);
  EXPECT_EQ(talk(join({client_flags(1), option(1, name), request(kDisc, 0, 0)})).size(),
            18u + 10 + 124);
}

TEST_F(FrontDoor, TheEmptyNameIsTheOnlyVolumeAndAnErrorWhenThereAreTwo) {
  EXPECT_EQ(answers(talk(join({client_flags(), option(7, go_payload("")), request(kDisc, 0, 0)})))
                .back()
                .type,
            1u);
  exports.add("other", 4096, box.reactor(0));
  EXPECT_EQ(
      answers(talk(join({client_flags(), option(7, go_payload("")), option(2, {})}))).front().type,
      0x80000006u);
}

TEST_F(FrontDoor, EveryOptionAnswersByItsTable) {
  struct Case {
    Bytes sent;
    std::vector<uint32_t> types;
  };
  const std::vector<Case> cases = {
      {option(3, {}), {2, 1}},                                 // LIST
      {option(3, {std::byte{1}}), {0x80000003}},               // LIST with data
      {option(5, {}), {0x80000002}},                           // STARTTLS
      {option(6, go_payload("none")), {0x80000006}},           // INFO of nothing
      {option(6, go_payload("db", {1, 2})), {3, 3, 3, 3, 1}},  // INFO with name, description
      {option(8, {}), {1}},                                    // STRUCTURED_REPLY
      {option(8, {std::byte{1}}), {0x80000003}},
      {option(9, meta_payload("db", {})), {4, 1}},  // LIST_META_CONTEXT
      {option(9, meta_payload("db", {"x:y"})), {1}},
      {option(10, meta_payload("db", {"base:allocation"})),
       {0x80000003}},  // SET before STRUCTURED_REPLY
      {option(99, {}), {0x80000001}},
      {option(0xffffffff, {}), {0x80000001}},
  };
  for (const Case& c : cases) {
    const auto all = answers(talk(join({client_flags(), c.sent, option(2, {})})));
    ASSERT_EQ(all.size(), c.types.size() + 1);
    for (size_t i = 0; i < c.types.size(); ++i) EXPECT_EQ(all[i].type, c.types[i]);
  }
}

TEST_F(FrontDoor, LengthsInsideAnOptionThatDoNotFitAreInvalid) {
  for (const uint32_t inner :
       {0u, 1u, 3u, 255u, 256u, 4096u, 4097u, 65535u, 0x7fffffffu, 0xfffffffeu, 0xffffffffu}) {
    for (const uint32_t number : {6u, 7u, 9u, 10u}) {
      Bytes payload = number >= 9 ? meta_payload("db", {"base:allocation"}) : go_payload("db");
      store_be(payload.data(), inner);
      const auto all = answers(
          talk(join({client_flags(), option(8, {}), option(number, payload), option(2, {})})));
      ASSERT_EQ(all.size(), 3u) << inner;
      EXPECT_GE(all[1].type, 0x80000000u) << inner;
    }
  }
  EXPECT_EQ(exports.opens, 0u);
}

TEST_F(FrontDoor, AnOptionThatIsTooLongIsAnsweredAndNotDrained) {
  for (const uint32_t length : {65537u, 0x7fffffffu, 0xffffffffu}) {
    const auto all = answers(talk(join({client_flags(), option(7, {}, length)})));
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].type, 0x80000009u);
  }
}

TEST_F(FrontDoor, EndlessOptionsAreCutOff) {
  Bytes bytes = client_flags();
  for (int i = 0; i < 1000; ++i) bytes = join({bytes, option(6, go_payload("none"))});
  EXPECT_EQ(answers(talk(bytes)).size(), static_cast<size_t>(kMaxOptions));
}

TEST_F(FrontDoor, AnIdleHandshakeEndsAtItsDeadline) {
  const rt::Micros before = sim.now();
  talk(client_flags());
  EXPECT_GE(sim.now() - before, 10 * rt::kSecond);
  EXPECT_LE(sim.now() - before, 11 * rt::kSecond);
}

TEST_F(FrontDoor, ClosingAtEveryByteOfAConversationHarmsNobody) {
  const Bytes whole =
      join({client_flags(), option(8, {}), option(10, meta_payload("db", {"base:allocation"})),
            option(7, go_payload("db")), request(1, 0, 512, 0, 1, Bytes(512)),
            request(0, 0, 512, 0, 2), request(kDisc, 0, 0)});
  for (size_t end = 0; end <= whole.size(); end += end < 200 ? 1 : 37) {
    talk(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(end)), 0);
  }
  EXPECT_EQ(error_of(request(0, 0, 16)), 0u);
}

TEST_F(FrontDoor, AConversationOneByteAtATimeIsUnderstood) {
  const Bytes payload(700, std::byte{0x5a});
  const Bytes heard =
      talk(join({enter(), request(1, 100, 700, 0, 1, payload), request(kDisc, 0, 0)}), SIZE_MAX, 1);
  EXPECT_EQ(heard.size(), kGoBytes + 16);
  EXPECT_EQ(std::memcmp(db.data().data() + 100, payload.data(), 700), 0);
}

TEST_F(FrontDoor, RequestsThatAreWrongGetTheirErrorNumber) {
  const uint64_t size = 64 << 20;
  EXPECT_EQ(error_of(request(0, size, 1)), 22u);
  EXPECT_EQ(error_of(request(0, UINT64_MAX, 2)), 22u);
  EXPECT_EQ(error_of(request(0, 0, (32 << 20) + 1)), 75u);
  EXPECT_EQ(error_of(request(1, size - 1, 2, 0, 7, Bytes(2))), 28u);
  EXPECT_EQ(error_of(request(6, size, 1)), 28u);
  EXPECT_EQ(error_of(request(4, size, 1)), 22u);
  EXPECT_EQ(error_of(request(3, 1, 0)), 22u);
  EXPECT_EQ(error_of(request(0, 0, 1, kCmdNoHole)), 22u);
  EXPECT_EQ(error_of(request(0, 0, 1, 0x8000)), 22u);
  EXPECT_EQ(error_of(request(99, 0, 0)), 22u);
  EXPECT_EQ(error_of(request(7, 0, 512)), 22u) << "no context was negotiated";
  EXPECT_TRUE(db.calls.empty()) << "none of these reached the volume";
}

TEST_F(FrontDoor, FailuresOfTheVolumeHaveTheirErrorNumber) {
  const std::vector<std::pair<Code, uint32_t>> cases = {
      {Code::kMediumRead, 5}, {Code::kMediumWrite, 5},   {Code::kFlushLost, 5},
      {Code::kNoSpace, 28},   {Code::kNotSupported, 95}, {Code::kWriteProtected, 1},
      {Code::kShutdown, 108}};
  for (const auto& [code, number] : cases) {
    db.failure = code;
    EXPECT_EQ(error_of(request(6, 0, 4096)), number) << code_name(code);
  }
  db.failure.reset();
}

TEST_F(FrontDoor, AReadOnlyClientMayNotWrite) {
  exports.read_only = true;
  for (const uint16_t command : {uint16_t{1}, uint16_t{4}, uint16_t{6}}) {
    EXPECT_EQ(error_of(request(command, 0, 512, 0, 7, command == 1 ? Bytes(512) : Bytes{})), 1u);
  }
  EXPECT_TRUE(db.calls.empty());
}

// Mutation: INFO answers as for a volume that may be written.
TEST_F(FrontDoor, InfoAndGoTellTheSameOfAReadOnlyVolume) {
  exports.read_only = true;
  for (const uint32_t asked : {6u, 7u}) {
    const Bytes end = asked == 6 ? option(2, {}) : request(kDisc, 0, 0);
    const auto all = answers(talk(join({client_flags(), option(asked, go_payload("db")), end})));
    ASSERT_GE(all.size(), 3u);
    const uint16_t flags = load_be<uint16_t>(all[0].payload.data() + 10);
    EXPECT_EQ(flags, transmission_flags(true, false));
    EXPECT_NE(flags & kReadOnly, 0);
    EXPECT_EQ(flags & (kSendTrim | kSendWriteZeroes), 0);
  }
}

// Mutation: the next step of the refusal is left out.
TEST_F(FrontDoor, ARefusedVolumeSaysWhyAndWhatToDo) {
  exports.refusal = Error(Code::kWriteProtected, "db is a mirror of log", "duplex split m1");
  const auto all =
      answers(talk(join({client_flags(), option(7, go_payload("db")), option(2, {})})));
  ASSERT_FALSE(all.empty());
  EXPECT_EQ(all[0].type, 0x80000002u);
  const Bytes& text = all[0].payload;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(text.data()), text.size()),
            "db is a mirror of log (next: duplex split m1)");
  exports.refusal.reset();
}

TEST_F(FrontDoor, FlagsReachTheVolume) {
  talk(join({enter(), request(1, 0, 512, kCmdFua, 1, Bytes(512)),
             request(6, 0, 512, kCmdNoHole | kCmdFua, 2), request(6, 0, 512, kCmdFastZero, 3),
             request(4, 0, 65536, kCmdFua, 4), request(3, 0, 0, 0, 5), request(kDisc, 0, 0)}));
  EXPECT_EQ(db.calls,
            (std::vector<std::string>{"write 0+512 fua", "zero-no-hole 0+512 fua",
                                      "zero-fast 0+512", "trim 0+65536 fua", "flush 0+0"}));
}

TEST_F(FrontDoor, StructuredRepliesCarryDataErrorsAndStatus) {
  const Bytes start =
      join({client_flags(), option(8, {}), option(10, meta_payload("db", {"base:allocation"})),
            option(7, go_payload("db"))});
  const size_t handshake = 18 + 20 + (20 + 4 + 15) + 20 + 20 + 12 + 20 + 14 + 20;
  Bytes heard = talk(join({start, request(0, 4096, 512), request(kDisc, 0, 0)}));
  ASSERT_EQ(heard.size(), handshake + 20 + 8 + 512);
  EXPECT_EQ(load_be<uint32_t>(heard.data() + handshake), kStructuredReplyMagic);
  EXPECT_EQ(load_be<uint16_t>(heard.data() + handshake + 6), 1u);
  EXPECT_EQ(load_be<uint64_t>(heard.data() + handshake + 20), 4096u);
  heard = talk(join({start, request(0, 1ull << 40, 512), request(kDisc, 0, 0)}));
  ASSERT_EQ(heard.size(), handshake + 20 + 6);
  EXPECT_EQ(load_be<uint16_t>(heard.data() + handshake + 6), 0x8001u);
  EXPECT_EQ(load_be<uint32_t>(heard.data() + handshake + 20), 22u);
  heard = talk(join({start, request(7, 0, 65536), request(kDisc, 0, 0)}));
  ASSERT_EQ(heard.size(), handshake + 20 + 4 + 16);
  EXPECT_EQ(load_be<uint32_t>(heard.data() + handshake + 24), 32768u);
  EXPECT_EQ(load_be<uint32_t>(heard.data() + handshake + 36), 3u);
  heard = talk(join({start, request(7, 0, 65536, kCmdReqOne), request(kDisc, 0, 0)}));
  EXPECT_EQ(heard.size(), handshake + 20 + 4 + 8);
}

// What META_CONTEXT replies name, by id, up to the ACK.
std::map<std::string, uint32_t> contexts_in(const Bytes& heard, size_t from) {
  std::map<std::string, uint32_t> found;
  ByteReader reader(std::span(heard).subspan(from), std::endian::big);
  while (reader.remaining() >= 20) {
    reader.take<uint64_t>();
    reader.take<uint32_t>();
    const auto type = reader.take<uint32_t>();
    const auto length = reader.take<uint32_t>();
    if (type != 4) break;
    const auto id = reader.take<uint32_t>();
    found.emplace(reader.take_string(length - 4), id);
  }
  return found;
}

using Contexts = std::map<std::string, uint32_t>;

// Mutations: answer_queries() does not ask the exports; it takes a part of a name for the name.
TEST_F(FrontDoor, WhatMirrorsOfferIsListedByNameAndByNamespace) {
  exports.offered = {{"m1", volume::ContextId(7)}, {"m2", volume::ContextId(9)}};
  const auto listed = [&](const std::vector<std::string>& queries) {
    return contexts_in(
        talk(join({client_flags(), option(9, meta_payload("db", queries)), option(2, {})})), 18);
  };
  const Contexts both{{"duplex:changed/m1", 0}, {"duplex:changed/m2", 0}};
  Contexts all = both;
  all["base:allocation"] = 0;
  EXPECT_EQ(listed({}), all);
  EXPECT_EQ(listed({"duplex:"}), both);
  EXPECT_EQ(listed({"duplex:changed/"}), both);
  EXPECT_EQ(listed({"base:"}), (Contexts{{"base:allocation", 0}}));
  EXPECT_EQ(listed({"duplex:changed/m2", "x:y"}), (Contexts{{"duplex:changed/m2", 0}}));
  EXPECT_EQ(listed({"duplex:changed/m", "duplex:changed/m11", "duplex:chang"}), Contexts());
}

// Mutation: every context gets the same id.
TEST_F(FrontDoor, ContextsThatWereSetHaveIdsOfTheirOwnAndAtMostSixteenAreTaken) {
  exports.offered = {{"m1", volume::ContextId(7)}, {"m2", volume::ContextId(9)}};
  const auto set = [&](const std::vector<std::string>& queries) {
    return contexts_in(talk(join({client_flags(), option(8, {}),
                                  option(10, meta_payload("db", queries)), option(2, {})})),
                       18 + 20);
  };
  EXPECT_EQ(set({"duplex:changed/m2", "base:allocation", "duplex:changed/m2"}),
            (Contexts{{"base:allocation", 1}, {"duplex:changed/m2", 2}}));
  EXPECT_EQ(set({"duplex:"}), (Contexts{{"duplex:changed/m1", 2}, {"duplex:changed/m2", 3}}));
  EXPECT_EQ(set({}), Contexts());
  exports.offered.clear();
  for (int i = 0; i < 40; ++i) {
    exports.offered.push_back({"m" + std::to_string(i), volume::ContextId(5)});
  }
  EXPECT_EQ(set({"duplex:"}).size(), 16u);
}

// Mutations: serve_status() answers the first context alone; every chunk is the last.
TEST_F(FrontDoor, BlockStatusAnswersEachContextWithAChunkOfItsOwn) {
  exports.offered = {{"m1", volume::ContextId(4096)}, {"m2", volume::ContextId(60000)}};
  const auto status = [&](const std::vector<std::string>& queries, uint16_t flags) {
    const Bytes heard = talk(
        join({client_flags(), option(8, {}), option(10, meta_payload("db", queries)),
              option(7, go_payload("db")), request(7, 0, 65536, flags), request(kDisc, 0, 0)}));
    size_t welcome = 18 + 20 + 20 + 20 + 12 + 20 + 14 + 20;
    for (const std::string& query : queries) welcome += 20 + 4 + query.size();
    return Bytes(heard.begin() + static_cast<std::ptrdiff_t>(welcome), heard.end());
  };
  const Bytes one = status({"duplex:changed/m2"}, 0);
  ASSERT_EQ(one.size(), 20u + 4 + 16);
  EXPECT_EQ(load_be<uint16_t>(one.data() + 4), kChunkDone);
  EXPECT_EQ(load_be<uint32_t>(one.data() + 20), 2u) << "the first that was chosen";
  EXPECT_EQ(load_be<uint32_t>(one.data() + 24), 60000u);
  EXPECT_EQ(load_be<uint32_t>(one.data() + 28), 1u) << "changed";
  EXPECT_EQ(load_be<uint32_t>(one.data() + 32), 5536u);
  EXPECT_EQ(load_be<uint32_t>(one.data() + 36), 0u);
  const Bytes all =
      status({"base:allocation", "duplex:changed/m1", "duplex:changed/m2"}, kCmdReqOne);
  ASSERT_EQ(all.size(), 3u * (20 + 4 + 8));
  for (size_t i = 0; i < 3; ++i) {
    const std::byte* chunk = all.data() + i * 32;
    EXPECT_EQ(load_be<uint16_t>(chunk + 4), i == 2 ? kChunkDone : 0);
    EXPECT_EQ(load_be<uint16_t>(chunk + 6), 5u);
    EXPECT_EQ(load_be<uint64_t>(chunk + 8), 7u) << "the cookie";
    EXPECT_EQ(load_be<uint32_t>(chunk + 20), i + 1);
  }
  EXPECT_EQ(load_be<uint32_t>(all.data() + 32 + 24), 4096u);
}

// Mutations: check() wants base:allocation; take_contexts() does not compare the export.
TEST_F(FrontDoor, ContextsHoldForTheExportTheyWereSetForUntilTheNextSet) {
  exports.offered = {{"m1", volume::ContextId(4096)}};
  exports.add("other", 1 << 20, db.core());
  const Bytes set = option(10, meta_payload("db", {"duplex:changed/m1"}));
  const auto answer = [&](const Bytes& options, std::string_view name) {
    const Bytes heard =
        talk(join({client_flags(), option(8, {}), options, option(7, go_payload(name)),
                   request(7, 0, 512), request(kDisc, 0, 0)}));
    // The last reply is a chunk of status, or one of an error.
    return load_be<uint16_t>(heard.data() + heard.size() - (20 + 4 + 8) + 6) == 5;
  };
  EXPECT_TRUE(answer(set, "db"));
  EXPECT_FALSE(answer(set, "other"));
  EXPECT_FALSE(answer(join({set, option(10, meta_payload("db", {"x:y"}))}), "db"));
}

TEST_F(FrontDoor, AWriteLongerThanTheMaximumEndsTheConnection) {
  talk(join({enter(), request(1, 0, (32 << 20) + 1)}));
  EXPECT_TRUE(db.calls.empty());
}

TEST_F(FrontDoor, GarbageInsteadOfARequestEndsTheConnection) {
  talk(join({enter(), Bytes(28, std::byte{0xff})}));
  EXPECT_EQ(error_of(request(0, 0, 16)), 0u) << "others are served";
}

TEST_F(FrontDoor, ClientsThatVanishWithManyLargeRequestsLeaveNothingBehind) {
  db.delay = 2000;
  for (uint32_t k = 1; k <= 64; k += k < 8 ? 1 : 7) {
    Bytes bytes = enter();
    for (uint32_t i = 0; i < k; ++i) bytes = join({bytes, request(0, 0, 4 << 20, 0, i)});
    talk(bytes, kGoBytes + size_t{100} * k);
  }
  db.delay = 0;
  EXPECT_EQ(error_of(request(0, 0, 16)), 0u);
  EXPECT_EQ(db.running, 0u);
}

TEST_F(FrontDoor, RequestsInFlightAreBoundedPerConnection) {
  db.delay = 50'000;
  Bytes bytes = enter();
  for (uint32_t i = 0; i < 64; ++i) bytes = join({bytes, request(0, 0, 8 << 20, 0, i)});
  bytes = join({bytes, request(kDisc, 0, 0)});
  talk(bytes);
  EXPECT_LE(db.most_running * (8 << 20), Connection::kBudgetBytes);
  EXPECT_GE(db.most_running, 4u);
}

TEST_F(FrontDoor, LimitsOfConnectionsTurnTheNextOneAway) {
  start({.max_connections = 1024, .max_per_source = 0});
  EXPECT_TRUE(talk(client_flags()).empty());
  start({.max_connections = 0});
  EXPECT_TRUE(talk(client_flags()).empty());
  start({.max_handshakes = 0});
  EXPECT_TRUE(talk(client_flags()).empty());
}

TEST_F(FrontDoor, TcpFromOutsideNeedsInsecure) {
  auto refused =
      sim.run(box.control(), server->listen(*rt::Address::parse("tcp:0.0.0.0:10809"), false));
  EXPECT_EQ(refused->error().code(), Code::kDenied);
  EXPECT_TRUE(
      *sim.run(box.control(), server->listen(*rt::Address::parse("tcp:0.0.0.0:10809"), true)));
}

TEST_F(FrontDoor, StopAnswersWhatIsUnderWay) {
  db.delay = 300'000;
  const auto heard =
      sim.start(client.control(),
                converse(client.control(), join({enter(), request(1, 0, 4096, 0, 1, Bytes(4096))}),
                         SIZE_MAX, 4096));
  while (db.running == 0)
    sim.run(box.control(), [](rt::Clock& clock) -> rt::Task<> {
      co_await rt::sleep_for(clock, 1000);
    }(box.control().clock()));
  EXPECT_TRUE(sim.run(box.control(), server->stop()));
  EXPECT_TRUE(sim.finish(*heard));
  EXPECT_EQ(heard->value->size(), kGoBytes + 16);
}

TEST_F(FrontDoor, AnOperatorCanDisconnectAClient) {
  const auto heard =
      sim.start(client.control(), converse(client.control(), enter(), SIZE_MAX, 4096));
  struct Local {
    static rt::Task<> cut(FakeExports& exports, rt::Clock& clock) {
      while (exports.disconnects.empty()) co_await rt::sleep_for(clock, 1000);
      exports.disconnects.front()();
    }
  };
  EXPECT_TRUE(sim.run(box.control(), Local::cut(exports, box.control().clock())));
  EXPECT_TRUE(sim.finish(*heard));
}

}  // namespace
}  // namespace duplex::nbd
