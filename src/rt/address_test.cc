#include <gtest/gtest.h>

#include "rt/net.h"

namespace duplex::rt {
namespace {

TEST(Address, BothKindsAreReadAndPrinted) {
  for (const char* text : {"unix:/run/duplex/nbd.sock", "tcp:127.0.0.1:10809", "tcp:[::1]:10809",
                           "tcp:host.example:0"}) {
    const auto address = Address::parse(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(address->to_string(), text);
  }
}

TEST(Address, NonsenseIsRefusedWithTheForm) {
  for (const std::string& text : {std::string("unix:"), std::string("tcp:x"), std::string("tcp::1"),
                                  std::string("tcp:h:65536"), std::string("tcp:h:"),
                                  std::string("http://x"), "unix:" + std::string(108, 'x')}) {
    const auto address = Address::parse(text);
    ASSERT_FALSE(address) << text;
    EXPECT_EQ(address.error().next(), "use unix:PATH or tcp:HOST:PORT");
  }
}

TEST(Address, AnIpv6HostStandsInBrackets) {
  for (const char* text : {"tcp:[::1", "tcp:[::1]", "tcp:::1]:80", "tcp:::1:80", "tcp:[::1:80",
                           "tcp:[]:80", "tcp:[[::1]]:80"}) {
    const auto address = Address::parse(text);
    ASSERT_FALSE(address) << text;
    EXPECT_NE(address.error().message().find(text), std::string_view::npos) << "all of it is shown";
    EXPECT_NE(address.error().message().find("IPv6"), std::string_view::npos)
        << address.error().describe();
    EXPECT_NE(address.error().next().find("tcp:[::1]:10809"), std::string_view::npos);
  }
}

TEST(Address, OnlyRealLoopbackCountsAsLocal) {
  for (const char* text :
       {"unix:/x", "tcp:127.0.0.1:1", "tcp:127.255.0.1:1", "tcp:localhost:1", "tcp:[::1]:1"}) {
    EXPECT_TRUE(Address::parse(text)->is_local()) << text;
  }
  for (const char* text :
       {"tcp:0.0.0.0:1", "tcp:127.evil.example:1", "tcp:128.0.0.1:1", "tcp:127.0.0:1",
        "tcp:127.0.0.1.example:1", "tcp:[::]:1", "tcp:127.0.0.256:1"}) {
    EXPECT_FALSE(Address::parse(text)->is_local()) << text;
  }
}

}  // namespace
}  // namespace duplex::rt
