// MirrorBox: a Box (scenario.h) for traces about mirrors: three disks, one volume on each for p, s
// and t, and the verbs in short. The disk of `p` is disk("/dev/p"), and so on; `u` shares that of
// t.
//
//   p -m1-> s    p -m2-> t    s -m3-> u
#pragma once

#include <string>
#include <vector>

#include "mirror/mirrors.h"
#include "sim/raw_view.h"
#include "sim/scenario.h"

namespace duplex::simtest {

using mirror::Mirrors;
using mirror::Relation;
using mirror::Then;

inline constexpr uint64_t kVolumeBytes = 16 * kRegionBytes;

class MirrorBox : public Box {
 public:
  explicit MirrorBox(uint64_t seed) : Box(seed) {
    for (const char* path : {"/dev/p", "/dev/s", "/dev/t"}) add_disk(path, 8 * kMiB);
    for (const char* name : {"p", "s", "t", "u"}) make_volume(name);
  }

  // A mirror whose copy has ended.
  void mirror(const std::string& name, const std::string& source, const std::string& target) {
    const auto made = create(name, source, target);
    ASSERT_TRUE(made) << made.error().describe();
    await(name, Relation::kSync);
  }
  Result<Mirrors::Created> create(const std::string& name, const std::string& source,
                                  const std::string& target) {
    return run(array->mirrors().create(
        {.name = name, .source = source, .target = target, .copy = true, .overwrite = true}));
  }
  Result<mirror::CutInfo> split(std::vector<std::string> names, bool read_only = false) {
    return run(
        array->mirrors().split({.names = std::move(names), .pairs = {}, .read_only = read_only}));
  }
  Result<std::vector<mirror::MirrorInfo>> resync(const std::string& name) {
    return run(array->mirrors().resync({{name}, false}));
  }
  Result<std::vector<mirror::MirrorInfo>> restore(const std::string& name,
                                                  Then then = Then::kSplit) {
    return run(array->mirrors().restore({.names = {name}, .then = then, .online = true}));
  }
  mirror::MirrorInfo info(const std::string& name) {
    const auto shown = run(array->mirrors().show(name));
    EXPECT_TRUE(shown) << shown.error().describe();
    return shown ? *shown : mirror::MirrorInfo{};
  }
  // Waits until the mirror is in that state and no region exists at its target only.
  void await(const std::string& name, Relation state) {
    for (int i = 0; i < 600; ++i) {
      const auto now = info(name);
      if (now.state == state && now.missing_bytes == 0) return;
      pass(100 * rt::kMillisecond);
    }
    FAIL() << name << " is " << mirror::state_name(info(name).state) << ", not "
           << mirror::state_name(state);
  }
  // What the own backing of a volume holds, past its mirrors.
  std::vector<std::byte> raw(const std::string& volume) {
    auto bytes = run(raw_bytes(*array, machine, volume));
    EXPECT_TRUE(bytes);
    return bytes ? *std::move(bytes) : std::vector<std::byte>{};
  }
  bool is_equal(const std::string& one, const std::string& other) {
    return differing_regions(raw(one), raw(other)) == 0;
  }
  void put(const std::string& volume, uint64_t region, char letter) {
    const auto done = run(write(volume, region * kRegionBytes, kRegionBytes, letter));
    EXPECT_TRUE(done) << done.error().describe();
  }
  std::string get(const std::string& volume, uint64_t region) {
    return letters(volume, region * kRegionBytes, kRegionBytes);
  }

 private:
  void make_volume(const std::string& name) {
    const std::string disk_name = name == "u" ? "t" : name;
    const auto made = run(array->volumes().create({.name = name,
                                                   .size_bytes = kVolumeBytes,
                                                   .number = {},
                                                   .backing = {},
                                                   .device = device("/dev/" + disk_name).name,
                                                   .thick = false}));
    ASSERT_TRUE(made) << made.error().describe();
  }
};

}  // namespace duplex::simtest
